"""Why two inputs are as similar as they are: what is computed of each, and what both make up together.

A vector is a sum of parts, one for each position and one for none: e = sum_i c_i + r. With Libra, which holds the
lengths of vectors, a similarity s = scale * e e' is then sum_i scale * c_i e' + scale * r e', and by pairs of positions
sum_ij scale * c_i c'_j and what has an r in it. (Möller, Nikolaev and Padó 2023, "An Attribution Method for Siamese
Encoders", gets pairs by integrated Jacobians, which add up as far as there are steps.)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact.contract import NUMBER_BYTES, Contract, SimilarityContract
from artifact.dtypes import Array
from server.attention.indices import without_special
from server.attention.planning import AttentionLimits
from server.attention.positions import Positions
from server.errors import InvalidInput, NotPossible
from server.relevance.plan import SCORES, repeated
from server.relevance.reduce import Relevance, add_up

Floats = NDArray[np.float32]

Places = tuple[int, ...] | None

NO_POSITION = -1


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityRequest:
    """What is wanted of one of two inputs.

    Attributes:
        weights: The other's vector, float32 [D], for whose similarity positions are explained; None for all parts.
        drop_special: Leaves out positions that are no part of the input.
    """

    weights: Floats | None = None
    drop_special: bool = False


@dataclass(frozen=True, eq=False)
class SimilarityPlan:
    """A checked request for what one of two inputs does.

    Attributes:
        contract: The model's.
        weights: The other's vector, float32 [1, D]; None for all parts.
        positions: Which are sent, counted from 0; None for all.
        count: How many there are.
        dim: Numbers of a vector.
    """

    contract: SimilarityContract
    weights: Floats | None
    positions: Places
    count: int
    dim: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the similarity graph, or of the parts graph, to fetch."""
        return (self.contract.part,) if self.weights is None else self.contract.relevance.outputs

    @property
    def runs(self) -> int:
        """How many rows it takes to compute one: each gives a part, the last that of no position."""
        return self.count + 1 if self.weights is None else 1

    def spread(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Make the inputs of its graph from those of the one row: a row for each run."""
        made = repeated(inputs, self.runs)
        if self.weights is not None:
            return {**made, self.contract.relevance.weights: self.weights}
        return {**made, self.contract.chosen: np.array([*range(self.count), NO_POSITION])}

    @property
    def index_counts(self) -> list[int]:
        """How many indices come with what is sent: of positions, where these are some, and of words."""
        return [self.count if self.positions is None else 2 * len(self.positions)]

    def answer_bytes(self, rows: int) -> int:
        """Size of what will be sent for a request of so many rows, pairs not counted."""
        sent = self.count if self.positions is None else len(self.positions)
        return rows * (sent + SCORES) * NUMBER_BYTES

    def computed_bytes(self, rows: int) -> int:
        """Size of what is fetched for it."""
        numbers = self.runs * self.dim if self.weights is None else self.count + SCORES
        return rows * numbers * NUMBER_BYTES


@dataclass(frozen=True, eq=False)
class Side:
    """What was computed of one of two inputs.

    Attributes:
        vector: float32 [D].
        positions: Which are sent; None for all.
        values: What each position did for a score, float32 [N]; None where there are parts, or nothing is explained.
        rest: What belongs to none.
        parts: float32 [N + 1, D], the last that of no position; None where there are none.
    """

    vector: Floats
    positions: Places = None
    values: Floats | None = None
    rest: float = 0.0
    parts: Floats | None = None


@dataclass(frozen=True, eq=False)
class Pairs:
    """What each position of one input does with each of another.

    Attributes:
        values: float32 [N, M] of those that are sent.
        unpaired: What of the similarity is not among them.
        error: How far both are from making up the similarity.
        relative_error: The same as a share of all that was added, whatever its sign.
    """

    values: Floats
    unpaired: float
    error: float
    relative_error: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """How similar two inputs are, and why.

    Attributes:
        similarity: Their cosine, or the dot product.
        sides: What the positions of the first and of the second did; None where that was not asked for.
        positions: Which of each these are, counted from 0; None for all.
        pairs: What pairs of them did; None likewise.
    """

    similarity: float
    sides: tuple[Relevance, Relevance] | None = None
    positions: tuple[Places, Places] = (None, None)
    pairs: Pairs | None = None


def plan_similarity(
    request: SimilarityRequest, contract: Contract, positions: Positions, limits: AttentionLimits
) -> SimilarityPlan:
    """Check what is wanted of one of two inputs.

    Raises:
        NotPossible: The model was exported without it.
        InvalidInput: All parts take more runs than is allowed.
    """
    compared = contract.similarity
    if compared is None or contract.embedding is None:
        expected = "a model with Model.can_explain_similarity"
        raise NotPossible(f"relevance: {contract.name} was exported without relevance of similarities; {expected}")
    count = compared.relevance.num_positions(positions.sizes, positions.count)
    special = "relevance.drop_special"
    kept = without_special(special, positions.special, count) if request.drop_special else None
    weights = None if request.weights is None else request.weights[None]
    plan = SimilarityPlan(compared, weights, kept, count, contract.embedding.dim)
    if (tokens := plan.runs * count) > limits.pair_tokens and weights is None:
        found = f"{tokens} tokens or patches in all runs of an input of {count}"
        expected = f"at most {limits.pair_tokens} (the server's --max-pair-tokens): a shorter input, or no pairs"
        raise InvalidInput("relevance.pairs", found, expected)
    return plan


def compare(first: Side, second: Side, *, dot: bool) -> Comparison:
    """Say how similar two inputs are, and why, as far as it was computed.

    Args:
        first: Its values are for a score with the second's vector.
        second: Likewise.
        dot: Whether the similarity is the dot product, and not the cosine.
    """
    one, other = first.vector.astype(np.float64), second.vector.astype(np.float64)
    scale = 1.0 if dot else 1 / max(_length(one) * _length(other), np.finfo(np.float64).tiny)
    similarity = scale * float(one @ other)
    pairs = None
    if first.parts is not None and second.parts is not None:
        pairs = _pair(first.parts, second.parts, (first.positions, second.positions), similarity, scale)
        first, second = _turn(first, second.vector), _turn(second, first.vector)
    if first.values is None or second.values is None:
        return Comparison(similarity)
    sides = _explain(first, scale, similarity), _explain(second, scale, similarity)
    return Comparison(similarity, sides, (first.positions, second.positions), pairs)


def _turn(side: Side, vector: Floats) -> Side:
    """What its parts do for a score with a vector."""
    assert side.parts is not None  # noqa: S101 -- or it is not called
    shares = side.parts.astype(np.float64) @ vector.astype(np.float64)
    return Side(side.vector, side.positions, shares[:-1].astype(np.float32), float(shares[-1]))


def _explain(side: Side, scale: float, similarity: float) -> Relevance:
    assert side.values is not None  # noqa: S101 -- or it is not called
    return add_up(scale * side.values.astype(np.float64), scale * side.rest, similarity, side.positions)


def _pair(first: Floats, second: Floats, positions: tuple[Places, Places], similarity: float, scale: float) -> Pairs:
    """Multiply parts, of which the last is that of no position, with parts."""
    whole = scale * (first.astype(np.float64) @ second.astype(np.float64).T)  # [N + 1, M + 1]
    rows, columns = (
        list(range(count - 1)) if kept is None else list(kept)
        for kept, count in zip(positions, whole.shape, strict=True)
    )
    sent = whole[np.ix_(rows, columns)].astype(np.float32)
    total, added = float(whole.sum()), float(np.abs(whole).sum())
    error = abs(total - similarity)
    return Pairs(sent, total - float(sent.sum(dtype=np.float64)), error, error / added if added else 0.0)


def _length(vector: NDArray[np.float64]) -> float:
    return math.sqrt(float(vector @ vector))
