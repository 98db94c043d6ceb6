"""One server in simulated time: its own Scheduler admits, and its own Dispatcher decides; nothing is computed."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np

from artifact.contract import Contract
from bench.simulation.machine import Machine
from bench.simulation.worker import SOON, Worker
from server.context import RpcContext
from server.errors import ServerError
from server.scheduling import dispatcher as dispatcher_module
from server.scheduling import scheduler as scheduler_module
from server.scheduling.admission import Admission
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Result
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from server.telemetry.timings import BatchTimes

_MAX_TOKENS = 8192  # of a batch; the server's default
_MANY = 10**12  # requests or bytes, which nothing reaches


class Clock:
    """The time that all replicas of a simulation have."""

    def __init__(self) -> None:
        self.now = 0.0

    @contextmanager
    def told(self) -> Iterator[None]:
        """Let the scheduler's modules read the time here."""
        told = SimpleNamespace(monotonic=lambda: self.now)
        with patch.object(dispatcher_module, "time", told), patch.object(scheduler_module, "time", told):
            yield


class _Graph:
    """Stands for a graph in the queue."""

    def __init__(self, machine: Machine) -> None:
        self.cost, self.all_threads_cost = machine.told or (machine.cost, machine.all_threads_cost)
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


class Replica:
    """A server and the callers beside it on its machine; to its scheduler it is the event loop.

    Attributes:
        waiting: Requests that were sent and not answered or refused.
        next_at: When something happens next, if nothing is sent before.
        batches: Rows and instances of each so far.
    """

    def __init__(
        self,
        machine: Machine,
        contract: Contract,
        clock: Clock,
        random: np.random.Generator,
        answer: Callable[[int, bool], None],
        offered_seconds: float = math.inf,
    ) -> None:
        """Make one that has nothing to do.

        Args:
            machine: What it runs on.
            contract: The model's.
            clock: Whose time it has.
            random: Draws how long runs take.
            answer: Is told the number of a request whose caller has read the answer, and whether it was one.
            offered_seconds: See Admission.seconds.
        """
        self._machine, self._contract, self._clock, self._random = machine, contract, clock, random
        self._answer = answer
        self._graph = _Graph(machine)
        self._inputs = dict[int, dict[str, np.ndarray]]()
        admission = Admission(requests=_MANY, input_bytes=_MANY, seconds=offered_seconds)
        limits = BatchLimits(machine.max_rows, _MAX_TOKENS, attention_bytes=_MANY)
        self._scheduler = Scheduler(limits, admission, machine.instances, Metrics())
        self._scheduler._loop = cast("asyncio.AbstractEventLoop", self)
        self._dispatcher = self._scheduler._dispatcher
        self._runs: list[_Run] = []
        self._loop, self._callers, self._timer = Worker(), Worker(), math.inf
        self._passed = clock.now  # until when everything has gone on
        self.waiting, self.next_at = 0, math.inf
        self.batches: list[tuple[int, int]] = []

    def send(self, number: int, length: int) -> None:
        """Let a caller ask, now."""
        self._pass_time()
        self.waiting += 1
        item = self._item(number, length)
        arrive = partial(self._loop.add, self._half_seconds, partial(self._arrive, number, item))
        self._callers.add(self._caller_seconds, arrive)
        self._settle()

    def go_on(self) -> None:
        """Do what is due now."""
        self._pass_time()
        for run in [run for run in self._runs if run.left_seconds <= SOON]:
            self._end(run)
            self._look()
        if self._timer <= self._clock.now + SOON:
            self._look()
        self._settle()

    @property
    def loop_seconds(self) -> float:
        """CPU time that the event loop has used so far."""
        return self._loop.worked_seconds

    @property
    def queue_seconds(self) -> float:
        """What the server's metric of that name says."""
        return self._scheduler.queue_seconds()

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

    def _settle(self) -> None:
        """Let both threads do what is due, and see when something happens next."""
        self._callers.work()
        self._loop.work()
        speed = self._loop_speed
        ends = [run.left_seconds / pace for run, pace in zip(self._runs, self._paces(), strict=True)]
        ends += [worker.left_seconds / speed for worker in (self._loop, self._callers) if worker.is_busy]
        self.next_at = min(self._timer, self._clock.now + max(min(ends, default=math.inf), 0.0))

    def _pass_time(self) -> None:
        seconds, speed = self._clock.now - self._passed, self._loop_speed
        for run, pace in zip(self._runs, self._paces(), strict=True):
            run.left_seconds -= seconds * pace
        for worker in (self._loop, self._callers):
            worker.go_on(seconds * speed)
        self._passed = self._clock.now

    @property
    def _loop_speed(self) -> float:
        machine = self._machine
        return machine.loop_speed if sum(run.batch.instances for run in self._runs) >= machine.instances else 1.0

    def _paces(self) -> list[float]:
        busy, runs = self._loop.is_busy + self._callers.is_busy, len(self._runs)
        return [self._machine.pace(runs, busy, all_threads=run.batch.instances > 1) for run in self._runs]

    def _look(self) -> None:
        """What an instance does that is woken, or has ended a run."""
        self._timer = math.inf
        with self._dispatcher._ready:
            self._dispatcher._drop_late()
        while (wait := self._dispatcher._wait_seconds()) == 0.0:
            self._begin(self._dispatcher._begin(0))
        if wait is not None:
            self._timer = self._clock.now + wait

    def _begin(self, batch: Batch) -> None:
        rows, length = len(batch.items), max(item.length for item in batch.items)
        self.batches.append((rows, batch.instances))
        seconds = self._machine.draw_seconds(rows, length, self._random, all_threads=batch.instances > 1)
        self._runs.append(_Run(batch, self._clock.now, seconds))

    def _end(self, run: _Run) -> None:
        self._runs.remove(run)
        run.batch.times = BatchTimes(0, round((self._clock.now - run.began) * 1e9), 0)
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

    def _arrive(self, number: int, item: BatchItem) -> None:
        """What the service does with a request."""
        self._admitted = number
        try:
            self._scheduler._admit(item)
        except ServerError as error:
            self._loop.add(self._half_seconds, partial(self._reply, number, error))

    def _reply(self, number: int, outcome: Any) -> None:
        """The event loop has written an answer, or a refusal; then the caller reads it."""
        self._callers.add(self._caller_seconds, partial(self._read, number, outcome))

    def _read(self, number: int, outcome: Any) -> None:
        self.waiting -= 1
        self._answer(number, not isinstance(outcome, ServerError))

    def _item(self, number: int, length: int) -> BatchItem:
        # What all requests of a length hold, for what the queue reads off it.
        if length not in self._inputs:
            self._inputs[length] = {spec.name: np.zeros((1, length)) for spec in self._contract.inputs}
        context = RpcContext(request_id=str(number))
        return BatchItem(self._graph, self._contract, self._inputs[length], 1, length, (), context=context)
