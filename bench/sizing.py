"""How many replicas a load needs: `python -m bench.sizing` measures one, simulates it, and shows how far both agree.

The simulation drives the server's own queue (server/queue.py) with the cost model that the server fits at its start
(server/cost.py): Poisson arrivals, one event loop that decodes and encodes one request after the other, lanes that run
batches. One number is fitted: how much slower the engine is with everything at work than alone, so that the simulated
peak is the measured one. What is then compared are latencies at loads below the peak.
"""

import argparse
import heapq
import itertools
import json
import math
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.__main__ import CPUS, only, run
from bench.servers import serving_regard
from server.batching import BatchLimits, Work
from server.contract import CONTRACT_FILE, Contract, read_contract
from server.cost import CostModel
from server.device import choose_device, share_cpus
from server.engine import Engine
from server.queue import Entry, Queue

_CALLERS = 128  # that make the peak
_LOADS = (0.3, 0.5, 0.7, 0.85)
_LIMITS = BatchLimits(rows=32, tokens=8192, attention_bytes=2**30)  # the server's defaults
_REQUESTS = 20_000  # of a simulation
_P99_TARGETS_MS = (25, 50, 100, 250)
_MARKS = ("<!-- bench.sizing begins -->", "<!-- bench.sizing ends -->")


@dataclass(frozen=True)
class Replica:
    """What a simulation knows of one server.

    Attributes:
        cost: Of its plain graph, alone on one lane.
        pace: How many times longer runs take when everything is at work.
        loop_seconds: Of the event loop, for one request: decoding, answering, gRPC.
        lanes: Runs at a time.
        length: Tokens of a request.
        contract: The model's.
    """

    cost: CostModel
    pace: float
    loop_seconds: float
    lanes: int
    length: int
    contract: Contract


class _Graph:
    """Stands for a graph in the queue."""

    can_run_wide = False

    def __init__(self, cost: CostModel) -> None:
        self.cost = cost
        self.token = object()

    def run(self, inputs: Any, names: Any, *, wide: bool = False) -> dict[str, Any]:
        raise NotImplementedError("the simulation runs nothing")


class Simulation:
    """One replica, request by request, in simulated time."""

    def __init__(self, replica: Replica, requests: int = _REQUESTS) -> None:
        self._requests = requests
        self._replica, self._graph = replica, _Graph(replica.cost)
        self._queue: Queue[int] = Queue(_LIMITS)
        # What all requests hold, for what the queue reads off it.
        self._inputs = {spec.name: np.zeros((1, replica.length)) for spec in replica.contract.inputs}
        self._idle, self._loop_free = replica.lanes, 0.0
        self._events = list[tuple[float, int, str, Any]]()
        self._order = itertools.count()

    def open_loop(self, rate: float, seed: int = 1) -> np.ndarray:
        """Latencies in seconds of requests that come at so many a second, whatever happens."""
        random = np.random.default_rng(seed)
        arrivals = np.cumsum(random.exponential(1 / rate, self._requests))
        for number, at in enumerate(arrivals):
            self._push(at, "arrives", number)
        ended = dict(self._run())
        return np.array([ended[number] - at for number, at in enumerate(arrivals)])[self._requests // 10 :]

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
                work = Work(self._graph, self._replica.contract, self._inputs, 1, self._replica.length, ())
                self._queue.add(Entry(work, what, 2, math.inf, now))
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

    def _begin(self, now: float) -> None:
        while self._idle and len(self._queue):
            batch = self._queue.take(self._idle)
            self._idle -= 1
            seconds = self._replica.cost.seconds(len(batch), self._replica.length) * self._replica.pace
            self._push(now + seconds, "ran", [entry.reply for entry in batch])


def fit_pace(replica: Replica, peak: float, requests: int = _REQUESTS) -> Replica:
    """Find the pace at which the simulated peak is the measured one."""
    low, high = 0.2, 20.0
    for _ in range(20):
        pace = math.sqrt(low * high)
        fitted = Replica(replica.cost, pace, replica.loop_seconds, replica.lanes, replica.length, replica.contract)
        low, high = (pace, high) if Simulation(fitted, requests).closed_loop(_CALLERS) > peak else (low, pace)
    return fitted


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
    parser.add_argument("--page", type=Path, help="rewritten between its marks")
    args = parser.parse_args()
    lines = report(args.models, args.model, args.tokens, args.seconds)
    print("\n".join(lines))
    if args.page:
        before, rest = args.page.read_text().split(_MARKS[0])
        args.page.write_text("\n".join([f"{before}{_MARKS[0]}", *lines, f"{_MARKS[1]}{rest.split(_MARKS[1])[1]}"]))


def report(models: Path, model: str, tokens: int, seconds: float) -> list[str]:
    """Make the section of the page."""
    artifact = max((path for path in (models / model).iterdir() if path.name.isdecimal()), key=lambda p: int(p.name))
    contract, device = read_contract(artifact / CONTRACT_FILE), choose_device("cpu")
    lanes = share_cpus(CPUS, device)
    engine = Engine(artifact, contract, device, lanes)
    engine.warm_up()
    with only(models, model) as folder, serving_regard(folder, "--max-queue-seconds", "60") as serving:
        before = read_seconds(serving.metrics)
        peak = json.loads(run("bench.load", serving.address, {"callers": _CALLERS, "seconds": seconds, "size": tokens}))
        spent = [late - early for late, early in zip(read_seconds(serving.metrics), before, strict=True)]
        cpu_seconds, engine_seconds, requests = spent
        loop_seconds = max(cpu_seconds - engine_seconds, 0.0) / requests
        options = {"seconds": seconds, "size": tokens}
        rates = {load: load * peak["per_second"] for load in _LOADS}
        measured = {
            load: json.loads(run("bench.load", serving.address, options | {"rate": rate}))
            for load, rate in rates.items()
        }
    alone = Replica(engine.plain.cost, 1.0, loop_seconds, lanes.count, tokens, contract)
    replica = fit_pace(alone, peak["per_second"])
    return list(tell(replica, peak["per_second"], measured))


def read_seconds(metrics: str) -> tuple[float, float, float]:
    """CPU seconds of the process, seconds of its lanes, and requests computed, since its start."""
    with urllib.request.urlopen(metrics, timeout=10) as page:  # noqa: S310 -- http, and our own
        text = page.read().decode()
    names = ("process_cpu_seconds_total", "regard_engine_seconds_total", "regard_batch_rows_sum")
    found = (re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE) for name in names)
    sums = [sum(map(float, values)) for values in found]
    return sums[0], sums[1], sums[2]


def tell(replica: Replica, peak: float, measured: dict[float, dict[str, Any]]) -> Iterator[str]:
    """Yield the section's lines."""
    cost = replica.cost
    run_ms, row_ms = cost.run_seconds * 1e3, cost.rows_seconds(1, replica.length) * 1e3
    yield f"{replica.contract.name}, {replica.length} tokens, {CPUS} CPUs, {replica.lanes} lanes. Alone, a run takes"
    yield f"{run_ms:.2f} ms and {row_ms:.2f} ms for each row; with everything at work {replica.pace:.2f} times that."
    yield f"A request takes the event loop {replica.loop_seconds * 1e3:.2f} ms. The peak is {peak:.0f} a second."
    yield ""
    columns = " | ".join(f"p{share} ms, measured | simulated" for share in (50, 95, 99))
    yield f"| load, of the peak | {columns} |"
    yield "|---|---|---|---|---|---|---|"
    for load, figure in measured.items():
        latencies = Simulation(replica).open_loop(load * peak) * 1e3
        pairs = [f"{figure[f'p{share}_ms']:.1f} | {np.percentile(latencies, share):.1f}" for share in (50, 95, 99)]
        yield f"| {load:.0%} | {' | '.join(pairs)} |"
    yield ""
    yield "| 99 in 100 within | requests a second of one replica, simulated |"
    yield "|---|---|"
    for target_ms in _P99_TARGETS_MS:
        yield f"| {target_ms} ms | {rate_within(replica, peak, target_ms / 1e3):.0f} |"


if __name__ == "__main__":
    main()
