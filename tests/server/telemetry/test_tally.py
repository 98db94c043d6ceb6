"""Our counters and histograms say what prometheus_client's own would."""

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from server.telemetry.tally import Counter, Histogram, observe_each

BOUNDS = (0.0, 0.001, 0.5, 1.0, 64)


def exposed(registry: CollectorRegistry) -> list[str]:
    """What is scraped, but for the times at which prometheus_client's own were made."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


def test_they_are_scraped_like_the_library_s_own() -> None:
    """Names, labels, bounds, counts and sums; with values on a bound, beyond the last, and below the first."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counter = Counter("asked", "Asked", ("model", "code"), ours)
    alone = Counter("alone", "Alone", (), ours).labels()
    histogram = Histogram("took_seconds", "Took", ("model",), ours, BOUNDS)
    their_counter = prometheus_client.Counter("asked", "Asked", ("model", "code"), registry=theirs)
    their_alone = prometheus_client.Counter("alone", "Alone", registry=theirs)
    their_histogram = prometheus_client.Histogram("took_seconds", "Took", ("model",), buckets=BOUNDS, registry=theirs)
    assert "alone_total 0.0" in exposed(ours)
    for value in (*BOUNDS, 65, 0.25, *(2.0**-power for power in range(40))):
        for model in ("a", 'with "quotes"'):
            counter.labels(model, "OK").inc()
            their_counter.labels(model, "OK").inc()
            histogram.labels(model).observe(value)
            their_histogram.labels(model).observe(value)
        alone.inc(value)
        their_alone.inc(value)
    assert exposed(ours) == exposed(theirs)


def test_histograms_that_are_observed_together_are_as_one_by_one() -> None:
    """Each with its own value, on a bound and between."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    together, alone = (Histogram("took_seconds", "Took", ("stage",), one, BOUNDS) for one in (ours, theirs))
    stages = ("decode", "queue", "compute")
    for values in ((0.0, 0.5, 65), (0.001, 0.25, 1.0)):
        observe_each([together.labels(stage) for stage in stages], values)
        for stage, value in zip(stages, values, strict=True):
            alone.labels(stage).observe(value)
    assert exposed(ours) == exposed(theirs)


def test_a_registry_knows_them_by_name() -> None:
    """So that one is scraped alone, and none is there twice."""
    registry = CollectorRegistry()
    Counter("asked", "Asked", (), registry).labels().inc(2)
    Histogram("took_seconds", "Took", (), registry, BOUNDS).labels().observe(0.25)
    restricted = registry.restricted_registry(["asked_total"])
    assert [sample.value for metric in restricted.collect() for sample in metric.samples] == [2.0]
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counter("asked", "Again", (), registry)


def test_labels_are_as_many_as_there_are() -> None:
    """A value that is missing would shift the others."""
    with pytest.raises(ValueError, match="asked: 1 label values; expected model, code"):
        Counter("asked", "Asked", ("model", "code"), CollectorRegistry()).labels("a")
