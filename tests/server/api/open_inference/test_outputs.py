"""What may be asked of vectors, by outputs and parameters of the Open Inference Protocol."""

from types import SimpleNamespace
from typing import cast

import pytest

from artifact.contract import LateContract
from server.api.open_inference.outputs import check_vectors
from server.errors import NotPossible
from server.inference.vectors import VectorRequest
from server.repository.loading import LoadedModel


def test_vectors_of_tokens_are_refused_in_the_words_of_the_other_protocol() -> None:
    """Which refuses them by VectorRequest.check."""
    late = LateContract(output="token_vectors", dim=2, query_tokens=8, document_tokens=9)
    contract = SimpleNamespace(late=late, embedding=None, name="colbert")
    model = cast("LoadedModel", SimpleNamespace(contract=contract, name="colbert"))
    for wanted, field in ((VectorRequest(8), "dimensions"), (VectorRequest(0, "int8"), "vector_format")):
        with pytest.raises(NotPossible) as own:
            wanted.check(model.contract)
        with pytest.raises(NotPossible) as other:
            check_vectors(wanted, model, ("token_vectors",))
        assert str(other.value) == str(own.value)
        assert str(own.value).startswith(f"{field}: colbert gives a vector a token")
