"""Vectors cut and rounded, compared with what numpy makes of the formulas."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from artifact.contract import Contract, EmbeddingContract
from server.errors import InvalidInput, NotPossible
from server.inference.vectors import VectorFormat, VectorRequest, make_vectors

NORMALIZED = EmbeddingContract(output="embedding", dim=32, normalized=True, matryoshka_dims=(8, 12))
PLAIN = NORMALIZED.model_copy(update={"normalized": False})
FIXED = NORMALIZED.model_copy(update={"matryoshka_dims": ()})


@dataclass(frozen=True)
class Named:
    """As much of a contract as is looked at."""

    embedding: EmbeddingContract
    name: str = "mine"
    late: None = None


def check(embedding: EmbeddingContract, **wanted: Any) -> None:
    """See whether a request can be had."""
    VectorRequest(**wanted).check(cast("Contract", Named(embedding)))


@pytest.fixture
def vectors() -> Any:
    """Three of length 1, float32 [3, 32]."""
    drawn = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_nothing_asked_for_changes_nothing(vectors: Any) -> None:
    """Not even a copy is made."""
    assert make_vectors(vectors, VectorRequest(), NORMALIZED).values is vectors


def test_all_that_there_are_is_no_cut(vectors: Any) -> None:
    """The same bits as without dimensions, though its length is 1 but for rounding."""
    for dimensions in (0, 32):
        assert make_vectors(vectors, VectorRequest(dimensions), NORMALIZED).values is vectors


def test_cut_vectors_have_length_one_again_where_they_had(vectors: Any) -> None:
    """As sentence-transformers with truncate_dim and normalize_embeddings does; others are only cut."""
    cut = make_vectors(vectors, VectorRequest(8), NORMALIZED).values
    expected = vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, rtol=1e-6)
    assert cut.dtype == np.float32
    np.testing.assert_array_equal(make_vectors(vectors, VectorRequest(8), PLAIN).values, vectors[:, :8])
    assert not make_vectors(np.zeros((1, 32), np.float32), VectorRequest(8), NORMALIZED).values.any()


def test_bits_say_which_numbers_are_above_zero(vectors: Any) -> None:
    """The first in the highest bit; of two vectors the Hamming distance is that of their signs."""
    made = make_vectors(vectors, VectorRequest(8, "binary"), NORMALIZED)
    assert made.values.dtype == np.uint8 and made.values.shape == (3, 1) and made.scales is None
    for byte, vector in zip(made.values[:, 0], vectors, strict=True):
        assert f"{byte:08b}" == "".join("1" if number > 0 else "0" for number in vector[:8])


def test_eight_bits_are_within_half_a_step(vectors: Any) -> None:
    """The largest number on either side of 0 is 127 or -127; a vector of zeros stays one."""
    given = np.concatenate([vectors, np.zeros((1, 32), np.float32)])
    made = make_vectors(given, VectorRequest(0, "int8"), NORMALIZED)
    assert made.scales is not None and made.values.dtype == np.int8
    assert (np.abs(made.values[:3].astype(int)).max(axis=1) == 127).all()
    found = made.values * made.scales[:, np.newaxis]
    assert (np.abs(found - given) <= made.scales[:, np.newaxis] / 2 + 1e-7).all()
    assert not found[3].any()


def test_vectors_of_another_precision_are_float32(vectors: Any) -> None:
    """As an ONNX file may give them."""
    for dtype in (np.float16, np.float64):
        given = vectors.astype(dtype)
        assert make_vectors(given, VectorRequest(), NORMALIZED).values.dtype == np.float32
        scales = make_vectors(given, VectorRequest(0, "int8"), NORMALIZED).scales
        assert scales is not None and scales.dtype == np.float32


def test_half_precision_is_the_nearest(vectors: Any) -> None:
    """Of each number."""
    made = make_vectors(vectors, VectorRequest(0, "float16"), NORMALIZED).values
    np.testing.assert_array_equal(made, vectors.astype(np.float16))


@pytest.mark.parametrize(("number", "wanted"), [(1e5, "float16"), (np.inf, "int8"), (np.nan, "int8")])
def test_what_the_format_cannot_hold_is_refused(number: float, wanted: VectorFormat) -> None:
    """Rather than sent as infinity."""
    with pytest.raises(InvalidInput, match=f"vector_format: {wanted}; expected float32"):
        make_vectors(np.array([[1.0, number]], np.float32), VectorRequest(0, wanted), PLAIN)


def test_only_sizes_that_the_model_was_trained_for_are_cut() -> None:
    """Its own always is one of them."""
    for dimensions in (0, 8, 12, 32):
        check(NORMALIZED, dimensions=dimensions)
    for dimensions in (-1, 7, 33):
        with pytest.raises(InvalidInput, match=f"dimensions: {dimensions}; expected 0 for all, or one of 8, 12, 32"):
            check(NORMALIZED, dimensions=dimensions)
    check(FIXED, dimensions=32)
    with pytest.raises(NotPossible, match="dimensions: 8 of the vectors of mine; expected all 32: nothing says"):
        check(FIXED, dimensions=8)
    with pytest.raises(InvalidInput, match=r"vector_format: binary; expected a multiple of 8 dimensions, not 4 more"):
        check(NORMALIZED, dimensions=12, format="binary")
