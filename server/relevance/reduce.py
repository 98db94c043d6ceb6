"""What is sent of relevance, and how far it adds up."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact.dtypes import Array
from server.engine.device_ops import Weights
from server.relevance.plan import RelevancePlan

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Relevance:
    """Why one row has its score.

    Attributes:
        label: Index of the label that is explained.
        against: Index of the label that it is told apart from; None for none.
        values: What each position that is sent did, signed, float32 [positions].
        unsent: What those did that are not sent.
        rest: What belongs to no position.
        score: What is explained.
        error: How far all of that is from making up the score, in its unit.
        relative_error: The same as a share of all that was added, whatever its sign.
    """

    label: int
    against: int | None
    values: Floats
    unsent: float
    rest: float
    score: float
    error: float
    relative_error: float


def explain_rows(plan: RelevancePlan, logits: Array, found: Mapping[str, Weights]) -> list[Relevance]:
    """Say why each row has its score.

    Args:
        plan: What was asked for.
        logits: float32 [rows, C].
        found: By output name; padding that batching added already cut off.
    """
    values, rests, scores = (np.asarray(found[name]) for name in plan.outputs)
    return [_explain(plan, *row) for row in zip(logits, values, rests, scores, strict=True)]


def _explain(plan: RelevancePlan, logits: Floats, values: Floats, rest: float, score: float) -> Relevance:
    label = int(np.argmax(logits)) if plan.label is None else plan.label
    return add_up(label, plan.against, plan.positions, values, rest, score)


def add_up(
    label: int, against: int | None, positions: tuple[int, ...] | None, values: Floats, rest: float, score: float
) -> Relevance:
    """Say what is sent of a row, and how far all of it makes up the score; arguments are the fields of Relevance."""
    whole = values.astype(np.float64)
    sent = values if positions is None else values[list(positions)]
    error = abs(float(whole.sum() + rest - score))
    scale = float(np.abs(whole).sum() + abs(rest))
    return Relevance(
        label=label,
        against=against,
        values=sent,
        unsent=float(whole.sum() - sent.sum(dtype=np.float64)),
        rest=float(rest),
        score=float(score),
        error=error,
        relative_error=error / scale if scale else 0.0,
    )
