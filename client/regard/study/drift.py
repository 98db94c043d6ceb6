"""How heads differ between two studies: of two data sets, or of two versions of a model on one."""

import csv
import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.attention import Statistic
from regard.errors import InvalidCall
from regard.study.folder import put
from regard.study.moments import Moments
from regard.study.results import Study

_LEVEL = 0.95
_SAME = ("modality", "value_weighted", "contributions", "drop_special", "cls_only", "spans", "boxes", "statistics")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """How one head's number changed.

    Attributes:
        statistic: Which number.
        layer: Which layer, from 0.
        head: Which of its heads; None where a layer has one number for all.
        before: Its mean in the first study.
        after: Its mean in the second.
        effect: The difference in standard deviations; infinite where there is a difference and no deviation.
        low: Where the effect's 95 % interval begins; NaN of an infinite effect, which has none.
        high: Where it ends; likewise.
        is_clear: Whether the interval leaves out 0 when it is widened for as many comparisons as there are; True of an
            infinite effect.
    """

    statistic: Statistic
    layer: int
    head: int | None
    before: float
    after: float
    effect: float
    low: float
    high: float
    is_clear: bool


@dataclass(frozen=True, eq=False)
class Drift:
    """How heads differ between two studies.

    Attributes:
        before: The first.
        after: The second.
        is_paired: Whether both are of the same inputs: then the differences of each input count.
        effect: Difference of the means over the pooled standard deviation, Hedges' g; [layer, head, statistic], NaN
            where there is no number. Plus or minus infinity where both are constant and differ.
        low: Where its 95 % interval begins; NaN of an infinite effect, which has none.
        high: Where it ends; likewise.
        is_clear: Whether an interval that is widened for all these comparisons (Bonferroni) leaves out 0; True of an
            infinite effect.
    """

    before: Study
    after: Study
    is_paired: bool
    effect: Floats
    low: Floats
    high: Floats
    is_clear: NDArray[np.bool_]

    def changes(self, statistic: Statistic | None = None) -> list[Change]:
        """Return each head's change, the largest effect first, whatever its sign.

        Args:
            statistic: Only of this; None for all.

        Raises:
            InvalidArgument: The studies have no such statistic.
        """
        columns = range(len(self.after.statistics)) if statistic is None else [self.after.column(statistic)]
        found = [
            self._change((at, place, column), layer, head)
            for column in columns
            for at, (layer, heads) in enumerate(self.after.layers)
            for place, head in enumerate(heads)
            if not np.isnan(self.effect[at, place, column])
        ]
        return sorted(found, key=lambda one: -abs(one.effect))

    def _change(self, where: tuple[int, int, int], layer: int, head: int | None) -> Change:
        return Change(
            statistic=self.after.statistics[where[2]],
            layer=layer,
            head=head,
            before=float(self.before.moments.mean[where]),
            after=float(self.after.moments.mean[where]),
            effect=float(self.effect[where]),
            low=float(self.low[where]),
            high=float(self.high[where]),
            is_clear=bool(self.is_clear[where]),
        )

    def write(self, path: Path | str) -> None:
        """Write drift.csv: a row a change, in their order."""
        held = io.StringIO()
        rows = csv.writer(held, lineterminator="\n")
        rows.writerow(["statistic", "layer", "head", "before", "after", "effect", "low", "high", "clear"])
        for one in self.changes():
            numbers = (one.before, one.after, one.effect, one.low, one.high)
            rows.writerow([one.statistic, one.layer, one.head, *(f"{number:.7g}" for number in numbers), one.is_clear])
        put(Path(path), held.getvalue().encode())


def compare(before: Study, after: Study) -> Drift:
    """Compare two studies, head by head.

    The effect is Hedges' g (Hedges 1981): the difference of the means over the pooled standard deviation, corrected for
    small samples. Its variance is (n1 + n2) / (n1 n2) + g^2 / (2 (n1 + n2)) (Hedges and Olkin 1985, chapter 5); of the
    same inputs, that of the mean difference over the pooled variance, and g^2 / (2 (n1 + n2)). Where neither study has
    any spread, g is 0 of equal means; of others it is infinite, without an interval, and clear.

    Args:
        before: The first study.
        after: The second, in which the same is counted.

    Raises:
        InvalidArgument: They count something else; see `check_comparable`.
    """
    check_comparable(before, after.folder.asked, after.path)
    pairs = itertools.zip_longest(before.folder.names(), after.folder.names())
    is_paired = before.num_inputs == after.num_inputs and all(one == other for one, other in pairs)
    first, second = before.moments, after.moments
    total = first.count + second.count
    freedom = np.maximum(total - 2, 1)
    pooled = np.sqrt((first.squares + second.squares) / freedom)
    correction = 1 - 3 / (4 * freedom - 1)
    apart = second.mean - first.mean
    known = (first.count > 1) & (second.count > 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(known, np.where(apart == 0, 0, apart / pooled) * correction, np.nan)
        if is_paired:
            differences = _differences(before, after)
            squared = differences.variance / differences.count / pooled**2
        else:
            squared = total / (first.count * second.count)
        error = np.sqrt(np.where(pooled > 0, squared, 0) + effect**2 / (2 * total))
    error[np.isinf(effect)] = np.nan
    comparisons = max(int(known.sum()), 1)
    width, wide = _deviations(1), _deviations(comparisons)
    is_clear = np.isinf(effect) | (known & (np.abs(effect) > wide * error))
    return Drift(before, after, is_paired, effect, effect - width * error, effect + width * error, is_clear)


def check_comparable(before: Study, asked: Mapping[str, Any], path: Path) -> None:
    """Refuse to compare what is not the same.

    Args:
        before: The first study.
        asked: What study.json of the second holds, or will hold.
        path: Of the second.

    Raises:
        InvalidArgument: Statistics, layers, heads or options differ, or one is of images and the other of texts.
    """
    first = before.folder.asked
    told = [(name, _listed(asked[name]), _listed(first[name])) for name in _SAME]
    told.append(("layers", _layers_text(asked["layers"]), _layers_text(first["layers"])))
    for name, found, expected in told:
        if found != expected:
            raise InvalidCall.of(f"{path}: {name}: {found}; expected {expected}, as {before.path} has it")


def _listed(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value).lower()


def _layers_text(layers: list[dict[str, Any]]) -> str:
    return ", ".join(f"{layer['layer']} ({len(layer['heads'])} heads)" for layer in layers)


def _differences(before: Study, after: Study) -> Moments:
    found = Moments(after.folder.shape)
    for first, second in zip(before.folder.parts(), after.folder.parts(), strict=True):
        found.add(second.astype(np.float64) - first)
    return found


def _deviations(comparisons: int) -> float:
    """How many standard errors an interval is wide on each side, for so many comparisons together."""
    return NormalDist().inv_cdf(1 - (1 - _LEVEL) / 2 / comparisons)
