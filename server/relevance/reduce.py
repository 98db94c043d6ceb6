"""What is sent of relevance, and how far it adds up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from artifact.contract import RelevanceMethod
from artifact.dtypes import Array
from server.engine.device_ops import Weights
from server.relevance.plan import RelevancePlan, Target

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Completeness:
    """Of a method whose parts make up a score: how far they do.

    Attributes:
        baseline: The score of zeros in the input's place, which the parts leave out; None where they leave out nothing.
        error: How far all parts are from making up the score, or its distance from the baseline's, in its unit.
        relative_error: The same as a share of all that was added, whatever its sign.
    """

    baseline: float | None
    error: float
    relative_error: float


@dataclass(frozen=True, eq=False)
class LayerRelevance:
    """What makes up a score at each depth: what enters the first layer, then what leaves each.

    Attributes:
        values: What each position that is sent did by what is there, float32 [layers + 1, positions].
        unsent: What those did that are not sent, a number a depth.
        added: What is added behind.
        relative_errors: How far all of it is from making up the score, as a share of all that was added.
    """

    values: Floats
    unsent: tuple[float, ...]
    added: tuple[float, ...]
    relative_errors: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Relevance:
    """Why a row has a score.

    Attributes:
        method: How it is explained.
        label: Index of the label that is explained; 0 of a similarity, which is of none.
        against: Index of the label that it is told apart from; None for none.
        values: What each position that is sent did, float32 [positions]; signed by the methods that tell.
        unsent: What those did that are not sent.
        rest: What belongs to no position; 0 by the methods that do not tell.
        score: What is explained.
        completeness: None by the methods whose numbers do not make up a score.
        by_layer: None where it was not asked for.
    """

    method: RelevanceMethod
    label: int
    against: int | None
    values: Floats
    unsent: float
    rest: float
    score: float
    completeness: Completeness | None
    by_layer: LayerRelevance | None = None


def explain_rows(plan: RelevancePlan, logits: Array, found: Mapping[str, Weights]) -> list[list[Relevance]]:
    """Say of each row why it has the score of each target.

    Args:
        plan: What was asked for, settled.
        logits: float32 [rows, C], as the rows are.
        found: By output name, [rows * plan.rows_each, ...], what became of a row together.
    """
    rows, each = len(logits), plan.rows_each
    arrays = {name: np.asarray(array) for name, array in found.items()}
    return [
        explain_row(
            plan.of_row(row),
            logits[row : row + 1],
            {name: array[row * each : (row + 1) * each] for name, array in arrays.items()},
        )
        for row in range(rows)
    ]


def explain_row(plan: RelevancePlan, logits: Array, found: Mapping[str, Weights]) -> list[Relevance]:
    """Say why a row has the score of each target.

    Args:
        plan: What was asked for, settled.
        logits: float32 [1, C], of the row as it is.
        found: By output name, the rows of a target together; padding that batching added already cut off.
    """
    names, points = plan.contract, plan.points
    values, scores = np.asarray(found[names.positions]), np.asarray(found[names.score])
    rests = np.asarray(found[names.rest]) if names.rest else np.zeros_like(scores)
    made = []
    for number, target in enumerate(plan.targets):
        own = slice(number * points, (number + 1) * points)
        why = _explain(plan, target, logits[0], values[own], float(rests[own][0]), scores[own])
        if names.by_layer and names.added:
            held, added = (np.asarray(found[name])[number].astype(np.float64) for name in (names.by_layer, names.added))
            why = replace(why, by_layer=_by_layer(held, added, why.score, plan.positions))
        made.append(why)
    return made


def _by_layer(
    held: NDArray[np.float64], added: NDArray[np.float64], score: float, positions: tuple[int, ...] | None
) -> LayerRelevance:
    """Say what is sent of what positions did at each depth [L + 1, N], with what is added behind [L + 1]."""
    chosen = [_choose(row, positions) for row in held]
    errors = [measure(row, rest, score, None).relative_error for row, rest in zip(held, map(float, added), strict=True)]
    return LayerRelevance(
        np.stack([sent for sent, _ in chosen]),
        tuple(unsent for _, unsent in chosen),
        tuple(map(float, added)),
        tuple(errors),
    )


def _explain(
    plan: RelevancePlan, target: Target, logits: Floats, values: Floats, rest: float, scores: Floats
) -> Relevance:
    whole, baseline = values[0].astype(np.float64), None
    if plan.path is not None:
        whole, baseline = plan.path.shares @ values.astype(np.float64), float(scores[1])
    return Relevance(
        plan.method,
        int(np.argmax(logits)) if target.label is None else target.label,
        target.against,
        *_choose(whole, plan.positions),
        rest,
        float(scores[0]),
        measure(whole, rest, float(scores[0]), baseline) if plan.is_complete else None,
    )


def add_up(whole: NDArray[np.float64], rest: float, score: float, positions: tuple[int, ...] | None) -> Relevance:
    """Say what is sent of what positions did by Libra for a score that is no label's, and how far it makes that up.

    Args:
        whole: What each position did.
        rest: What belongs to none.
        score: What both make up.
        positions: Which are sent; None for all.
    """
    sent, unsent = _choose(whole, positions)
    return Relevance("libra", 0, None, sent, unsent, rest, score, measure(whole, rest, score, None))


def _choose(whole: NDArray[np.float64], positions: tuple[int, ...] | None) -> tuple[Floats, float]:
    """Return what is sent of all positions, and the sum of what is not."""
    told = whole.astype(np.float32)
    if positions is None:
        return told, 0.0
    sent = told[list(positions)]
    return sent, float(whole.sum() - sent.sum(dtype=np.float64))


def measure(whole: NDArray[np.float64], rest: float, score: float, baseline: float | None) -> Completeness:
    """How far parts make up a score, or its distance from a baseline's."""
    error = abs(float(whole.sum() + rest + (baseline or 0.0) - score))
    scale = float(np.abs(whole).sum() + abs(rest))
    return Completeness(baseline, error, error / scale if scale else 0.0)
