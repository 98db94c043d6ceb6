"""Sparse vectors: the words of a vocabulary that weigh anything in a text."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact.contract import Contract
from server.errors import InvalidInput, NotPossible

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SparseRequest:
    """What a caller wants of sparse vectors.

    Attributes:
        max_terms: The heaviest so many; 0 for all.
        with_terms: Whether each is spelt.
    """

    max_terms: int = 0
    with_terms: bool = False

    def check(self, contract: Contract) -> None:
        """Refuse a number of terms that cannot be.

        Raises:
            InvalidInput: It is negative.
            NotPossible: The model's vectors are not sparse.
        """
        if self.max_terms < 0:
            raise InvalidInput("max_terms", self.max_terms, "0 for all, or a positive number")
        if self.max_terms and not (contract.embedding and contract.embedding.sparse):
            raise NotPossible(f"max_terms: the vectors of {contract.name} are dense; expected one with sparse vectors")


def find_terms(vector: Floats, wanted: SparseRequest) -> tuple[NDArray[np.int32], Floats]:
    """Return the tokens that weigh something, and their weights.

    Args:
        vector: float32 [V], none negative.
        wanted: Which of them.

    Returns:
        int32 [T] in ascending order, and float32 [T]; of equal weights those of the smaller tokens are kept.
    """
    (found,) = vector.nonzero()
    if wanted.max_terms and len(found) > wanted.max_terms:
        heaviest = np.argsort(-vector[found], kind="stable")[: wanted.max_terms]
        found = np.sort(found[heaviest])
    return found.astype(np.int32), vector[found]
