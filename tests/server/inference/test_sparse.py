"""Which terms of a sparse vector are sent."""

from typing import Any, cast

import numpy as np
import pytest

from artifact.contract import Contract, EmbeddingContract
from server.errors import InvalidInput, NotPossible
from server.inference.sparse import SparseRequest, find_terms
from server.inference.vectors import VectorRequest
from tests.server.inference.test_vectors import Named

SPARSE = EmbeddingContract(output="embedding", dim=32, normalized=False, sparse=True)
VECTOR = np.array([0, 2, 0, 5, 2, 0, 2], dtype=np.float32)


@pytest.mark.parametrize(
    ("max_terms", "indices"), [(0, [1, 3, 4, 6]), (9, [1, 3, 4, 6]), (4, [1, 3, 4, 6]), (3, [1, 3, 4]), (1, [3])]
)
def test_the_heaviest_are_kept_in_the_order_of_the_vocabulary(max_terms: int, indices: list[int]) -> None:
    """Of equal ones the first."""
    found, values = find_terms(VECTOR, SparseRequest(max_terms))
    assert found.dtype == np.int32 and found.tolist() == indices
    np.testing.assert_array_equal(values, VECTOR[indices])


def test_a_vector_of_zeros_has_no_terms() -> None:
    """It is answered all the same."""
    found, values = find_terms(np.zeros(4, np.float32), SparseRequest(2))
    assert (found.tolist(), values.tolist()) == ([], [])


def test_what_cannot_be_had_is_refused() -> None:
    """Terms of dense vectors; sizes and formats of sparse ones."""
    sparse, dense = (cast("Contract", Named(one)) for one in (SPARSE, SPARSE.model_copy(update={"sparse": False})))
    SparseRequest(0, with_terms=True).check(dense)
    SparseRequest(3).check(sparse)
    VectorRequest().check(sparse)
    with pytest.raises(NotPossible, match="max_terms: the vectors of mine are dense; expected one with sparse"):
        SparseRequest(3).check(dense)
    with pytest.raises(InvalidInput, match="max_terms: -1; expected 0 for all"):
        SparseRequest(-1).check(sparse)
    wanted: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dimensions": 8}, "dimensions: 8 of mine, whose vectors are sparse"),
        ({"format": "int8"}, "vector_format: int8 of mine, whose vectors are sparse"),
    )
    for fields, message in wanted:
        with pytest.raises(NotPossible, match=message):
            VectorRequest(**fields).check(sparse)
