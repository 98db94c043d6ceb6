"""What a replica's runs and its front take, read off servers that answer under load: the machine of a simulation.

Nothing is timed apart. A run beside another run, or beside the event loop at work, takes longer than one alone, so the
curve is drawn through the runs of loads like those that are to be foretold.
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from artifact.contract import Contract
from bench.load import arrivals
from bench.programs import run
from bench.recorded import Record, read_records
from bench.servers import Serving, loop_cpu_seconds, serving_regard
from bench.simulation.machine import Machine, Residuals
from bench.simulation.service import Figures, Simulation
from server.engine.cost import CostModel, Sample, fit_costs

CALLERS = 128  # of each replica, that make the peak
ALONE = 0.1  # of the peak: next to nobody waits
CALIBRATED = (0.3, 0.6, 0.8, 0.95)  # of the peak: what runs take
CHECKED = (0.5, 0.7, 0.9)  # of the peak: what is foretold
_CHECK_TIMES = 2.0  # as long as the others
_PEAK_STEPS = 4
_MAX_LOST = 5.0  # seconds of a run, for each of the event loop's CPU time
_MIN_PACE = 0.1
_MANY_ROWS = 4  # of a batch, whose answers tell how long each takes
_MIN_RUNS = 20  # that make a curve


@dataclass(frozen=True)
class Window:
    """One load, while it was there.

    Attributes:
        load: As a share of the peak; infinity where callers ask again at once.
        rate: Requests a second; 0 likewise.
        seconds: For how long requests came.
        started: On time.monotonic(), in seconds.
        ended: Likewise.
        loop_seconds: CPU time of all event loops.
        seen: See Tally.report.
    """

    load: float
    rate: float
    seconds: float
    started: float
    ended: float
    loop_seconds: float
    seen: dict[str, Any]

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return float(self.seen["per_second"])

    @property
    def answers(self) -> float:
        """All of them."""
        return self.per_second * self.seconds


@dataclass(frozen=True)
class Measured:
    """Equal replicas on cores of their own, under several loads.

    Attributes:
        cores: Of each replica.
        rounds: Of each the windows: the peak first.
        records: Of each replica.
    """

    cores: Sequence[Sequence[int]]
    rounds: Sequence[Sequence[Window]]
    records: Sequence[Sequence[Record]]


@dataclass(frozen=True)
class Curve:
    """What runs of one kind take.

    Attributes:
        cost: Of one, without what is lost.
        residuals: How many times longer each took.
        lost: Seconds of it that each second of the event loop's CPU time costs, with what the callers do meanwhile.
    """

    cost: CostModel
    residuals: Residuals | None = None
    lost: float = 0.0

    def seconds(self, run: Record) -> float:
        """What a run of so many rows takes in the mean, beside as much work of the event loop."""
        mean = statistics.mean(self.residuals.ratios) if self.residuals else 1.0
        return self.cost.seconds(run.rows, run.length) * mean + self.lost * run.loop_seconds


@dataclass(frozen=True)
class Curves:
    """What runs of one thread and of all threads take."""

    one_thread: Curve
    all_threads: Curve

    def slowness(self, runs: Sequence[Record]) -> float:
        """How many times longer than by the curves some runs took, all in all; 1 where there are none."""
        expected = sum((self.one_thread if run.instances == 1 else self.all_threads).seconds(run) for run in runs)
        return sum(run.seconds for run in runs) / expected if runs else 1.0


def measure(models: Path, cores: Sequence[Sequence[int]], rounds: int, seconds: float, tokens: int) -> Measured:
    """Start a replica on each set of cores, and ask all of them in turn, at shares of the peak of each round."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.jsonl") for number in range(len(cores))]
        with _serving(models, cores, files) as replicas:
            seen = [list(_measure_round(replicas, seconds, tokens)) for _ in range(rounds)]
        return Measured(cores, seen, [read_records(file) for file in files])


@contextmanager
def _serving(models: Path, cores: Sequence[Sequence[int]], files: Sequence[Path]) -> Iterator[list[Serving]]:
    with ExitStack() as stack:
        replicas = []
        for file, own in zip(files, cores, strict=True):
            program = ("bench.recorded", str(file), ",".join(map(str, own)))
            serving = serving_regard(models, "--max-queue-seconds", "60", program=program)
            replicas.append(stack.enter_context(serving))
        yield replicas


def _measure_round(replicas: Sequence[Serving], seconds: float, tokens: int) -> Iterator[Window]:
    """Yield the peak, then what is most sensitive to it first."""
    peak = _ask(replicas, np.inf, {"callers": CALLERS * len(replicas)}, seconds, tokens)
    yield peak
    for load in sorted({ALONE, *CALIBRATED, *CHECKED}, reverse=True):
        times = _CHECK_TIMES if load in CHECKED else 1.0
        yield _ask(replicas, load, {"rate": load * peak.per_second}, seconds * times, tokens)


def _ask(replicas: Sequence[Serving], load: float, how: dict[str, float], seconds: float, tokens: int) -> Window:
    addresses = ",".join(serving.address for serving in replicas)
    started, before = time.monotonic(), sum(loop_cpu_seconds(serving.pid) for serving in replicas)
    seen = json.loads(run("bench.load", addresses, {**how, "seconds": seconds, "size": tokens}))
    used = sum(loop_cpu_seconds(serving.pid) for serving in replicas) - before
    return Window(load, how.get("rate", 0.0), seconds, started, time.monotonic(), used, seen)


def fit(measured: Measured, length: int, contract: Contract) -> list[dict[float, Machine]]:
    """Make the machine of one replica, for each round and load: they differ in how slow it was, and in the way.

    A machine that is shared changes its speed within seconds, and at nine tenths of the peak a twentieth more makes
    half as much latency again. So of each load it is told how slow the machine was then, by what its runs took beside
    those of the peak; nothing of what callers saw of that load is used.
    """
    calibrated = [one for one in itertools.chain(*measured.rounds) if one.load not in CHECKED]
    records = [_within(own, calibrated) for own in measured.records]
    asked = [window for window in calibrated if window.load in CALIBRATED]
    loop_seconds = sum(one.loop_seconds for one in asked) / sum(one.answers for one in asked)
    caller_seconds = statistics.median(one.seen["generator_cpus"] / one.per_second for one in asked)
    speed = _loop_speed(list(itertools.chain(*records)), loop_seconds)
    loop_share = speed * loop_seconds / (loop_seconds + caller_seconds)
    told = [CostModel(*parts) for parts in records[0][-1].costs]
    curves = fit_curves(list(itertools.chain(*records)), told)
    machine = replace(
        make_machine(curves, told, len(measured.cores[0]), loop_share),
        loop_seconds=loop_seconds,
        loop_speed=speed,
        caller_seconds=caller_seconds,
    )
    machines = []
    for windows in measured.rounds:
        slowness = {one.load: _slowness(curves, measured, one) for one in windows}
        peak = windows[0]
        fitted = fit_peak(machine, peak.per_second / len(records), length, contract)
        found = {
            load: replace(fitted, slow=fitted.slow * slow / slowness[peak.load]) for load, slow in slowness.items()
        }
        alone = next(window for window in windows if window.load == ALONE)
        p50_ms = simulate(found[ALONE], alone, len(records), length, contract).p50_ms
        way_seconds = max(alone.seen["p50_ms"] - p50_ms, 0.0) / 1e3
        machines.append({load: replace(one, way_seconds=way_seconds) for load, one in found.items()})
    return machines


def _slowness(curves: Curves, measured: Measured, window: Window) -> float:
    return curves.slowness([run for own in measured.records for run in _within(own, [window])])


def fit_curves(runs: Sequence[Record], told: Sequence[CostModel]) -> Curves:
    """Draw the curves of runs of one thread and of all threads through what was recorded.

    Args:
        runs: Of all replicas.
        told: At warm-up, of both kinds.
    """
    one = fit_curve([run for run in runs if run.instances == 1], told[0], tells_loop=False)
    return Curves(one, fit_curve([run for run in runs if run.instances > 1], told[1], tells_loop=True))


def make_machine(curves: Curves, told: Sequence[CostModel], instances: int, loop_share: float) -> Machine:
    """Make a machine of its curves.

    Args:
        curves: Of its runs.
        told: At warm-up, of both kinds.
        instances: Of each replica.
        loop_share: CPU seconds of the event loop, of each second in which it or the callers are at work.
    """
    one, every = curves.one_thread, curves.all_threads
    return Machine(
        cost=one.cost,
        all_threads_cost=every.cost,
        told=(told[0], told[1]),
        all_threads=told[0] != told[1],
        instances=instances,
        crowding=1.0,
        beside=1.0,
        hindered=max(1 - every.lost * loop_share, _MIN_PACE),
        residuals=(one.residuals, every.residuals),
    )


def fit_peak(machine: Machine, peak: float, length: int, contract: Contract) -> Machine:
    """Say how slow the machine was, by the peak of one replica."""
    for _ in range(_PEAK_STEPS):
        simulated = Simulation(machine, (length,), contract).closed_loop(CALLERS).per_second
        machine = replace(machine, slow=machine.slow * simulated / peak)
    return machine


def simulate(machine: Machine, window: Window, replicas: int, length: int, contract: Contract) -> Figures:
    """Let the very requests of a window come to simulated replicas."""
    simulation = Simulation(machine, (length,), contract, replicas=replicas)
    return simulation.open_loop_at(list(arrivals(window.rate, window.seconds)))


def _within(records: Sequence[Record], windows: Sequence[Window]) -> list[Record]:
    inside = [run for run in records if any(one.started < run.started < one.ended for one in windows)]
    return sorted(inside, key=lambda run: run.started)


def fit_curve(runs: Sequence[Record], told: CostModel, *, tells_loop: bool) -> Curve:
    """Draw the curve of runs of one kind, by least squares of relative errors.

    Args:
        runs: All of them.
        told: What is taken where there are too few.
        tells_loop: Whether what they lose to the event loop is told apart. Of runs of one thread it cannot be, nor what
            they lose to each other: under load there are nearly always both, and the curve has them in it.
    """
    if len(runs) < _MIN_RUNS:
        return Curve(told)
    seconds, loop_seconds = np.array([run.seconds for run in runs]), np.array([run.loop_seconds for run in runs])
    columns = np.array([(1.0, run.rows * run.length, run.loop_seconds) for run in runs]) / seconds[:, None]
    found = np.linalg.lstsq(columns, np.ones_like(seconds))[0]
    lost = float(np.clip(found[2], 0.0, _MAX_LOST)) if tells_loop else 0.0
    alone = np.maximum(seconds - lost * loop_seconds, seconds * _MIN_PACE).tolist()
    pairs = list(zip(runs, alone, strict=True))
    cost = fit_costs([Sample(run.rows, run.length, left) for run, left in pairs])
    ratios = sorted((run.rows, left / cost.seconds(run.rows, run.length)) for run, left in pairs)
    return Curve(cost, Residuals(tuple(rows for rows, _ in ratios), tuple(ratio for _, ratio in ratios)), lost)


def _loop_speed(records: Sequence[Record], loop_seconds: float) -> float:
    """How fast the event loop answers batches, as a share of its pace by CPU time."""
    speeds = [run.rows * loop_seconds / 2 / run.answered_seconds for run in records if run.rows >= _MANY_ROWS]
    return float(np.clip(statistics.median(speeds), 0.2, 1.0)) if speeds else 1.0
