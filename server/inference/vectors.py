"""Vectors as callers want them: cut to fewer numbers (Matryoshka), and rounded to what travels."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from artifact.contract import NUMBER_BYTES, Contract, EmbeddingContract
from artifact.dtypes import Array
from server.errors import InvalidInput, NotPossible

VectorFormat = Literal["float32", "float16", "int8", "binary"]
Floats = NDArray[np.float32]

_LARGEST = 127  # of int8, on both sides of 0
_BITS = 8  # of a byte


@dataclass(frozen=True, slots=True)
class VectorRequest:
    """What a caller wants of vectors.

    Attributes:
        dimensions: The first so many numbers; 0 for all.
        format: What they travel as.
    """

    dimensions: int = 0
    format: VectorFormat = "float32"

    def check(self, contract: Contract) -> None:
        """Refuse what cannot be had of a model's vectors.

        Raises:
            NotPossible: The model was not trained for vectors that are cut, or they are sparse, or a token's each.
            InvalidInput: It was for other sizes; or bits do not fill bytes.
        """
        embedding = contract.embedding
        if self == VectorRequest():
            return
        field, value = ("dimensions", self.dimensions) if self.dimensions else ("vector_format", self.format)
        if contract.late:
            raise NotPossible(f"{field}: {contract.name} gives a vector a token, whole and as float32; expected none")
        assert embedding is not None  # noqa: S101 -- or there is no vector
        if embedding.sparse:
            raise NotPossible(f"{field}: {value} of {contract.name}, whose vectors are sparse; expected none")
        sizes = (*embedding.matryoshka_dims, embedding.dim)
        if self.dimensions and self.dimensions not in sizes:
            if self.dimensions > 0 and not embedding.matryoshka_dims:
                known = f"all {embedding.dim}: nothing says that it was trained to have them cut"
                raise NotPossible(f"dimensions: {self.dimensions} of the vectors of {contract.name}; expected {known}")
            raise InvalidInput("dimensions", self.dimensions, f"0 for all, or one of {', '.join(map(str, sizes))}")
        if self.format == "binary" and (left := (self.dimensions or embedding.dim) % _BITS):
            raise InvalidInput("vector_format", "binary", f"a multiple of {_BITS} dimensions, not {left} more")

    def row_bytes(self, embedding: EmbeddingContract) -> int:
        """Size of what is sent of one vector, with what 1 stands for in it."""
        dim = self.dimensions or embedding.dim
        match self.format:
            case "binary":
                return dim // _BITS
            case "int8":
                return dim + NUMBER_BYTES
            case "float16":
                return 2 * dim
        return NUMBER_BYTES * dim


WHOLE_VECTORS = VectorRequest()


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """What is sent.

    Attributes:
        values: [B, D] of float32, float16 or int8; of binary uint8 [B, D / 8], a bit a number, 1 where it is above 0,
            the first in the highest bit, as numpy.packbits.
        scales: Of int8, what 1 stands for in each vector, float32 [B]; else None.
    """

    values: Array
    scales: Floats | None = None


def make_vectors(vectors: Floats, wanted: VectorRequest, embedding: EmbeddingContract) -> Vectors:
    """Cut vectors and round them.

    Those of Euclidean length 1 have it again when they are cut (Kusupati et al. 2022, "Matryoshka Representation
    Learning", section 3, whose vectors are compared by their cosine).

    Args:
        vectors: Float [B, D]; of another precision they become float32.
        wanted: Checked.
        embedding: Says whether they have length 1.

    Raises:
        InvalidInput: The format has no number as large.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if 0 < wanted.dimensions < embedding.dim:
        vectors = vectors[:, : wanted.dimensions]
        if embedding.normalized:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = np.asarray(vectors / np.where(lengths > 0, lengths, np.float32(1)))
    match wanted.format:
        case "binary":
            return Vectors(np.packbits(vectors > 0, axis=1))
        case "int8":
            _refuse_infinite(vectors, wanted)
            scales = np.abs(vectors).max(axis=1) / np.float32(_LARGEST)
            steps = np.rint(vectors / np.where(scales > 0, scales, np.float32(1))[:, np.newaxis])
            return Vectors(steps.clip(-_LARGEST, _LARGEST).astype(np.int8), scales)
        case "float16":
            with np.errstate(over="ignore"):
                rounded = vectors.astype(np.float16)
            _refuse_infinite(rounded, wanted)
            return Vectors(rounded)
    return Vectors(vectors)


def _refuse_infinite(vectors: Array, wanted: VectorRequest) -> None:
    if not np.isfinite(vectors).all():
        raise InvalidInput("vector_format", wanted.format, "float32, as the vector has a number that is beyond it")
