"""Counters and histograms of the event loop, in the form that prometheus_client's registry collects.

Its own take a lock at every count, and a request counts forty times (docs/decisions.md, Scheduling). These are counted
in one thread alone, and read in another when they are scraped.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily


class Count:
    """One value of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self.value += amount


class Distribution:
    """One histogram: how many values lie at or below each bound and above the one before, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def observe_each(distributions: Sequence[Distribution], values: Sequence[float]) -> None:
    """Add a value to each of several histograms with the same bounds."""
    bounds = distributions[0].bounds
    for distribution, value in zip(distributions, values, strict=True):
        distribution.counts[bisect_left(bounds, value)] += 1
        distribution.sum += value


Child = TypeVar("Child", Count, Distribution)


class _Children(dict[tuple[str, ...], Child]):
    """A child for each combination of label values, made when it comes first."""

    def __init__(self, make: Callable[[tuple[str, ...]], Child]) -> None:
        super().__init__()
        self._make: Callable[[tuple[str, ...]], Child] = make

    def __missing__(self, values: tuple[str, ...]) -> Child:
        self[values] = child = self._make(values)
        return child


class _Labelled(Generic[Child]):
    """A metric with labels; `of[values]` is its child of some label values, `labels` the same in other words."""

    def __init__(self, name: str, what: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._what, self._labels = name, what, labels
        self.of: _Children[Child] = _Children(self._begin)
        registry.register(self)

    def labels(self, *values: str) -> Child:
        """Return the child of some label values."""
        return self.of[values]

    def _begin(self, values: tuple[str, ...]) -> Child:
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name}: {len(values)} label values; expected {', '.join(self._labels)}")
        return self._make()

    def _make(self) -> Child:
        raise NotImplementedError

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it stands, for a registry."""
        raise NotImplementedError

    def describe(self) -> Iterator[Metric]:
        """Say of what name and kind it is."""
        return self.collect()


class Counter(_Labelled[Count]):
    """A counter."""

    def _make(self) -> Count:
        return Count()

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it stands, for a registry."""
        family = CounterMetricFamily(self._name, self._what, labels=self._labels)
        for values, child in list(self.of.items()):
            family.add_metric(values, child.value)
        yield family


class Histogram(_Labelled[Distribution]):
    """A histogram; its bounds ascend."""

    def __init__(
        self, name: str, what: str, labels: Sequence[str], registry: CollectorRegistry, bounds: Sequence[float]
    ) -> None:
        self._bounds = bounds
        self._names = [*(str(float(bound)) for bound in bounds), "+Inf"]
        super().__init__(name, what, labels, registry)

    def _make(self) -> Distribution:
        return Distribution(self._bounds)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it stands, for a registry."""
        family = HistogramMetricFamily(self._name, self._what, labels=self._labels)
        for values, child in list(self.of.items()):
            family.add_metric(values, list(zip(self._names, accumulate(child.counts), strict=True)), child.sum)
        yield family
