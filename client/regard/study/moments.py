"""Count, mean and variance of numbers that come in parts, and which of them were largest.

Parts are merged as Chan, Golub and LeVeque 1979 ("Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances", equation 2.1) do it: no sum of squares, from which a small variance beside a large mean would be lost.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(eq=False)
class Moments:
    """Count, mean, variance, least and largest of many numbers; NaN does not count.

    Attributes:
        shape: Of what is counted, each place by itself.
        count: int64 of that shape.
        mean: float64 of that shape; 0 where there is no number.
        squares: Sum of squared differences from the mean.
        least: Infinity where there is no number.
        largest: Minus infinity where there is no number.
    """

    shape: tuple[int, ...]
    count: NDArray[np.int64] = field(init=False)
    mean: Floats = field(init=False)
    squares: Floats = field(init=False)
    least: Floats = field(init=False)
    largest: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.count = np.zeros(self.shape, np.int64)
        self.mean, self.squares = np.zeros(self.shape), np.zeros(self.shape)
        self.least, self.largest = np.full(self.shape, np.inf), np.full(self.shape, -np.inf)

    def add(self, numbers: NDArray[np.floating]) -> Self:
        """Count a part, [N, *shape]."""
        known = ~np.isnan(numbers)
        values = np.where(known, numbers, 0).astype(np.float64)
        count = known.sum(axis=0)
        mean = values.sum(axis=0) / np.maximum(count, 1)
        squares = (np.where(known, values - mean, 0) ** 2).sum(axis=0)
        total = np.maximum(self.count + count, 1)
        apart = mean - self.mean
        self.squares += squares + apart**2 * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count += count
        self.least = np.minimum(self.least, np.where(known, numbers, np.inf).min(axis=0, initial=np.inf))
        self.largest = np.maximum(self.largest, np.where(known, numbers, -np.inf).max(axis=0, initial=-np.inf))
        return self

    @property
    def variance(self) -> Floats:
        """Of the sample, divided by count - 1; NaN below two numbers."""
        found: Floats = np.where(self.count > 1, self.squares / np.maximum(self.count - 1, 1), np.nan)
        return found


@dataclass(eq=False)
class Largest:
    """The largest of many numbers, place by place, and which they were.

    Attributes:
        shape: Of what is counted.
        kept: How many of each place.
        values: float32 [kept, *shape], falling; minus infinity where there are fewer.
        numbers: int64 of that shape: which, counted from 0; -1 where there are fewer.
    """

    shape: tuple[int, ...]
    kept: int
    values: NDArray[Any] = field(init=False)
    numbers: NDArray[np.int64] = field(init=False)
    _seen: int = 0

    def __post_init__(self) -> None:
        self.values = np.full((self.kept, *self.shape), -np.inf, np.float32)
        self.numbers = np.full((self.kept, *self.shape), -1, np.int64)

    def add(self, numbers: NDArray[np.floating]) -> Self:
        """Count a part, [N, *shape]; of equal ones the earlier stays."""
        known = np.where(np.isnan(numbers), -np.inf, numbers).astype(np.float32)
        places = np.arange(self._seen, self._seen + len(known)).reshape(-1, *[1] * len(self.shape))
        places = np.where(np.isneginf(known), -1, places)
        values = np.concatenate([self.values, known])
        order = np.argsort(-values, axis=0, kind="stable")[: self.kept]
        self.values = np.take_along_axis(values, order, axis=0)
        self.numbers = np.take_along_axis(np.concatenate([self.numbers, places]), order, axis=0)
        self._seen += len(known)
        return self
