"""How busy a server is, as means over two seconds."""

import pytest

from server.telemetry.load import Load, LoadMeter
from server.telemetry.metrics import Metrics
from tests.server.fakes import Clock


class Engine:
    """What the scheduler would say, to be set by a test."""

    queue_seconds, running_seconds, instances = 0.0, 0.0, 2


def make(clock: Clock) -> tuple[Engine, Metrics, LoadMeter]:
    """A meter of an engine that does nothing, at second 0."""
    engine, metrics = Engine(), Metrics()
    says = (lambda: engine.queue_seconds), (lambda: engine.running_seconds), (lambda: engine.instances)
    return engine, metrics, LoadMeter(metrics, *says, clock)


def test_runs_count_while_they_run_and_when_they_have_ended() -> None:
    """One of two instances is busy for a second: half of it in a run that goes on."""
    clock = Clock()
    engine, metrics, meter = make(clock)
    metrics.engine_seconds.of["m", "plain"].value = 0.5
    engine.running_seconds = 0.5
    clock.now += 1.0
    assert meter.read() == Load(utilization=0.5)
    metrics.engine_seconds.of["m", "plain"].value = 1.0  # it has ended
    engine.running_seconds = 0.0
    clock.now += 1.0
    assert meter.read() == Load(utilization=0.25)


def test_what_waits_is_added_to_what_is_busy() -> None:
    """So that of two servers that are always busy, the one with the longer queue says more."""
    clock = Clock()
    engine, _, meter = make(clock)
    engine.queue_seconds, engine.running_seconds = 3.0, 2.0
    clock.now += 1.0
    load = meter.read()
    assert (load.queue_seconds, load.utilization) == (1.5, 1.0 + 1.5)  # nothing waited at the first look


def test_answers_and_faults_are_told_apart_from_refusals() -> None:
    """A server that refuses at once must not look like one that does much."""
    clock = Clock()
    _, metrics, meter = make(clock)
    for code, count in {"OK": 8, "INTERNAL": 2, "UNAVAILABLE": 2, "RESOURCE_EXHAUSTED": 99, "NOT_FOUND": 99}.items():
        metrics.requests.of["Embed", "m", code].value = count
    clock.now += 2.0
    assert meter.read() == Load(answers_per_second=4.0, faults_per_second=2.0)


def test_it_looks_ten_times_a_second_and_forgets_after_two() -> None:
    """Between two looks it says the same; what was three seconds ago does not count."""
    clock = Clock()
    engine, metrics, meter = make(clock)
    metrics.requests.of["Embed", "m", "OK"].value = 60
    engine.queue_seconds = 1.0
    clock.now += 0.125
    first = meter.read()
    engine.queue_seconds = 0.0
    clock.now += 0.0625
    assert meter.read() is first
    for _ in range(24):
        clock.now += 0.125
        assert meter.read() is not first
    assert meter.read() == Load()


def test_who_asks_every_three_seconds_has_means_since_the_last_time() -> None:
    """As Ray's autoscaler does: what was busy before that does not count."""
    clock = Clock()
    engine, metrics, meter = make(clock)
    for _ in range(5):
        clock.now += 3.0
        metrics.engine_seconds.of["m", "plain"].value += 6.0
        engine.queue_seconds = 4.0
        assert meter.read().utilization > 1.0
    engine.queue_seconds = 0.0
    clock.now += 3.0
    assert meter.read() == Load(queue_seconds=2.0, utilization=2.0)
    clock.now += 3.0
    assert meter.read() == Load()


@pytest.mark.parametrize("instances", [0, 1])
def test_a_server_without_devices_says_something(instances: int) -> None:
    """The last has failed, and the server is about to end."""
    clock = Clock()
    engine, _, meter = make(clock)
    engine.instances, engine.running_seconds = instances, 0.5
    clock.now += 1.0
    assert meter.read().utilization == 0.5
