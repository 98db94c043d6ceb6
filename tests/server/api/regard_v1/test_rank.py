"""Documents by how well they answer a query, with the attention between both."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.ranking import write_ranking
from server.api.regard_v1.tensors import read_tensor
from tests.server.api.pairs import DOCUMENTS, QUERY, encode, link_models, run_pair
from tests.server.api.reference import TOLERANCE
from tests.server.asking import CODES, refused, samples
from tests.server.conftest import Running, Serve

FIRST, SECOND = pb.TEXT_OF_PAIR_FIRST, pb.TEXT_OF_PAIR_SECOND


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that read pairs, and others."""
    return link_models(tmp_path_factory.mktemp("models"))


def rank(*documents: str, **fields: Any) -> api.RankRequest:
    """A call of documents."""
    given: dict[str, Any] = {"model": "tiny-rank", "query": QUERY, "documents": pb.Texts(items=documents)}
    return api.RankRequest(**(given | fields))


def sigmoid(logit: float) -> float:
    """Of one number."""
    return float(1 / (1 + np.exp(-logit)))


async def test_documents_are_ranked_by_their_scores(running: Running) -> None:
    """Those of ONNX Runtime, best first; of equal ones that which was sent first."""
    logits = [float(run_pair("tiny-rank", QUERY, text)["logits"][0, 0]) for text in DOCUMENTS]
    assert np.ptp(logits) > 0.1
    answer = await running.stub.Rank(rank(*DOCUMENTS))
    assert [one.index for one in answer.documents] == np.argsort(-np.array(logits), kind="stable").tolist()
    for one in answer.documents:
        assert one.score == pytest.approx(sigmoid(logits[one.index]), abs=TOLERANCE)
    raw = await running.stub.Rank(rank(*DOCUMENTS, raw_scores=True))
    assert [one.index for one in raw.documents] == [one.index for one in answer.documents]
    assert [one.score for one in raw.documents] == pytest.approx(sorted(logits, reverse=True), abs=TOLERANCE)
    best = await running.stub.Rank(rank(*DOCUMENTS, top_k=2))
    assert [one.index for one in best.documents] == [one.index for one in answer.documents][:2]
    assert (answer.model, answer.version) == ("tiny-rank", "1")
    assert answer.timings.batch_size >= 1


async def test_documents_with_an_error_come_last(alone: Running) -> None:
    """All of them, whatever top_k is; they are counted."""
    answer = await alone.stub.Rank(rank("", "a dog", "dog " * 99, "the cat sat", top_k=1))
    assert [one.index for one in answer.documents][1:] == [0, 2]
    assert answer.documents[0].index in (1, 3)
    assert answer.documents[1].error.message == "documents[0]: empty; expected a text with something in it"
    assert answer.documents[2].error.message.startswith("documents[2]: 106 tokens; expected at most 64")
    assert {one.error.code for one in answer.documents[1:]} == {3}
    assert (await samples(alone))[("regard_failed_inputs_total", "INVALID_ARGUMENT")] == 2
    nothing = await alone.stub.Rank(rank("", " "))
    assert [one.index for one in nothing.documents] == [0, 1]


async def test_the_order_is_that_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose scores are rounded to the same number."""
    logits = [17.0, 40.0, 39.0, 18.0]
    each = [SimpleNamespace(outputs={"logits": np.array([[logit]], np.float32)}) for logit in logits]
    monkeypatch.setattr("server.api.regard_v1.ranking.InferenceResponse", SimpleNamespace)
    for one in each:
        one.prepared, one.plan = SimpleNamespace(truncated=False, num_tokens=4), None
    found: Any = SimpleNamespace(each=each, model=SimpleNamespace(contract=SimpleNamespace(activation="sigmoid")))
    answer = api.RankResponse()
    write_ranking(found, answer, api.RankRequest())
    assert [one.index for one in answer.documents] == [1, 2, 3, 0]
    assert answer.documents[0].score == answer.documents[1].score == 1


async def test_attention_of_the_best_is_bounded_by_the_best(start: Serve) -> None:
    """Not by that of all documents, which is computed and not sent."""
    wanted = pb.AttentionRequest(layers=[0])
    documents = ["the cat sat on the mat and a dog ran to see it"] * 16
    async with start(max_message_bytes=32768) as server:
        call = server.stub.Rank(rank(*documents, attention=wanted))
        assert await refused(call, r"attention: an answer of \d+ bytes for 16 inputs") == CODES.INVALID_ARGUMENT
        best = await server.stub.Rank(rank(*documents, attention=wanted, top_k=2))
        assert [len(one.attention.layers) for one in best.documents] == [1, 1]


async def test_pairs_have_no_vectors_of_tokens(running: Running) -> None:
    """What each token of a query found is told of late interaction alone; roles, too."""
    call = running.stub.Rank(rank("a dog", token_matches=True))
    assert await refused(call, "token_matches: tiny-rank compares no token vectors") == CODES.FAILED_PRECONDITION
    embed = api.EmbedRequest(model="tiny-text", text="a dog", role=api.TEXT_ROLE_QUERY)
    assert await refused(running.stub.Embed(embed), "role: tiny-text reads queries as documents") == (
        CODES.FAILED_PRECONDITION
    )


async def test_long_documents_are_cut_each(running: Running) -> None:
    """Where the call says so."""
    answer = await running.stub.Rank(rank("dog " * 99, "a dog", truncate=True))
    assert {one.index: one.truncated for one in answer.documents} == {0: True, 1: False}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"rows_of_text": FIRST, "keys_of_text": SECOND}, ((0,), (1,))),
        ({"rows_of_text": SECOND, "keys_of_text": FIRST}, ((1,), (0,))),
        ({"rows_of_text": SECOND, "keys_of_text": SECOND}, ((1,), (1,))),
        ({"rows_of_text": FIRST}, ((0,), (0, 1, None))),
        ({"keys_of_text": SECOND, "drop_special": True}, ((0, 1), (1,))),
    ],
)
async def test_a_block_is_what_one_text_attends_to_in_the_other(
    fields: dict[str, Any], parts: tuple[Any, Any], running: Running
) -> None:
    """Its positions are named; of a ranking there is one for each document."""
    asked = pb.AttentionRequest(layers=[1], **fields)
    answer = await running.stub.Rank(rank(*DOCUMENTS[:2], attention=asked))
    for one in answer.documents:
        text = DOCUMENTS[one.index]
        of_part = encode("tiny-rank", QUERY, text).sequence_ids
        rows, keys = ([place for place, part in enumerate(of_part) if part in wanted] for wanted in parts)
        (layer,) = one.attention.layers
        assert list(layer.queries) == rows
        assert list(layer.keys) == (keys if None not in parts[1] else [])
        expected = run_pair("tiny-rank", QUERY, text)["attention.1"][0][:, rows][:, :, keys]
        np.testing.assert_allclose(read_tensor("w", layer.weights), expected, atol=TOLERANCE)


async def test_what_cannot_be_ranked_is_refused(running: Running) -> None:
    """With the field, its value and what was expected."""
    stub = running.stub
    for model in ("tiny-nli", "tiny-text", "fashion"):
        match = f"model: {model} gives pairs of texts no single score; expected one with can_rank"
        assert await refused(stub.Rank(rank("a", model=model)), match) == CODES.FAILED_PRECONDITION
    for request, match in (
        (rank(), "documents: 0 of them; expected 1 to 256"),
        (rank(*["a"] * 257), "documents: 257 of them; expected 1 to 256"),
        (rank("a", query=" "), "query: empty; expected a text with something in it"),
        (rank("a", query="a" * 2**21), "query: 2097152 bytes; expected at most"),
        (rank("a", top_k=-1), "top_k: -1; expected 0 for all, or a positive number"),
        (rank("a", priority=4), "priority: 4; expected"),
        (rank("a", attention=pb.AttentionRequest(layers=[2])), "layers: 2; expected from -2 to 1"),
    ):
        assert await refused(stub.Rank(request), match) == CODES.INVALID_ARGUMENT
    many = rank(*["a"] * 256, query="a" * 2**18)
    match = (
        r"query: 67109120 bytes to read with 256 documents; expected at most \d+ \(the server's --max-message-bytes\)"
    )
    assert await refused(stub.Rank(many), match) == CODES.INVALID_ARGUMENT
    assert await refused(stub.Rank(rank("a", model="nobody")), "nobody") == CODES.NOT_FOUND
