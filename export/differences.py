"""Differences as data: measured by verify, reported together as the lines of the verification table."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from artifact.dtypes import Array
from artifact.verification import Check


@dataclass(frozen=True)
class Difference:
    """One comparison in one case; `scale` is the largest magnitude of the reference, `positions` as Case has them."""

    tensor: str
    check: str
    max_abs: float
    scale: float
    limit: float
    positions: int = 0


def largest(values: Iterable[float]) -> float:
    """Largest of some numbers; NaN if one of them is NaN, which Python's max may drop."""
    return float(np.max(list(values)))


def max_abs(got: Array, reference: Array) -> float:
    """Largest absolute difference; NaN if there is one anywhere, infinite for other shapes, which no limit admits."""
    if got.shape != reference.shape:
        return math.inf
    return float(np.abs(got - reference).max(initial=0))


def summarize(differences: Sequence[Difference]) -> tuple[Check, ...]:
    """Keep the worst of each tensor and check."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    for one in differences:
        groups.setdefault((one.tensor, one.check), []).append(one)
    return tuple(_worst(group) for group in groups.values())


def above_limits(table: Iterable[Check]) -> list[Check]:
    """Return the lines whose difference is above its limit, or is not a number."""
    return [line for line in table if not line.max_abs <= line.limit]


def tell(lines: Iterable[Check], between: str) -> str:
    """Say what each line compares, its difference and its limit."""
    return between.join(f"{line.tensor}: {line.check}: {line.max_abs:.3g}, limit {line.limit:.3g}" for line in lines)


def _worst(group: Sequence[Difference]) -> Check:
    worst = max(group, key=_share_of_limit)
    return Check(
        tensor=worst.tensor,
        check=worst.check,
        cases=len(group),
        max_abs=worst.max_abs,
        max_rel=worst.max_abs / max(worst.scale, float(np.finfo(np.float32).tiny)),
        limit=worst.limit,
        positions=max(one.positions for one in group),
    )


def _share_of_limit(difference: Difference) -> float:
    share = difference.max_abs / difference.limit
    return math.inf if math.isnan(share) else share
