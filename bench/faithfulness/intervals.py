"""Bootstrap intervals of means: inputs are drawn again, the same for every measure, so that differences are paired.

Efron 1979, "Bootstrap Methods"; percentile intervals.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWS, _SEED, _SIDES = 2000, 0, (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """A mean, and between which numbers 95 % of the means of drawn inputs lie."""

    mean: float
    low: float
    high: float

    def apart(self, other: "Interval") -> bool:
        """Whether the two do not meet."""
        return self.low > other.high or other.low > self.high


def intervals(scores: NDArray[np.float64]) -> list[Interval]:
    """Of each row of scores [measure, input]; the same scores give the same intervals."""
    drawn = _draw(scores.shape[1])
    means = scores[:, drawn].mean(axis=2)  # [measure, draw]
    lows, highs = np.percentile(means, _SIDES, axis=1)
    found = zip(scores.mean(axis=1), lows, highs, strict=True)
    return [Interval(float(mean), float(low), float(high)) for mean, low, high in found]


def differences(scores: NDArray[np.float64], base: int) -> list[Interval]:
    """Of each row of scores [measure, input] less one of them, input by input."""
    return intervals(scores - scores[base])


def _draw(inputs: int) -> NDArray[np.intp]:
    return np.random.default_rng(_SEED).integers(0, inputs, (_DRAWS, inputs))
