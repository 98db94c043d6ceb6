"""The tables of a run, in Markdown, and its figures for JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.faithfulness.intervals import Interval, differences, intervals
from bench.faithfulness.measures import DEFAULT, RANDOM
from bench.faithfulness.protocols import HIGHER_IS_BETTER

RANDOMISED = "randomised"
_PUBLISHED = {"GenAtt": 6.68, "AttnLRP": 6.38, "Libra FullGrad+": 5.77, "random": 0.01}
PUBLISHED = "Published SRG of DINOv2-S on ImageNet (ResLRP preprint, table A.4): " + ", ".join(
    f"{name} {number}" for name, number in _PUBLISHED.items()
)
_TITLES = {
    "srg": "SRG ↑",
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
    "aopc": "AOPC ↑",
    "positive": "positive ↓",
    "negative": "negative ↑",
    "comprehensiveness": "comprehensiveness ↑",
    "sufficiency": "sufficiency ↓",
    "pointing": "pointing game ↑",
    "mass_inside": "mass inside ↑",
    RANDOMISED: "randomised, to 0",
}
_TABLES = (
    ("deletion", "insertion", "aopc"),
    ("positive", "negative"),
    ("comprehensiveness", "sufficiency"),
    ("pointing", "mass_inside", RANDOMISED),
)
_SHOWN_BEST = 3


@dataclass(frozen=True, eq=False)
class Figures:
    """What was measured on the inputs of one model.

    Attributes:
        model: Its name.
        inputs: How many, and what.
        filling: How parts were masked.
        measures: Their names.
        scores: By protocol: float64 [measure, input].
        cascade: Rank correlations by depth of the cascading randomisation, likewise; empty where it was not asked for.
    """

    model: str
    inputs: str
    filling: str
    measures: Sequence[str]
    scores: Mapping[str, NDArray[np.float64]]
    cascade: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def found(self) -> dict[str, dict[str, Interval]]:
        """By protocol and measure: the mean over the inputs, with its interval."""
        return {
            protocol: dict(zip(self.measures, intervals(scores), strict=True))
            for protocol, scores in self.scores.items()
        }

    def cascaded(self) -> dict[str, dict[str, Interval]]:
        """By depth and measure: the mean rank correlation with the map of the whole network, with its interval."""
        return {depth: dict(zip(self.measures, intervals(one), strict=True)) for depth, one in self.cascade.items()}

    def less(self, protocol: str) -> dict[str, Interval]:
        """By measure: its score less the default's, input by input."""
        less = differences(self.scores[protocol], self.measures.index(DEFAULT))
        return dict(zip(self.measures, less, strict=True))

    def to_json(self) -> dict[str, object]:
        """All of it but single inputs."""
        found, deeper = self.found(), self.cascaded()
        return {
            "model": self.model,
            "inputs": self.inputs,
            "masked": self.filling,
            "scores": _as_dicts(found),
            f"less_that_of_{DEFAULT}": _as_dicts({protocol: self.less(protocol) for protocol in found}),
            **({"cascade": _as_dicts(deeper)} if deeper else {}),
        }


def _as_dicts(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, dict[str, float]]]:
    """Intervals as JSON has them."""
    return {outer: {name: asdict(interval) for name, interval in by.items()} for outer, by in found.items()}


def tables(figures: Figures) -> Iterator[str]:
    """The lines of the tables: by SRG, then by the others in the same order; then who is best by what."""
    found = figures.found()
    less = figures.less("srg")
    order = sorted(figures.measures, key=lambda name: -found["srg"][name].mean)
    yield f"\n**{figures.model}: {figures.inputs}, {figures.filling}**\n"
    yield f"| measure | {_TITLES['srg']} | less that of {DEFAULT}, paired |"
    yield "|---|---|---|"
    for name in order:
        yield f"| {name} | {_shown(found['srg'][name])} | {'' if name == DEFAULT else _shown(less[name])} |"
    for protocols in _TABLES:
        if columns := [one for one in protocols if one in found]:
            yield f"\n| measure | {' | '.join(_TITLES[one] for one in columns)} |"
            yield "|---|" + "---|" * len(columns)
            for name in order:
                if not all(np.isnan(found[one][name].mean) for one in columns):
                    yield f"| {name} | {' | '.join(_shown(found[one][name]) for one in columns)} |"
    if deeper := figures.cascaded():
        inputs = next(iter(figures.cascade.values())).shape[1]
        yield f"\nWeights shuffled from the top down to: rank correlation with the map before, {inputs:,} inputs\n"
        yield f"| measure | {' | '.join(deeper)} |"
        yield "|---|" + "---|" * len(deeper)
        for name in order:
            yield f"| {name} | {' | '.join(f'{by[name].mean:.2f}' for by in deeper.values())} |"
    yield "\n| by | the best three |\n|---|---|"
    for protocol, higher in HIGHER_IS_BETTER.items():
        best = sorted(figures.measures, key=lambda name: found[protocol][name].mean, reverse=higher)
        yield f"| {_TITLES[protocol]} | {', then '.join(best[:_SHOWN_BEST])} |"
    yield "\n" + verdict(figures)


def verdict(figures: Figures) -> str:
    """Say over which measures the default's SRG is: input by input, and with intervals that do not meet."""
    found, less = figures.found()["srg"], figures.less("srg")
    others = [name for name in figures.measures if name not in (DEFAULT, RANDOM)]
    below = [name for name in others if less[name].high < 0]
    rest = [name for name in others if name not in below]
    apart = sum(found[name].high < found[DEFAULT].low for name in others)
    said = f"SRG of {DEFAULT} is above that of {len(below)} of {len(others)} measures, paired"
    said += f" (not of {', '.join(rest)})" if rest else ""
    return f"{said}; of {apart} with intervals apart."


def _shown(interval: Interval) -> str:
    if np.isnan(interval.mean):
        return ""
    return f"{interval.mean:.2f} ({interval.low:.2f} to {interval.high:.2f})"
