"""Ratios of rounds by turns, their bootstrap intervals, and whether they meet what is asked of them."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_DRAWS, _SEED, _SIDES = 2000, 0, (2.5, 97.5)


@dataclass(frozen=True)
class Target:
    """What a ratio is to be: at most or at least a number."""

    bound: float
    is_most: bool

    def __str__(self) -> str:
        """For the table."""
        return f"at {'most' if self.is_most else 'least'} {self.bound:g}"

    def met(self, ratio: float) -> bool:
        """Whether a ratio is that; one that is no number is not."""
        return ratio <= self.bound if self.is_most else ratio >= self.bound


@dataclass(frozen=True)
class Compared:
    """One thing beside another.

    Attributes:
        model: Which model.
        what: What is compared with what.
        mine: Median of all rounds.
        other: Likewise, of what it is compared with.
        unit: Of both.
        ratio: Median of the ratios within the rounds.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        target: What is asked of the ratio; None for nothing.
    """

    model: str
    what: str
    mine: float
    other: float
    unit: str
    ratio: float
    low: float
    high: float
    target: Target | None = None

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        met = self.target and self.target.met(self.ratio)
        return dataclasses.asdict(self) | {"target": self.target and str(self.target), "met": met}


def compare(
    model: str,
    what: str,
    starts: Sequence[tuple[Sequence[float], Sequence[float]]],
    unit: str,
    target: Target | None = None,
) -> Compared:
    """Compare round by round.

    Args:
        model: Which model.
        what: What is compared with what.
        starts: For each start of the servers: the figures of its rounds, mine and the other's.
        unit: Of the figures.
        target: What is asked of the ratio.

    Raises:
        ValueError: A figure of the other is not above 0.
    """
    mine, other = ([figure for start in starts for figure in start[side]] for side in (0, 1))
    if not all(figure > 0 for figure in other):
        raise ValueError(f"{model}: {what}: {min(other):g} {unit} to compare with; expected above 0, so longer rounds")
    ratios = [[one / base for one, base in zip(*start, strict=True)] for start in starts]
    low, high = interval(ratios)
    medians = (statistics.median(mine), statistics.median(other))
    middle = statistics.median(ratio for start in ratios for ratio in start)
    return Compared(model, what, *medians, unit, middle, low, high, target)


def interval(starts: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Between which numbers the medians of 95 % of drawn samples lie.

    Starts of the servers are drawn first, then rounds within each: a server keeps its luck, as where its threads run,
    as long as it lives, so that rounds of one start are alike. Efron 1979, "Bootstrap Methods"; the same ratios give
    the same interval.
    """
    random = np.random.default_rng(_SEED)
    arrays = [np.array(start) for start in starts]
    medians = [
        np.median(np.concatenate([random.choice(arrays[one], len(arrays[one])) for one in drawn]))
        for drawn in random.integers(0, len(arrays), (_DRAWS, len(arrays)))
    ]
    low, high = np.percentile(medians, _SIDES)
    return float(low), float(high)


def table(found: Iterable[Compared]) -> list[str]:
    """In Markdown."""
    lines = ["| model | what | measured | against | ratio (95 %) | target | met |", "|---|---|---|---|---|---|---|"]
    for one in found:
        figures = f"{one.mine:.3g} {one.unit} | {one.other:.3g} {one.unit}"
        asked = f"{one.target} | {'yes' if one.target.met(one.ratio) else 'no'}" if one.target else " | "
        lines.append(
            f"| {one.model} | {one.what} | {figures} | {one.ratio:.3f} ({one.low:.3f} to {one.high:.3f}) | {asked} |"
        )
    return lines
