"""The scheduler under load in simulated time: `python -m bench.batching` shows what its rules do, without a model.

The server's own Scheduler admits, and its Dispatcher decides; no thread runs and nothing is computed. Two cores are
shared by the runs, each of which takes what a cost model says, by the event loop, which handles one request after the
other in turns, and by the callers. Figures are for comparing rules with each other: a machine adds caches, the kernel's
scheduler and its neighbours.
"""

import argparse
import asyncio
import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import numpy as np

from artifact.contract import CONTRACT_FILE, Contract, read_contract
from server.context import RpcContext
from server.engine.cost import CostModel
from server.errors import ServerError
from server.scheduling import dispatcher as dispatcher_module
from server.scheduling import scheduler as scheduler_module
from server.scheduling.admission import Admission
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Result
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from server.telemetry.timings import BatchTimes

_LIMITS = BatchLimits(rows=32, tokens=8192, attention_bytes=2**30)  # the server's defaults
_REQUESTS = 4000  # of a simulation
_WARM_UP_SHARE = 0.2  # of the requests, which are not counted
_INSTANCES = 2
_MANY = 10**12  # requests or bytes, which nothing reaches
_SOON = 1e-12  # seconds, which rounding leaves
_LOOP_SPEED = 0.8  # of the event loop while both cores have a run
_BESIDE_LOOP = 0.6  # of each of two runs of one thread meanwhile
SHORT = (16,)
MIXED = tuple(np.linspace(4, 128, 8).astype(int).tolist())
_ONE_THREAD, _ALL_THREADS = CostModel(0.0028, 0.000102, 2e-8), CostModel(0.0015, 0.00006, 1e-8)
_CONTRACT = Path("tests/golden/models/tiny-text/1") / CONTRACT_FILE  # any of a model that takes texts
_CALLERS = (1, 8, 16, 32, 128)
_LOADS, _OVERLOAD, _OFFERED_SECONDS = (0.5, 0.7, 0.9), 1.5, 0.5
_Task = tuple[float, Callable[[], None]]  # how long it takes, and what is done then


@dataclass(frozen=True)
class Machine:
    """Two cores, by default with MiniLM as docs/performance.md and docs/decisions.md have it.

    With runs of all threads 1, 8 and 32 callers get 340, 600 and 726 answers a second, with runs of one thread 204, 567
    and 761.

    Attributes:
        cost: Of a run of one thread that is alone, which is what the warm-up measures, and the way to it and back.
        all_threads_cost: The same of a run of all threads.
        all_threads: Whether there are such runs.
        crowding: How many times longer runs of one thread take while two of them run.
        loop_seconds: Of the event loop and gRPC, half when a request comes, half when it is answered.
        caller_seconds: Of the callers' process, half to ask, half to read what comes.
        hindered: What a run of all threads gets done while the event loop has one of its cores, as a share.
        noise: Standard deviation of the logarithm of a run's time.
        slow: How many times slower than all this the machine is.
    """

    cost: CostModel = _ONE_THREAD
    all_threads_cost: CostModel = _ALL_THREADS
    all_threads: bool = True
    crowding: float = 1.19
    loop_seconds: float = 0.0004
    caller_seconds: float = 0.0001
    hindered: float = 0.35
    noise: float = 0.1
    slow: float = 1.0


# As callers in Python meet it, who take more of the cores than h2load does; `python -m bench --only open`.
OPEN = Machine(caller_seconds=0.00022, noise=0.2, hindered=0.2)


class Figures(NamedTuple):
    """What callers saw."""

    per_second: float
    p50_ms: float
    p99_ms: float
    rows: float  # of a batch
    all_threads: float  # share of the rows that ran on all threads
    refused: float  # share of the requests


class _Graph:
    """Stands for a graph in the queue."""

    def __init__(self, machine: Machine) -> None:
        self.cost, self.all_threads_cost = machine.cost, machine.all_threads_cost
        self.can_use_all_threads = machine.all_threads
        self.token = object()

    def run(self, inputs: Any, names: Any, *, all_threads: bool = False, device: int = 0) -> dict[str, Any]:
        raise NotImplementedError("the simulation runs nothing")


@dataclass(eq=False)
class _Run:
    batch: Batch
    began: float
    left_seconds: float  # at the pace that it has alone


@dataclass(eq=False)
class _Reply:
    """Stands for the future that a request waits for."""

    tell: Callable[[Any], None]
    is_done: bool = False

    def done(self) -> bool:
        return self.is_done

    def cancelled(self) -> bool:
        return False

    def set_result(self, outcome: Any) -> None:
        self.is_done = True
        self.tell(outcome)

    set_exception = set_result


class _Worker:
    """Does one thing after the other, in turns: what comes meanwhile belongs to the next."""

    def __init__(self) -> None:
        self._ready = list[_Task]()
        self._turn = list[_Task]()
        self.left_seconds = 0.0  # of what it does now

    def add(self, seconds: float, do: Callable[[], None]) -> None:
        """Let it do something, at once where it does nothing else."""
        if self._turn:
            self._ready.append((seconds, do))
        else:
            self._turn, self.left_seconds = [(seconds, do)], seconds

    @property
    def is_busy(self) -> bool:
        """Whether it has something to do."""
        return bool(self._turn)

    def work(self) -> None:
        """Do what is due now."""
        while self._turn and self.left_seconds <= _SOON:
            _, do = self._turn.pop(0)
            do()
            self._begin()
        if self._ready and not self._turn:
            self._turn, self._ready = self._ready, []
            self._begin()

    def _begin(self) -> None:
        self.left_seconds = self._turn[0][0] if self._turn else 0.0


class Simulation:
    """One server, for one load; to its scheduler it is the event loop."""

    def __init__(
        self,
        machine: Machine,
        lengths: Sequence[int],
        contract: Contract,
        seed: int = 1,
        offered_seconds: float = math.inf,
    ) -> None:
        self._machine, self._contract, self._lengths = machine, contract, lengths
        self._random = np.random.default_rng(seed)
        self._graph = _Graph(machine)
        # What all requests of a length hold, for what the queue reads off it.
        self._inputs = {length: {spec.name: np.zeros((1, length)) for spec in contract.inputs} for length in lengths}
        admission = Admission(requests=_MANY, input_bytes=_MANY, seconds=offered_seconds)
        self._scheduler = Scheduler(_LIMITS, admission, _INSTANCES, Metrics())
        self._scheduler._loop = cast("asyncio.AbstractEventLoop", self)
        self._dispatcher = self._scheduler._dispatcher
        self._now = 0.0
        self._runs: list[_Run] = []
        self._batches: list[tuple[int, int]] = []  # rows and instances of each
        self._loop, self._callers, self._timer = _Worker(), _Worker(), math.inf
        self._coming: list[tuple[float, int]] = []
        self._asked: dict[int, float] = {}
        self._answered: list[tuple[int, float]] = []
        self._refused: list[tuple[int, float]] = []
        self._again: Callable[[], None] = lambda: None

    def closed_loop(self, callers: int, requests: int = _REQUESTS) -> Figures:
        """Let callers ask again at once."""
        for _ in range(callers):
            self._ask()
        self._again = self._ask
        return self._go(requests)

    def open_loop(self, rate: float, requests: int = _REQUESTS) -> Figures:
        """Let requests come at so many a second, whatever happens."""
        times = np.cumsum(self._random.exponential(1 / rate, requests)).tolist()
        self._asked = dict(enumerate(times))
        self._coming = [(at, number) for number, at in enumerate(times)]
        return self._go(requests)

    def create_future(self) -> _Reply:
        """See asyncio's."""
        number = self._admitted
        return _Reply(lambda outcome: self._loop.add(self._half_seconds, partial(self._reply, number, outcome)))

    def call_soon(self, do: Callable[..., None], *given: Any) -> None:
        """See asyncio's; whatever is done so may have woken an instance."""

        def do_and_look() -> None:
            do(*given)
            self._look()

        self._loop.add(0.0, do_and_look)

    call_soon_threadsafe = call_soon

    def _ask(self) -> None:
        number = len(self._asked)
        self._asked[number] = self._now
        heapq.heappush(self._coming, (self._now, number))

    def _go(self, requests: int) -> Figures:
        told = SimpleNamespace(monotonic=lambda: self._now)
        with patch.object(dispatcher_module, "time", told), patch.object(scheduler_module, "time", told):
            while len(self._answered) + len(self._refused) < requests:
                self._step()
        counted = self._answered[int(len(self._answered) * _WARM_UP_SHARE) :]
        p50, p99 = np.percentile([(at - self._asked[number]) * 1e3 for number, at in counted], (50, 99))
        per_second = (len(counted) - 1) / (counted[-1][1] - counted[0][1])
        rows = sum(rows for rows, _ in self._batches)
        together = sum(rows for rows, instances in self._batches if instances > 1)
        refused = len(self._refused) / (len(self._refused) + len(self._answered))
        return Figures(per_second, float(p50), float(p99), rows / len(self._batches), together / rows, refused)

    def _step(self) -> None:
        """Let the time go on until something happens."""
        self._pass_time()
        while self._coming and self._coming[0][0] <= self._now + _SOON:
            number = heapq.heappop(self._coming)[1]
            self._callers.add(self._caller_seconds, partial(self._send, number))
        for run in [run for run in self._runs if run.left_seconds <= _SOON]:
            self._end(run)
            self._look()
        if self._timer <= self._now + _SOON:
            self._look()
        self._callers.work()
        self._loop.work()

    def _pass_time(self) -> None:
        paces, loop_pace = self._paces(), self._loop_pace
        ends = [
            self._timer - self._now,
            *(run.left_seconds / pace for run, pace in zip(self._runs, paces, strict=True)),
        ]
        workers = [worker for worker in (self._loop, self._callers) if worker.is_busy]
        ends += [worker.left_seconds / loop_pace for worker in workers]
        if self._coming:
            ends.append(self._coming[0][0] - self._now)
        seconds = max(min(ends), 0.0)
        self._now += seconds
        for worker in workers:
            worker.left_seconds -= seconds * loop_pace
        for run, pace in zip(self._runs, paces, strict=True):
            run.left_seconds -= seconds * pace

    @property
    def _loop_pace(self) -> float:
        return 1.0 if sum(run.batch.instances for run in self._runs) < _INSTANCES else _LOOP_SPEED

    def _paces(self) -> list[float]:
        """How fast each run goes on, as a share of its pace alone."""
        machine, several = self._machine, len(self._runs) > 1
        beside = self._loop.is_busy + self._callers.is_busy
        alone = 1 / machine.crowding if several else 1.0
        if several:
            return [_BESIDE_LOOP**beside * alone] * len(self._runs)
        return [machine.hindered**beside if run.batch.instances > 1 else alone for run in self._runs]

    def _look(self) -> None:
        """What an instance does that is woken, or has ended a run."""
        self._timer = math.inf
        with self._dispatcher._ready:
            self._dispatcher._drop_late()
        while (wait := self._dispatcher._wait_seconds()) == 0.0:
            self._begin(self._dispatcher._begin(0))
        if wait is not None:
            self._timer = self._now + wait

    def _begin(self, batch: Batch) -> None:
        machine, rows = self._machine, len(batch.items)
        cost = machine.all_threads_cost if batch.instances > 1 else machine.cost
        seconds = cost.seconds(rows, max(item.length for item in batch.items))
        noise = float(self._random.lognormal(0.0, machine.noise))
        self._batches.append((rows, batch.instances))
        self._runs.append(_Run(batch, self._now, seconds * noise * machine.slow))

    def _end(self, run: _Run) -> None:
        self._runs.remove(run)
        run.batch.times = BatchTimes(0, round((self._now - run.began) * 1e9), 0)
        run.batch.outcomes = [Result({}, {}) for _ in run.batch.items]
        self._scheduler._finish_soon(run.batch)
        self._dispatcher._end(run.batch)

    @property
    def _half_seconds(self) -> float:
        """Of the event loop's part of a request: half when it comes, half when it is answered or refused."""
        return self._machine.loop_seconds / 2 * self._machine.slow

    @property
    def _caller_seconds(self) -> float:
        """The same of the callers'."""
        return self._machine.caller_seconds / 2 * self._machine.slow

    def _send(self, number: int) -> None:
        self._loop.add(self._half_seconds, partial(self._arrive, number))

    def _arrive(self, number: int) -> None:
        """What the service does with a request."""
        self._admitted = number
        try:
            self._scheduler._admit(self._item(number))
        except ServerError as error:
            self._loop.add(self._half_seconds, partial(self._reply, number, error))

    def _reply(self, number: int, outcome: Any) -> None:
        """The event loop has written an answer, or a refusal; then the caller reads it."""
        self._callers.add(self._caller_seconds, partial(self._read, number, outcome))

    def _read(self, number: int, outcome: Any) -> None:
        (self._refused if isinstance(outcome, ServerError) else self._answered).append((number, self._now))
        self._again()

    def _item(self, number: int) -> BatchItem:
        length = self._lengths[number % len(self._lengths)]
        context = RpcContext(request_id=str(number))
        return BatchItem(self._graph, self._contract, self._inputs[length], 1, length, (), context=context)


def main() -> None:
    """Print what callers see under every load."""
    parser = argparse.ArgumentParser(prog="python -m bench.batching", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of which the median is told")
    parser.add_argument("--requests", type=int, default=_REQUESTS, help="of each")
    parser.add_argument("--noise", type=float, default=Machine.noise, help="see Machine")
    parser.add_argument("--slow", type=float, default=Machine.slow, help="likewise")
    parser.add_argument("--hindered", type=float, default=Machine.hindered, help="likewise")
    parser.add_argument("--caller-seconds", type=float, default=Machine.caller_seconds, help="likewise")
    parser.add_argument("--one-thread", action="store_true", help="without runs of all threads")
    args = parser.parse_args()
    machine = Machine(
        noise=args.noise,
        slow=args.slow,
        hindered=args.hindered,
        caller_seconds=args.caller_seconds,
        all_threads=not args.one_thread,
    )
    contract = read_contract(_CONTRACT)
    print("| load | answers a second | p50 ms | p99 ms | rows of a batch | rows on all threads | refused |")
    print("|---|---|---|---|---|---|---|")
    for lengths in (SHORT, MIXED):
        for load, figures in measure(machine, lengths, contract, args.seeds, args.requests):
            numbers = f"{figures.per_second:.0f} | {figures.p50_ms:.0f} | {figures.p99_ms:.0f} | {figures.rows:.1f}"
            print(f"| {load} | {numbers} | {figures.all_threads:.0%} | {figures.refused:.0%} |")


def measure(
    machine: Machine, lengths: Sequence[int], contract: Contract, seeds: int, requests: int
) -> Iterator[tuple[str, Figures]]:
    """Yield what a load is called, and medians over the seeds; the open loads are shares of the last closed one."""
    shown, peak = f"{lengths[0]} tokens" if len(lengths) == 1 else "4 to 128 tokens", 0.0
    for callers in _CALLERS:
        figures = _median(
            [Simulation(machine, lengths, contract, seed).closed_loop(callers, requests) for seed in range(seeds)]
        )
        peak = figures.per_second
        yield f"{shown}, {callers} callers", figures
    for load in (*_LOADS, _OVERLOAD):
        offered_seconds = math.inf if load < 1 else _OFFERED_SECONDS
        simulations = [Simulation(machine, lengths, contract, seed, offered_seconds) for seed in range(seeds)]
        yield f"{shown}, {load:.0%}", _median([one.open_loop(load * peak, requests) for one in simulations])


def _median(several: Sequence[Figures]) -> Figures:
    return Figures(*(float(np.median(values)) for values in zip(*several, strict=True)))


if __name__ == "__main__":
    main()
