"""What a replica that was measured can do, by simulation: how many of them for a load, and how soon more are there."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from artifact.contract import Contract
from bench.service_curve import CALLERS
from bench.simulation.autoscaler import Autoscaler
from bench.simulation.machine import Machine
from bench.simulation.service import Simulation, least_requests, round_robin

_SHARES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)  # of the peak
_REQUESTS = 8000  # of a simulation
_P99_TARGETS_MS = (25, 50, 100, 250)
_LOADS = (1_000, 10_000, 100_000)  # requests a second
_SEVERAL = 4  # replicas
_SEVERAL_LOADS = (0.5, 0.7, 0.9)
_START_SECONDS = (10, 60)
_CALM, _BURST = 0.5, 1.5  # of a replica's peak, before and after
_CALM_SECONDS, _BURST_SECONDS = 20.0, 220.0
_OFFERED_SECONDS = 10.0  # the server's default

Lines = Iterator[str]


def with_callers_elsewhere(machines: Sequence[Machine]) -> Machine:
    """Return the machine of the middle of the rounds, as callers on other machines meet it."""
    middle = sorted(machines, key=lambda machine: machine.slow)[len(machines) // 2]
    return replace(middle, caller_seconds=0.0)


class Capacity:
    """One replica in numbers.

    Attributes:
        peak: Most requests a second.
        p99_seconds: By requests a second.
    """

    def __init__(self, machine: Machine, length: int, contract: Contract) -> None:
        """Simulate it under rising loads."""
        self._machine, self._lengths, self._contract = machine, (length,), contract
        self.peak = self._simulate().closed_loop(CALLERS, _REQUESTS).per_second
        rates = [share * self.peak for share in _SHARES]
        self.p99_seconds = {rate: self._simulate().open_loop(rate, _REQUESTS).p99_ms / 1e3 for rate in rates}

    def tell(self) -> Lines:
        """Yield tables, in Markdown."""
        yield from self._replicas()
        yield ""
        yield from self._choices()
        yield ""
        yield from self._bursts()

    def _simulate(self, **how: object) -> Simulation:
        return Simulation(self._machine, self._lengths, self._contract, **how)  # type: ignore[arg-type]

    def _replicas(self) -> Lines:
        columns = " | ".join(f"replicas for {load:,} a second" for load in _LOADS)
        yield f"| 99 in 100 within | requests a second of one replica | {columns} |"
        yield f"|---|---|{'---|' * len(_LOADS)}"
        for target_ms in _P99_TARGETS_MS:
            rate = rate_within(self.p99_seconds, target_ms / 1e3)
            counts = [f"{replicas_for(load, rate):,}" if rate else "no number" for load in _LOADS]
            yield f"| {target_ms} ms | {rate:.0f} | {' | '.join(counts)} |"

    def _choices(self) -> Lines:
        yield f"| {_SEVERAL} replicas, load of each | p50, p99 ms in turn | the less busy of two at random |"
        yield "|---|---|---|"
        for load in _SEVERAL_LOADS:
            cells = []
            for choose in (round_robin, least_requests):
                simulation = self._simulate(replicas=_SEVERAL, choose=choose)
                figures = simulation.open_loop(load * self.peak * _SEVERAL, _REQUESTS)
                cells.append(f"{figures.p50_ms:.0f}, {figures.p99_ms:.0f}")
            yield f"| {load:.0%} | {' | '.join(cells)} |"

    def _bursts(self) -> Lines:
        yield "| a replica starts in | replicas in the end | longest queue, s | under 0.5 s again after | refused |"
        yield "|---|---|---|---|---|"
        for start_seconds in _START_SECONDS:
            autoscaler = Autoscaler(float(start_seconds))
            simulation = self._simulate(autoscaler=autoscaler, offered_seconds=_OFFERED_SECONDS, choose=least_requests)
            figures = simulation.open_loop_at(burst(_CALM * self.peak, _BURST * self.peak))
            late = [moment for moment in simulation.moments if moment.queue_seconds > autoscaler.target_seconds]
            longest = max(moment.queue_seconds for moment in simulation.moments)
            seconds = f"{late[-1].at + autoscaler.sync_seconds - _CALM_SECONDS:.0f} s" if late else "at once"
            cells = f"{simulation.moments[-1].replicas} | {longest:.1f} | {seconds} | {figures.refused:.0%}"
            yield f"| {start_seconds} s | {cells} |"


def burst(calm: float, rate: float, seed: int = 1) -> list[float]:
    """Say when requests come, in seconds, whose rate goes up at once."""
    random, times = np.random.default_rng(seed), list[float]()
    for begins, seconds, per_second in ((0.0, _CALM_SECONDS, calm), (_CALM_SECONDS, _BURST_SECONDS, rate)):
        count = random.poisson(seconds * per_second)
        times += sorted((begins + random.uniform(0.0, seconds, count)).tolist())
    return times


def rate_within(p99_seconds: dict[float, float], within_seconds: float) -> float:
    """Read off at which rate 99 in 100 are answered in time: between two rates by a straight line.

    Returns:
        The rate; 0 where the lowest is too slow, and the highest where that is fast enough.
    """
    rates = sorted(p99_seconds)
    if within_seconds < p99_seconds[rates[0]]:
        return 0.0
    for slower, faster in itertools.pairwise(rates):
        low, high = p99_seconds[slower], p99_seconds[faster]
        if within_seconds < high:
            return slower + (faster - slower) * (within_seconds - low) / (high - low)
    return rates[-1]


def replicas_for(load: float, rate: float) -> int:
    """Say how many replicas a load needs, with one more for the one that is being replaced."""
    return math.ceil(load / rate) + 1


def gpus(devices: int, rows_per_second: float, calls_per_second: float, share: float) -> Lines:
    """Yield a table of what so many GPUs would serve.

    Args:
        devices: How many, each with a server of its own.
        rows_per_second: Of one, which nobody has measured.
        calls_per_second: That the front of one server takes.
        share: Of its peak that a replica is used to.
    """
    yield "| rows of a call | what is full first | rows a second of one GPU's server | rows a second of all |"
    yield "|---|---|---|---|"
    for rows in (1, 8, 64):
        front = calls_per_second * rows
        full = "the front" if front < rows_per_second else "the GPU"
        own = min(front, rows_per_second) * share
        yield f"| {rows} | {full} | {own:,.0f} | {own * devices:,.0f} |"
