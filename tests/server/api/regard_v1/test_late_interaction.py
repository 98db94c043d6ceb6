"""What a ranking by vectors of tokens may hold, before anything is computed."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from artifact.contract import Contract, LateContract
from artifact.text import Tokens
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.late_interaction import read_late_documents
from server.errors import InvalidInput
from server.inference.many_bounds import Ready, reserve_together
from server.inference.preprocess import InputLimits
from server.inference.request import InferenceRequest, PreparedInput, Texts
from server.ledger import Account, Ledger
from server.repository.loading import LoadedModel

LATE = LateContract(output="token_vectors", dim=2, query_tokens=8, document_tokens=9)
BYTES = 64 * (8 + 9)  # of a document's matches


def read(max_bytes: int = 10**6, documents: int = 4, **fields: Any) -> Texts:
    """Read a request."""
    given: dict[str, Any] = {"query": "a", "documents": pb.Texts(items=["b"] * documents)}
    contract, limits = SimpleNamespace(late=LATE), SimpleNamespace(inputs=4, text_bytes=9)
    request = api.RankRequest(**given | fields)
    return read_late_documents(request, cast("Contract", contract), cast("InputLimits", limits), max_bytes)


def test_a_query_stands_before_its_documents() -> None:
    """Errors call each what it is."""
    texts = read()
    assert (texts.texts, texts.queries) == (("a", "b", "b", "b", "b"), 1)
    assert [texts.name(row) for row in (0, 1, 4)] == ["query", "documents[0]", "documents[3]"]


def test_matches_are_as_many_as_a_message_holds() -> None:
    """Of those documents that are sent."""
    read(4 * BYTES, token_matches=True)
    read(4 * BYTES - 1)
    read(4 * BYTES - 1, token_matches=True, top_k=3)
    with pytest.raises(InvalidInput, match=f"token_matches: up to {4 * BYTES} bytes of 4 documents; expected at most"):
        read(4 * BYTES - 1, token_matches=True)


def test_what_cannot_be_ranked_is_refused() -> None:
    """With the field, its value and what was expected."""
    for fields, message in (
        ({"query": " "}, "query: empty; expected a text"),
        ({"query": "a" * 10}, "query: 10 bytes; expected at most 9"),
        ({"documents": 5}, "documents: 5 of them; expected 1 to 4"),
        ({"documents": 0}, "documents: 0 of them; expected 1 to 4"),
        ({"top_k": -1}, "top_k: -1; expected 0 for all"),
    ):
        with pytest.raises(InvalidInput, match=message):
            read(**cast("dict[str, Any]", fields))


def test_vectors_that_are_compared_here_are_no_part_of_the_answer() -> None:
    """Those that are sent are, with the tokens that they are of."""
    tokens = Tokens(np.arange(4), ["ab"] * 4, [(0, 0)] * 4, [False] * 4, truncated=False)
    ready = cast("Ready", SimpleNamespace(plan=None, prepared=PreparedInput({}, 1, 4, tokens)))
    spec = SimpleNamespace(name="token_vectors", axes=(1, 4, 2), dtype="float32")
    contract = SimpleNamespace(late=LATE, embedding=None, outputs=[spec], axis_sizes=lambda inputs: {})
    found = list[int]()
    for field in ("documents", "texts"):
        texts = Texts(("a",), truncate=False, field=field)
        model = cast("LoadedModel", SimpleNamespace(contract=contract))
        request = InferenceRequest(model, texts, ("token_vectors",))
        account = Account(Ledger(10**6))
        reserve_together(request, [ready], 1, account)
        found.append(sum(account._parts.values()))
    assert found == [4 * 8 + 3 * 32, 3 * (4 * 8 + 4 * (32 + 8))]
