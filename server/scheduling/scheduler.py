"""Admits requests, waits for the lanes to compute them, and answers; the service submits.

It is work-conserving: a free lane starts at once with what is queued, and nobody waits on a timer unless the operator
asks for a delay. A request whose caller hung up, or whose deadline passed, is never computed.
"""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from server.auth.clients import Client, current
from server.errors import DeadlinePassed, Reason, ServerError, ShuttingDown, TooBusy
from server.scheduling.batch import BatchLimits, Results, Work
from server.scheduling.dispatcher import Dispatcher, Finished
from server.scheduling.fair_queue import Entry
from server.scheduling.watchdog import watch_engine
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing, current_context

DEFAULT_PRIORITY, LAST_PRIORITY = 2, 3
_RETRY_SECONDS = (0.01, 10.0)  # shortest and longest hint
_FULL_SHARE = 0.5  # of what waits should be gone when those who were refused come back
_SLOWEST, _STEP, _MOST_FACTOR, _LONG_SHARE = 0.01, 0.05, 3.0, 0.25  # see Margin


@dataclass(frozen=True)
class Admission:
    """What may wait.

    Attributes:
        requests: Most requests.
        input_bytes: Most bytes of their inputs.
        seconds: Longest wait for an answer that is still offered, by the estimate.
    """

    requests: int
    input_bytes: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Computed:
    """What a request gets back: its results, how long it waited and ran, and how many rows shared the batch."""

    results: Results
    queue_ns: int
    compute_ns: int
    batch_size: int


@dataclass(frozen=True, eq=False)
class _Reply:
    future: asyncio.Future[Computed]
    arrived_ns: int
    estimate_seconds: float
    trace: Any
    client: Client
    held_seconds: float

    def settle(self, seconds: float = 0.0) -> None:
        """Charge the client for what was computed, whether or not it still waits."""
        self.client.quota.settle(self.held_seconds, seconds)


class Margin:
    """How many times longer than estimated the slowest hundredth of answers take, learned from every answer.

    A quantile that is followed by small steps: up where an answer took longer, down by a hundredth where it did not
    (Robbins and Monro 1951). Short waits teach nothing about long ones and are left out.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._worth_seconds = limit_seconds * _LONG_SHARE
        self.factor = 1.0

    def learn(self, estimate_seconds: float, seconds: float) -> None:
        """Compare an estimate with what came."""
        if estimate_seconds < self._worth_seconds:
            return
        step = _STEP * (_SLOWEST if seconds <= estimate_seconds * self.factor else _SLOWEST - 1)
        self.factor = min(max(self.factor - step, 1.0), _MOST_FACTOR)


_Entry = Entry[_Reply]


class Scheduler:
    """The door of the engine and the way back; lives in the event loop."""

    def __init__(
        self,
        limits: BatchLimits,
        admission: Admission,
        lanes: int,
        metrics: Metrics,
        delay_seconds: float = 0.0,
        tracing: Tracing | None = None,
    ) -> None:
        """Make a scheduler that has not started.

        Args:
            limits: A batch's.
            admission: What may wait.
            lanes: Batches that run at a time.
            metrics: Where everything is counted.
            delay_seconds: How long the first of a batch that is not full waits for company, though a lane is free.
            tracing: Where batches are traced; None for nowhere.
        """
        self._tracing = tracing or Tracing()
        metrics.lanes.set(lanes)
        self._admission = admission
        self._metrics = metrics
        self._dispatcher = Dispatcher[_Reply](limits, lanes, delay_seconds, self._finish_soon, self._expire_soon)
        self._soon: asyncio.Handle | None = None
        self._margin = Margin(admission.seconds)
        self._refusing = False

    def start(self) -> None:
        """Begin to work; must be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._metrics.queue_depth.set_function(lambda: float(len(self._dispatcher)))
        self._metrics.queue_bytes.set_function(lambda: float(self._dispatcher.held_bytes))
        self._metrics.lanes_busy.set_function(lambda: float(sum(run.lanes for run in self._dispatcher.running())))
        self._dispatcher.start()

    async def submit(self, work: Work, deadline: float | None = None, priority: int = DEFAULT_PRIORITY) -> Computed:
        """Queue a request and wait for its results.

        Args:
            work: What to compute.
            deadline: On time.monotonic(), in seconds; None for none.
            priority: 1 is served first; among equals, whoever's deadline is nearest.

        Raises:
            TooBusy: Too many requests, bytes or seconds are in the queue, or the client's quota is used.
            DeadlinePassed: The deadline cannot be met, or passed in the queue.
            ShuttingDown: The server stopped before its turn came.
            InternalFault: The engine failed on this very request.
        """
        outcome = "computed"
        self._metrics.submitted.inc()
        try:
            return await self._wait(self._admit(work, deadline, priority))
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except ServerError as error:
            outcome = error.code.name.lower()
            raise
        finally:
            self._metrics.outcomes.labels(outcome).inc()

    def suggest_retry(self) -> float:
        """Say in how many seconds a request that was refused has a chance: when half of what waits is done."""
        shortest, longest = _RETRY_SECONDS
        return min(max(self._dispatcher.backlog_seconds() * _FULL_SHARE, shortest), longest)

    def refuse_waiting(self) -> None:
        """Answer everything that waits with ShuttingDown, and everything that comes."""
        self._refusing = True
        for entry in self._dispatcher.clear():
            entry.reply.settle()
            _resolve(entry, ShuttingDown("the server is stopping"))

    async def watch(self, limit_seconds: float) -> str:
        """Wait until the engine hangs or has died; returns what happened. See watch_engine."""
        return await watch_engine(self._dispatcher, limit_seconds)

    def abandon(self, why: str) -> None:
        """Give up what waits and what runs: answer all of it with ShuttingDown, and everything that comes."""
        running = [entry for run in self._dispatcher.running() for entry in run.batch]
        self.refuse_waiting()
        for entry in running:
            _resolve(entry, ShuttingDown(why))

    async def close(self, limit_seconds: float | None = None) -> bool:
        """Refuse what waits, let the running batches end, and stop the threads; returns whether all have ended.

        Args:
            limit_seconds: How long that may take; None for as long as it does.
        """
        self.refuse_waiting()
        return await asyncio.to_thread(self._dispatcher.close, limit_seconds)

    def _admit(self, work: Work, deadline: float | None, priority: int) -> _Entry:
        """Refuse at the door what cannot be served in time, or queue it."""
        if self._refusing:
            raise ShuttingDown("the server is stopping")
        now = time.monotonic()
        expires = math.inf if deadline is None else deadline
        due = min(expires, now + self._admission.seconds)
        self._check_room(work)
        order = (priority, due, now)
        wait_seconds = self._dispatcher.wait_seconds(work, order)
        if now + wait_seconds >= expires:
            wait_seconds = self._dispatcher.wait_seconds(work, order, exactly=True)
            if now + wait_seconds >= expires:
                raise DeadlinePassed(
                    f"the deadline is {max(expires - now, 0.0):.3f} s away and an answer takes {wait_seconds:.3f} s"
                )
        if wait_seconds * self._margin.factor > self._admission.seconds and len(self._dispatcher):
            self._refuse(
                f"an answer would take about {wait_seconds:.1f} s (the server's --max-queue-seconds)", "seconds"
            )
        client, cost_seconds = current.get(), work.graph.cost.seconds(work.rows, work.length)
        client.quota.hold(cost_seconds)
        future, trace = self._loop.create_future(), current_context()
        reply = _Reply(future, time.perf_counter_ns(), wait_seconds, trace, client, cost_seconds)
        entry = Entry(work, reply, priority, due, now, expires)
        if self._dispatcher.add(entry) and self._soon is None:
            # Once everything that has arrived in this turn of the event loop is queued.
            self._soon = self._loop.call_soon(self._wake)
        return entry

    def _check_room(self, work: Work) -> None:
        waiting, held_bytes = len(self._dispatcher), self._dispatcher.held_bytes + work.held_bytes
        if waiting >= self._admission.requests:
            self._refuse(f"{waiting} requests wait (the server's --max-queue-size)", "requests")
        if held_bytes > self._admission.input_bytes and waiting:
            self._refuse(f"its inputs would hold {held_bytes} bytes (the server's --max-queue-bytes)", "bytes")

    def _refuse(self, what: str, reason: Reason) -> NoReturn:
        raise TooBusy(f"the queue is full: {what}; retry later", self.suggest_retry(), reason)

    async def _wait(self, entry: _Entry) -> Computed:
        try:
            return await entry.reply.future
        finally:
            if self._dispatcher.remove(entry):  # the caller hung up while it waited
                entry.reply.settle()
                self._metrics.dropped.labels("cancelled").inc()

    def _wake(self) -> None:
        self._soon = None
        self._dispatcher.wake()

    def _finish_soon(self, finished: Finished[_Reply]) -> None:
        """Called by a lane."""
        self._loop.call_soon_threadsafe(self._finish, finished)

    def _expire_soon(self, entry: _Entry) -> None:
        """Called by a lane."""
        self._loop.call_soon_threadsafe(self._expire, entry)

    def _finish(self, finished: Finished[_Reply]) -> None:
        load, now_ns = finished.load, time.perf_counter_ns()
        contract, compute_ns = finished.batch[0].work.contract, finished.times.total_ns
        for entry, outcome in zip(finished.batch, finished.outcomes, strict=True):
            if isinstance(outcome, Results):
                seconds = compute_ns / 1e9 * entry.work.rows / load.rows
                entry.reply.settle(seconds)
                self._metrics.client_seconds.labels(entry.reply.client.name).inc(seconds)
                queue_ns = finished.started_ns - entry.reply.arrived_ns
                self._margin.learn(entry.reply.estimate_seconds, (now_ns - entry.reply.arrived_ns) / 1e9)
                _resolve(entry, Computed(outcome, queue_ns, compute_ns, load.rows))
            else:
                entry.reply.settle(entry.reply.held_seconds)  # for what it cost those beside it, nobody knows
                _resolve(entry, outcome)
        graph, times = finished.batch[0].work.graph_kind, finished.times
        self._metrics.observe_batch(contract.name, str(contract.version), graph, load, times)
        steps = {"join": times.join_ns, "run": times.run_ns, "part": times.part_ns}
        self._tracing.batch(contract.name, load.rows, [entry.reply.trace for entry in finished.batch], steps)

    def _expire(self, entry: _Entry) -> None:
        entry.reply.settle()
        self._metrics.dropped.labels("expired").inc()
        _resolve(entry, DeadlinePassed("the deadline passed while the request waited"))


def _resolve(entry: _Entry, outcome: Computed | ServerError) -> None:
    """Answer an entry; the only place that does. A reply that is done belongs to a caller who hung up."""
    future = entry.reply.future
    if future.done():
        return
    if isinstance(outcome, ServerError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
