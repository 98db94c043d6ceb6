"""How numbers become shares of a scale: where it ends, how it runs, and what lies between the patches of a map.

The explorer's page has the same rules: `explorer/static/scales.js`.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from regard.attention import AttentionRequest, LayerAttention
from regard.matrices import is_product

Curve = Literal["linear", "sqrt", "log"]
DECADES = 3
"""A logarithmic scale begins at its end divided by 10 to this."""
_PRODUCT_PERCENTILE = 99.0
_SMALLEST_END = 1e-9


@dataclass(frozen=True)
class Scale:
    """How numbers become colours.

    Attributes:
        curve: "linear", "sqrt" (the square root, so that weak links stay visible beside strong ones) or "log" (of the
            last three decades); None for linear over photos and the square root between tokens.
        percentile: Where the scale ends, among the numbers that it is of; what is larger is drawn as its end. 100 for
            the largest. None for 99 of a rollout, which gathers on very few positions, and 100 of all else.
        end: Where the scale ends, whatever the numbers are; None for the percentile.
        common: Whether panels have one scale, so that they can be compared; None where the picture is for comparing.
        multiples: Whether weights are told as multiples of uniform attention, 1/N.
    """

    curve: Curve | None = None
    percentile: float | None = None
    end: float | None = None
    common: bool | None = None
    multiples: bool = False


@dataclass(frozen=True)
class End:
    """Where a scale ends.

    Attributes:
        value: That number, above 0.
        largest: The largest of all numbers.
        percentile: Which percentile it is; 100 for the largest, and where the end was given.
    """

    value: float
    largest: float
    percentile: float

    @property
    def beyond(self) -> bool:
        """Whether there are numbers beyond."""
        return self.value < self.largest


def scale_end(layer: LayerAttention, numbers: Iterable[NDArray[np.floating]], scale: Scale) -> End:
    """Say where the scale of some maps or matrices of one layer ends.

    Args:
        layer: What they are of: a rollout ends elsewhere than weights.
        numbers: Of any shape; NaN does not count.
        scale: What was chosen.
    """
    known = np.concatenate([each[~np.isnan(each)].ravel() for each in numbers])
    return _end(known, scale, _PRODUCT_PERCENTILE if is_product(layer) else 100.0)


def signed_end(numbers: NDArray[np.floating], scale: Scale) -> End:
    """Say where a scale ends that is as long on both sides of 0: by the numbers without their signs.

    Args:
        numbers: Of any shape.
        scale: What was chosen; its percentile is 100 where none was.
    """
    return _end(np.abs(numbers).ravel(), scale, 100.0)


def _end(known: NDArray[np.floating], scale: Scale, usual_percentile: float) -> End:
    largest = float(known.max(initial=0))
    if scale.end is not None:
        return End(scale.end, largest, 100)
    percentile = usual_percentile if scale.percentile is None else scale.percentile
    value = float(np.percentile(known, percentile)) if known.size and percentile < 100 else largest
    if value <= 0:  # nearly all are 0: the few that are not are all there is to be seen
        value, percentile = largest, 100.0
    return End(max(value, _SMALLEST_END), largest, percentile)


def smoothed(on_grid: NDArray[np.floating], times: int) -> NDArray[np.float64]:
    """Return a map with `times` x `times` numbers a patch, which has each patch's own number at its centre.

    Between the centres it follows monotone cubics along rows, then along columns, with the harmonic mean of
    neighbouring differences as slope: Fritsch and Butland 1984, "A method for constructing local monotone piecewise
    cubic interpolants". Nothing rises above the largest number, and an isolated one keeps its height.

    Args:
        on_grid: [rows, cols].
        times: Odd, so that one of the numbers lies at the centre.

    Returns:
        float64 [rows * times, cols * times].
    """
    along_rows = _monotone(np.asarray(on_grid, dtype=np.float64), times)
    return _monotone(along_rows.T, times).T


def _monotone(values: NDArray[np.float64], times: int) -> NDArray[np.float64]:
    """Interpolate along the last axis: [..., N] becomes [..., N * times]; flat beyond the outer centres."""
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 1)], mode="edge")
    steps = np.diff(padded, axis=-1)
    before, after = steps[..., :-1], steps[..., 1:]
    rises = before * after > 0
    slopes = np.divide(2 * before * after, before + after, out=np.zeros_like(before), where=rises)
    slopes = np.pad(slopes, [(0, 0)] * (values.ndim - 1) + [(1, 1)])
    places = (np.arange(values.shape[-1] * times) - times // 2) / times + 1
    left = np.minimum(places.astype(int), values.shape[-1])
    t = places - left
    start, end = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
    leaving, arriving = t * (1 - t) ** 2, t * t * (t - 1)
    cubic = start * padded[..., left] + end * padded[..., left + 1]
    return np.asarray(cubic + leaving * slopes[..., left] + arriving * slopes[..., left + 1])


def holding_mass(on_grid: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """Return the fewest patches that hold a share of a map's sum, as in figure 1 of Caron et al. 2021 (DINO).

    Args:
        on_grid: [rows, cols], nothing below 0.
        share: Above 0, at most 1.

    Returns:
        [rows, cols]; none where the sum is 0.
    """
    numbers = np.asarray(on_grid, dtype=np.float64).ravel()
    order = np.argsort(-numbers, kind="stable")
    held_before = np.cumsum(numbers[order]) - numbers[order]
    chosen = np.zeros(numbers.shape, dtype=bool)
    chosen[order] = (held_before < share * numbers.sum()) & (numbers[order] > 0)
    return chosen.reshape(on_grid.shape)


def in_multiples(layer: LayerAttention, num_keys: int, asked: AttentionRequest | None = None) -> LayerAttention:
    """Return weights or a rollout times how many keys each row can attend to: 1 where it attends to all alike.

    Args:
        layer: [H, Q, K] or [Q, K], whose rows sum to 1.
        num_keys: Positions that can be attended to.
        asked: What was asked for: where rows were made to sum to 1 over fewer keys, only these count.

    Raises:
        ValueError: Rows of this measure do not sum to 1.
    """
    if not (layer.measure == "weights" or is_product(layer)) or (asked and asked.value_weighted):
        what = "weights times value lengths" if layer.measure == "weights" else layer.measure
        raise ValueError(f"multiples of uniform attention: {what}; expected weights or a rollout, whose rows sum to 1")
    counts = _key_counts(layer, num_keys, renormalized=bool(asked and asked.renormalize))
    return dataclasses.replace(layer, weights=np.asarray(layer.weights, dtype=np.float32) * counts[:, np.newaxis])


def _key_counts(layer: LayerAttention, num_keys: int, *, renormalized: bool) -> NDArray[np.float32]:
    """Return how many keys each query can attend to, [Q]."""
    if layer.window is not None:
        num_keys = layer.window.height * layer.window.width  # padding, too: it is attended to
    keys = np.array(layer.keys) if renormalized and layer.keys else np.arange(num_keys)
    if layer.kind != "causal":
        return np.full(len(layer.queries), len(keys), dtype=np.float32)
    return np.asarray((keys <= np.array(layer.queries)[:, np.newaxis]).sum(axis=1), dtype=np.float32)
