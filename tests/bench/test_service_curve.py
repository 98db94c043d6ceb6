"""What is read off servers under load, from batches whose times are known."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from bench.recorded import Record, record_to
from bench.service_curve import ALONE, CALIBRATED, CHECKED, Measured, Window, fit, fit_curve, fit_peak
from bench.simulation.machine import Machine
from bench.simulation.service import Simulation
from server.engine.cost import CostModel
from server.scheduling.dispatcher import Dispatcher
from server.scheduling.scheduler import Scheduler
from tests.server.fakes import CONTRACT

TOLD = CostModel(0.5, 0.5)
PARTS = ((0.5, 0.5, 0.0), (0.5, 0.5, 0.0))


def runs(cost: CostModel, lost: float, count: int = 200) -> list[Record]:
    """Batches of 10 tokens a row that take what a cost model says, and more by what the event loop does meanwhile."""
    random = np.random.default_rng(1)
    made = []
    for number in range(count):
        rows, loop_seconds = int(random.integers(1, 32)), float(random.uniform(0.0, 0.002))
        seconds = cost.seconds(rows, 10) + lost * loop_seconds
        made.append(Record(float(number), seconds, rows, 10, 2, 0.001 * rows, loop_seconds, PARTS))
    return made


def test_a_curve_goes_through_the_runs_and_tells_what_the_loop_costs() -> None:
    """Of runs of all threads; of one thread that is left in the curve."""
    cost = CostModel(0.004, 0.0001)
    curve = fit_curve(runs(cost, lost=2.0), TOLD, tells_loop=True)
    assert curve.lost == pytest.approx(2.0, rel=0.01)
    assert curve.cost.seconds(7, 10) == pytest.approx(cost.seconds(7, 10), rel=0.05)  # and the way to the instance
    assert curve.residuals is not None
    means = [ratio * curve.cost.seconds(rows, 10) for rows, ratio in zip(*_of(curve.residuals), strict=True)]
    assert np.mean(means) == pytest.approx(np.mean([run.seconds - 2.0 * run.loop_seconds for run in runs(cost, 2.0)]))
    assert fit_curve(runs(cost, lost=2.0), TOLD, tells_loop=False).lost == 0.0


def _of(residuals: object) -> tuple[Sequence[int], Sequence[float]]:
    return residuals.rows, residuals.ratios  # type: ignore[attr-defined]


def test_too_few_runs_make_no_curve() -> None:
    """What was told at warm-up is taken."""
    curve = fit_curve(runs(CostModel(0.004), 0.0, count=5), TOLD, tells_loop=True)
    assert (curve.cost, curve.residuals, curve.lost) == (TOLD, None, 0.0)


def test_how_slow_a_machine_was_is_told_by_its_peak() -> None:
    """From the peak that it makes."""
    peak = Simulation(Machine(slow=1.7), (16,), CONTRACT).closed_loop(128).per_second
    assert fit_peak(Machine(), peak, 16, CONTRACT).slow == pytest.approx(1.7, rel=0.03)


def test_batches_are_recorded_as_they_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a scheduler in simulated time: 10 ms a run, and 2 ms of the event loop to answer."""
    for kind, name in ((Scheduler, "_learn"), (Scheduler, "_finish_soon"), (Dispatcher, "_note")):
        monkeypatch.setattr(kind, name, getattr(kind, name))  # to be put back
    cost = CostModel(run_seconds=0.010)
    machine = Machine(cost, cost, None, False, 1, loop_seconds=0.004, caller_seconds=0.0, noise=0.0, loop_speed=1.0)
    simulation, file = Simulation(machine, (16,), CONTRACT), StringIO()
    loop_seconds = lambda: simulation._replicas[0].loop_seconds  # noqa: E731 -- of this one
    record_to(file, loop_seconds, lambda: simulation._clock.now)
    simulation.closed_loop(1, requests=20)
    records = [Record(**json.loads(line)) for line in file.getvalue().splitlines()]
    assert [(one.rows, one.length, one.instances) for one in records] == [(1, 16, 1)] * len(records)
    assert [one.seconds for one in records] == pytest.approx([0.010] * len(records))
    assert [one.loop_seconds for one in records] == pytest.approx([0.0] * len(records))
    assert tuple(records[0].costs[0]) == (0.010, 0.0, 0.0)


def window(load: float, p50_ms: float, per_second: float = 100.0) -> Window:
    """A hundred seconds in which callers take 0.1 ms of a CPU a request, and the event loop 0.4 ms."""
    seen = {"per_second": per_second, "p50_ms": p50_ms, "generator_cpus": 0.0001 * per_second}
    rate = 0.0 if math.isinf(load) else 10.0
    return Window(load, rate, 100.0, -1.0, 1e9, 0.0004 * per_second * 100, seen)


def test_a_machine_is_read_off_its_loads() -> None:
    """Front and callers by their CPU time, and the way by the median where nobody waits."""
    cost = CostModel(0.010)
    windows = [window(math.inf, 0.0), window(ALONE, 20.0), *(window(load, 0.0) for load in CALIBRATED)]
    (found,) = fit(Measured([[0, 1]], [windows], [runs(cost, 0.0)]), 10, CONTRACT)
    machine = found[math.inf]
    assert machine.loop_seconds == pytest.approx(0.0004)
    assert machine.caller_seconds == pytest.approx(0.0001)
    assert machine.instances == 2
    assert machine.told == (TOLD, TOLD)
    simulated = Simulation(machine, (10,), CONTRACT).open_loop(10.0, requests=500)
    assert simulated.p50_ms == pytest.approx(20.0, rel=0.1)


def test_how_slow_a_machine_was_under_a_load_is_told_by_its_runs() -> None:
    """Of a load whose runs took half as long again as the others'."""
    cost = CostModel(0.010)
    slower = replace(window(CHECKED[0], 0.0), started=1000.0, ended=2000.0)
    usual = [
        replace(one, ended=999.0) for one in (window(math.inf, 0.0), window(ALONE, 20.0), *map(_plain, CALIBRATED))
    ]
    slow = [replace(run, started=run.started + 1000.5, seconds=1.5 * run.seconds) for run in runs(cost, 0.0)]
    (found,) = fit(Measured([[0, 1]], [[*usual, slower]], [[*runs(cost, 0.0), *slow]]), 10, CONTRACT)
    assert found[CHECKED[0]].slow == pytest.approx(1.5 * found[math.inf].slow, rel=0.01)
    assert found[CALIBRATED[0]].slow == pytest.approx(found[math.inf].slow, rel=0.01)


def _plain(load: float) -> Window:
    return window(load, 0.0)
