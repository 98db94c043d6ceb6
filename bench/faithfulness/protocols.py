"""Scores a ranking of an input's parts by what masking them does to the answer.

Parts (patches, tokens) are masked by rank, a few more at each step. MIF masks the most influential first, LIF the
least influential first. Where LIF has masked all but k parts, the k most influential are shown: an insertion's step.
So these two orders are all that the protocols need:

- srg: area under the label's logit by LIF, less that by MIF, over the share that is masked. Bluecher, Vielhaben and
  Strodthoff 2024, "Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks": symmetric
  relevance gain.
- deletion, insertion: area under the label's probability by MIF, and by insertion. Petsiuk, Das and Saenko 2018,
  "RISE", section 4.2; here what is not shown is masked in both.
- aopc: mean over the steps of how far the probability fell by MIF, a part a step; between the steps that were asked for
  it is read off straight lines. Samek et al. 2017, "Evaluating the Visualization of What a Deep Neural Network Has
  Learned", equation 12.
- positive, negative: area under the share of right answers by MIF, and by LIF, from 10 % to 90 % masked, over that
  width. Chefer, Gur and Wolf 2021, "Transformer Interpretability Beyond Attention Visualization", section 4.
- comprehensiveness, sufficiency: how far the probability falls without the first 1, 5, 10, 20 and 50 % of the parts,
  and with them alone; means. DeYoung et al. 2020, "ERASER", section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Keeps = NDArray[np.bool_]

ERASER_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
_PERTURBED = np.linspace(0.1, 0.9, 17)
HIGHER_IS_BETTER = {
    "srg": True,
    "deletion": False,
    "insertion": True,
    "aopc": True,
    "positive": False,
    "negative": True,
    "comprehensiveness": True,
    "sufficiency": False,
}
"""By score: whether a larger number is better."""


@dataclass(frozen=True, eq=False)
class Flipped:
    """What a network says of an input while it is masked part by part.

    Attributes:
        counts: How many parts are masked at each step, from 0 to all, int [S].
        logits: Of the label, by MIF and LIF, [2, S].
        probabilities: Likewise.
        right: Whether the answer is right, likewise; 1 or 0.
    """

    counts: Sequence[int]
    logits: Floats
    probabilities: Floats
    right: Floats


def step_counts(parts: int, steps: int) -> list[int]:
    """How many parts are masked at each step: as many steps, and those that ERASER asks for.

    Args:
        parts: How many there are.
        steps: About how many steps.
    """
    evenly = {round(parts * step / steps) for step in range(steps + 1)}
    asked = {_first(parts, share) for share in ERASER_SHARES}
    return sorted(evenly | asked | {parts - count for count in asked})


def rank(values: NDArray[np.floating], seed: int) -> NDArray[np.intp]:
    """The parts from the largest value down; equal ones in an order that the seed draws."""
    drawn = np.random.default_rng(seed).permutation(len(values))
    return drawn[np.argsort(-values[drawn], kind="stable")]


def masks(order: NDArray[np.intp], counts: Sequence[int]) -> Keeps:
    """Which parts are kept at each step by MIF, then by LIF, bool [2, S, parts]."""
    place = np.empty(len(order), dtype=int)
    place[order] = np.arange(len(order))
    removed = np.array(counts)[:, None]
    return np.stack([place >= removed, place < len(order) - removed])


def score(flipped: Flipped) -> dict[str, float]:
    """All scores of one input."""
    counts = np.array(flipped.counts)
    parts = int(counts[-1])
    shares = counts / parts
    logits, probabilities, right = flipped.logits, flipped.probabilities, flipped.right
    mif, lif = probabilities
    whole = mif[0]
    first = [_first(parts, share) for share in ERASER_SHARES]
    without = np.mean([mif[flipped.counts.index(count)] for count in first])
    alone = np.mean([lif[flipped.counts.index(parts - count)] for count in first])
    width = _PERTURBED[-1] - _PERTURBED[0]
    positive, negative = (float(area(_PERTURBED, np.interp(_PERTURBED, shares, one)) / width) for one in right)
    return {
        "srg": area(shares, logits[1]) - area(shares, logits[0]),
        "deletion": area(shares, mif),
        "insertion": area(shares, lif),
        "aopc": float(np.interp(np.arange(parts + 1), counts, whole - mif).mean()),
        "positive": positive,
        "negative": negative,
        "comprehensiveness": float(whole - without),
        "sufficiency": float(whole - alone),
    }


def area(places: Floats, heights: Floats) -> float:
    """The area under straight lines between points, by the trapezoidal rule."""
    return float(np.sum(np.diff(places) * (heights[1:] + heights[:-1]) / 2))


def localise(values: NDArray[np.floating], inside: NDArray[np.floating]) -> dict[str, float]:
    """How well a map finds an object.

    The pointing game of Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", section 5.1: whether the
    largest value lies on it. The mass inside: which share of all values above 0 does, as in Fong and Vedaldi 2017.

    Args:
        values: Of each part.
        inside: Which share of each part belongs to the object, in [0, 1].
    """
    above = np.maximum(values, 0).astype(float)
    total = above.sum()
    return {
        "pointing": float(inside[int(np.argmax(values))] >= 0.5),
        "mass_inside": float((above * inside).sum() / total) if total else 0.0,
    }


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Spearman's: the correlation of ranks, equal values sharing theirs; 0 where one has no order."""
    ranks = [_ranks(values) for values in (one, other)]
    if any(np.ptp(values) == 0 for values in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: NDArray[np.floating]) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[place]
    return ranks


def _first(parts: int, share: float) -> int:
    return int(np.ceil(parts * share))
