"""How many replicas a load needs: `python -m bench.sizing` measures one, simulates it, and shows how far both agree.

Measured are the service-time curve (seconds of a run by its rows, under more and more load: a CPU that just woke and
CPUs that are all at work are slower than one that computes alone), the event loop's part, and what a caller waits
beyond both. The simulation drives the server's own queue with a line through that curve: Poisson
arrivals, one event loop that decodes and encodes one request after the other, instances that run batches. One number
is fitted: how much steeper the line is, so that the simulated peak is the measured one. What is compared then are
latencies at loads below it.

Machines that are shared change their speed from minute to minute: a round measures the curve and then every load as a
share of its own peak, and medians over the rounds are told.
"""

import argparse
import dataclasses
import heapq
import itertools
import json
import math
import os
import re
import statistics
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artifact.contract import CONTRACT_FILE, Contract, read_contract
from bench.__main__ import CPUS
from bench.programs import run
from bench.servers import Serving, only, serving_regard
from server.context import RpcContext
from server.engine.cost import CostModel
from server.scheduling.batch import BatchItem, BatchLimits
from server.scheduling.fair_queue import FairQueue

_CALLERS = 128  # that make the peak
_CURVE = (0.05, 0.2, 0.4, 0.6, 0.8)  # of the peak; the peak itself is the last point
_CURVE_SHARE = 0.5  # of the seconds of a load, for each of these
_LOADS = (0.3, 0.5, 0.7, 0.85)
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_LIMITS = BatchLimits(rows=32, tokens=8192, attention_bytes=2**30)  # the server's defaults
_REQUESTS = 20_000  # of a simulation
_P99_TARGETS_MS = (25, 50, 100, 250)
_MARKS = ("<!-- bench.sizing begins -->", "<!-- bench.sizing ends -->")


@dataclass(frozen=True)
class Replica:
    """What a simulation knows of one server.

    Attributes:
        cost: Of a run, with everything at work.
        loop_seconds: Of the event loop, for one request: decoding, answering, gRPC.
        way_seconds: What a caller waits beyond the run and the loop where next to nobody else asks.
        instances: Runs at a time.
        length: Tokens of a request.
        contract: The model's.
    """

    cost: CostModel
    loop_seconds: float
    way_seconds: float
    instances: int
    length: int
    contract: Contract


class Point(NamedTuple):
    """What callers saw, and the server, at one load: medians over the rounds."""

    rows: float  # of a batch
    run_seconds: float
    loop_seconds: float  # of a request
    latency_seconds: float  # the median
    per_second: float


class _Graph:
    """Stands for a graph in the queue."""

    can_use_all_threads = False

    def __init__(self, cost: CostModel) -> None:
        self.cost = self.all_threads_cost = cost
        self.token = object()

    def run(self, inputs: Any, names: Any, *, all_threads: bool = False, device: int = 0) -> dict[str, Any]:
        raise NotImplementedError("the simulation runs nothing")


class Simulation:
    """One replica, request by request, in simulated time."""

    def __init__(self, replica: Replica, requests: int = _REQUESTS) -> None:
        self._requests = requests
        self._replica, self._graph = replica, _Graph(replica.cost)
        self._queue = FairQueue(_LIMITS)
        # What all requests hold, for what the queue reads off it.
        self._inputs = {spec.name: np.zeros((1, replica.length)) for spec in replica.contract.inputs}
        self._idle, self._loop_free = replica.instances, 0.0
        self._events = list[tuple[float, int, str, Any]]()
        self._order = itertools.count()

    def open_loop(self, rate: float, seed: int = 1) -> np.ndarray:
        """Latencies in seconds of requests that come at so many a second, whatever happens."""
        random = np.random.default_rng(seed)
        arrivals = np.cumsum(random.exponential(1 / rate, self._requests))
        for number, at in enumerate(arrivals):
            self._push(at, "arrives", number)
        ended = dict(self._run())
        latencies = np.array([ended[number] - at for number, at in enumerate(arrivals)])
        return latencies[self._requests // 10 :] + self._replica.way_seconds

    def closed_loop(self, callers: int) -> float:
        """Requests a second of callers that ask again at once."""
        for number in range(callers):
            self._push(0.0, "arrives", number)
        numbers = itertools.count(callers)
        ends = [at for _, at in itertools.islice(self._run(again=numbers), self._requests)]
        return (len(ends) - len(ends) // 10) / (ends[-1] - ends[len(ends) // 10])

    def _push(self, at: float, kind: str, what: Any) -> None:
        heapq.heappush(self._events, (at, next(self._order), kind, what))

    def _run(self, again: Iterator[int] | None = None) -> Iterator[tuple[int, float]]:
        """Yield each request that is answered, and when."""
        half = self._replica.loop_seconds / 2
        while self._events:
            now, _, kind, what = heapq.heappop(self._events)
            if kind == "arrives" or kind == "computed":  # both wait for the event loop
                self._loop_free = max(self._loop_free, now) + half
                self._push(self._loop_free, "queued" if kind == "arrives" else "answered", what)
            elif kind == "queued":
                self._queue.add(self._item(what, now))
                self._begin(now)
            elif kind == "ran":
                self._idle += 1
                for number in what:
                    self._push(now, "computed", number)
                self._begin(now)
            else:
                yield what, now
                if again is not None:
                    self._push(now, "arrives", next(again))

    def _item(self, number: int, now: float) -> BatchItem:
        context, replica = RpcContext(request_id=str(number)), self._replica
        item = BatchItem(self._graph, replica.contract, self._inputs, 1, replica.length, (), context=context)
        item.arrived = now
        return item

    def _begin(self, now: float) -> None:
        while self._idle and len(self._queue):
            batch = self._queue.take(self._idle)
            self._idle -= 1
            seconds = self._replica.cost.seconds(len(batch), self._replica.length)
            self._push(now + seconds, "ran", [int(item.context.request_id) for item in batch])


def fit_replica(curve: list[Point], instances: int, length: int, contract: Contract) -> Replica:
    """Draw a line through a service-time curve; its first point is that of the least load, its last the peak."""
    rows, seconds = (np.array([point[place] for point in curve]) for place in (0, 1))
    row_seconds, run_seconds = np.polyfit(rows, seconds, 1, w=1 / seconds)  # relative errors
    alone, loop_seconds = curve[0], curve[-1].loop_seconds
    way_seconds = max(alone.latency_seconds - alone.run_seconds - loop_seconds, 0.0)
    cost = CostModel(run_seconds=max(float(run_seconds), 0.0), token_seconds=float(row_seconds) / length)
    return Replica(cost, loop_seconds, way_seconds, instances, length, contract)


def fit_peak(replica: Replica, peak: float, requests: int = _REQUESTS) -> Replica:
    """Scale the costs until the simulated peak is the measured one."""
    low, high = 0.2, 5.0
    for _ in range(20):
        factor = math.sqrt(low * high)
        cost = CostModel(replica.cost.run_seconds * factor, replica.cost.token_seconds * factor)
        fitted = dataclasses.replace(replica, cost=cost)
        low, high = (factor, high) if Simulation(fitted, requests).closed_loop(_CALLERS) > peak else (low, factor)
    return fitted


def rate_measured(p99_seconds: dict[float, float], within_seconds: float) -> tuple[float, str]:
    """Read off what was measured (p99 by rate) at which rate 99 in 100 are answered in time.

    Returns:
        The rate, between two that were measured by a straight line; and "<" or ">" where it lies outside of them.
    """
    rates = sorted(p99_seconds)
    if within_seconds < p99_seconds[rates[0]]:
        return rates[0], "<"
    for slower, faster in itertools.pairwise(rates):
        low, high = p99_seconds[slower], p99_seconds[faster]
        if low <= within_seconds < high:
            return slower + (faster - slower) * (within_seconds - low) / (high - low), ""
    return rates[-1], ">"


def rate_within(replica: Replica, peak: float, p99_seconds: float, requests: int = _REQUESTS) -> float:
    """Most requests a second of which 99 in 100 are answered in time, by the simulation."""
    low, high = 0.01 * peak, peak
    for _ in range(10):
        rate = (low + high) / 2
        slow = np.quantile(Simulation(replica, requests).open_loop(rate), 0.99) > p99_seconds
        low, high = (low, rate) if slow else (rate, high)
    return low


def main() -> None:
    """Measure, simulate, compare, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="minilm", help="takes texts")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", type=Path, help="rewritten between its marks")
    args = parser.parse_args()
    lines = report(args.models, args.model, args.tokens, args.seconds, args.rounds)
    print("\n".join(lines))
    if args.page:
        before, rest = args.page.read_text().split(_MARKS[0])
        args.page.write_text("\n".join([f"{before}{_MARKS[0]}", *lines, f"{_MARKS[1]}{rest.split(_MARKS[1])[1]}"]))


def report(models: Path, model: str, tokens: int, seconds: float, rounds: int) -> list[str]:
    """Make the section of the page."""
    artifact = max((path for path in (models / model).iterdir() if path.name.isdecimal()), key=lambda p: int(p.name))
    contract = read_contract(artifact / CONTRACT_FILE)
    with only(models, model) as folder, serving_regard(folder, "--max-queue-seconds", "60") as serving:
        instances = int(read_sums(serving.metrics, "regard_instances")[0])
        curves, loads = zip(*(measure_round(serving, seconds, tokens) for _ in range(rounds)), strict=True)
    curve = [Point(*map(statistics.median, zip(*points, strict=True))) for points in zip(*curves, strict=True)]
    measured = {
        load: {name: statistics.median(round_[load][name] for round_ in loads) for name in _PERCENTILES}
        for load in _LOADS
    }
    return list(tell(curve, fit_peak(fit_replica(curve, instances, tokens, contract), curve[-1].per_second), measured))


def measure_round(serving: Serving, seconds: float, tokens: int) -> tuple[list[Point], dict[float, dict[str, float]]]:
    """Measure the service-time curve, and percentiles of latency at shares of its peak."""
    options = {"seconds": seconds * _CURVE_SHARE, "size": tokens}
    peak = measure_point(serving, options | {"callers": _CALLERS})
    curve = [measure_point(serving, options | {"rate": share * peak.per_second}) for share in _CURVE]
    loads = {}
    for load in _LOADS:
        options = {"rate": load * peak.per_second, "seconds": seconds, "size": tokens}
        loads[load] = json.loads(run("bench.load", serving.address, options))
    return [*curve, peak], loads


def measure_point(serving: Serving, options: dict[str, float]) -> Point:
    """Ask, and read off the server what its runs took."""
    names = ("regard_batch_rows_sum", "regard_batch_rows_count", "regard_engine_seconds_total")
    before = [*read_sums(serving.metrics, *names), loop_cpu_seconds(serving.pid)]
    seen = json.loads(run("bench.load", serving.address, options))
    after = [*read_sums(serving.metrics, *names), loop_cpu_seconds(serving.pid)]
    rows, runs, engine_seconds, loop_seconds = (late - early for late, early in zip(after, before, strict=True))
    return Point(rows / runs, engine_seconds / runs, loop_seconds / rows, seen["p50_ms"] / 1e3, seen["per_second"])


def loop_cpu_seconds(pid: int) -> float:
    """CPU seconds of a server's event loop, which is its main thread."""
    # proc(5): the name in brackets may hold blanks; after it utime and stime are fields 14 and 15.
    fields = Path("/proc", str(pid), "task", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_sums(metrics: str, *names: str) -> list[float]:
    """Metrics, each summed over its labels."""
    with urllib.request.urlopen(metrics, timeout=10) as page:  # noqa: S310 -- http, and our own
        text = page.read().decode()
    found = (re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE) for name in names)
    return [sum(map(float, values)) for values in found]


def tell(curve: list[Point], replica: Replica, measured: dict[float, dict[str, float]]) -> Iterator[str]:
    """Yield the section's lines."""
    cost, peak = replica.cost, curve[-1].per_second
    run_ms, row_ms = cost.run_seconds * 1e3, cost.rows_seconds(1, replica.length) * 1e3
    loop_ms, way_ms = replica.loop_seconds * 1e3, replica.way_seconds * 1e3
    yield f"{replica.contract.name}, {replica.length} tokens, {CPUS} CPUs, {replica.instances} instances."
    yield ""
    yield "| requests a second | rows of a batch | ms of a run | by the line |"
    yield "|---|---|---|---|"
    for point in curve:
        figures = f"{point.per_second:.0f} | {point.rows:.1f} | {point.run_seconds * 1e3:.1f}"
        yield f"| {figures} | {run_ms + row_ms * point.rows:.1f} |"
    yield ""
    yield f"The line, scaled to the peak: {run_ms:.1f} ms for a run and {row_ms:.1f} ms for each row. The event loop"
    yield f"takes {loop_ms:.2f} ms for a request; callers wait {way_ms:.1f} ms beyond both at the least load."
    yield ""
    columns = " | ".join(f"p{share} ms, measured | simulated" for share in (50, 95, 99))
    yield f"| load, of the peak | {columns} |"
    yield "|---|---|---|---|---|---|---|"
    for load, figure in measured.items():
        latencies = Simulation(replica).open_loop(load * peak) * 1e3
        pairs = [f"{figure[f'p{share}_ms']:.1f} | {np.percentile(latencies, share):.1f}" for share in (50, 95, 99)]
        yield f"| {load:.0%} | {' | '.join(pairs)} |"
    yield ""
    yield "| 99 in 100 within | requests a second of one replica, measured | simulated |"
    yield "|---|---|---|"
    p99_seconds = {load * peak: figure["p99_ms"] / 1e3 for load, figure in measured.items()}
    for target_ms in _P99_TARGETS_MS:
        rate, bound = rate_measured(p99_seconds, target_ms / 1e3)
        yield f"| {target_ms} ms | {bound}{rate:.0f} | {rate_within(replica, peak, target_ms / 1e3):.0f} |"


if __name__ == "__main__":
    main()
