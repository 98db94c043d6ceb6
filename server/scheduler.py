"""Owns the queue and the engine's lanes: admits requests, cuts batches, runs them, answers; the service submits.

It is work-conserving: a free lane starts at once with what is queued, and nobody waits on a timer unless the operator
asks for a delay. A request whose caller hung up, or whose deadline passed, is never computed.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from server.batching import BatchLimits, Load, Results, Work, run_batch
from server.errors import DeadlinePassed, InternalFault, ServerError, ShuttingDown, TooBusy
from server.metrics import Metrics
from server.queue import Entry, Queue

_log = logging.getLogger(__name__)
DEFAULT_PRIORITY, LAST_PRIORITY = 2, 3
_RETRY_SECONDS = (0.01, 10.0)  # shortest and longest hint
_FULL_SHARE = 0.5  # of what waits should be gone when those who were refused come back


@dataclass(frozen=True)
class Admission:
    """What may wait.

    Attributes:
        requests: Most requests.
        input_bytes: Most bytes of their inputs.
        seconds: Longest wait that is still offered, by the estimate.
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
    deadline: float | None
    arrived_ns: int


@dataclass(frozen=True)
class _Company:
    """Whom a lane that has just become free expects: so many rows, until then."""

    rows: int
    until: float


_Entry = Entry[_Reply]


class Scheduler:
    """Queue, batching and the engine's lanes."""

    def __init__(
        self, limits: BatchLimits, admission: Admission, lanes: int, metrics: Metrics, delay_seconds: float = 0.0
    ) -> None:
        """Make a scheduler that has not started.

        Args:
            limits: A batch's.
            admission: What may wait.
            lanes: Batches that run at a time.
            metrics: Where everything is counted.
            delay_seconds: How long the first of a batch that is not full waits for company, though a lane is free.
        """
        self._limits = limits
        self._admission = admission
        self._lanes = lanes
        self._delay_seconds = delay_seconds
        self._metrics = metrics
        self._queue: Queue[_Reply] = Queue(limits)
        self._idle_lanes = lanes
        self._running: dict[asyncio.Future[_Outcomes], float] = {}  # with the time when each should end
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.Handle | None = None
        self._company = _Company(rows=0, until=0.0)
        self._refusing = False
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="lane")

    def start(self) -> None:
        """Begin to work; must be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._metrics.queue_depth.set_function(lambda: float(len(self._queue)))
        self._metrics.queue_bytes.set_function(lambda: float(self._queue.held_bytes))

    async def submit(self, work: Work, deadline: float | None = None, priority: int = DEFAULT_PRIORITY) -> Computed:
        """Queue a request and wait for its results.

        Args:
            work: What to compute.
            deadline: On the event loop's clock, in seconds; None for none.
            priority: 1 is served first; among equals, whoever's deadline is nearest.

        Raises:
            TooBusy: Too many requests, bytes or seconds are in the queue.
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
        return min(max(self._queue.backlog_seconds() / self._lanes * _FULL_SHARE, shortest), longest)

    def refuse_waiting(self) -> None:
        """Answer everything that waits with ShuttingDown, and everything that comes."""
        self._refusing = True
        for entry in list(self._queue):
            self._queue.remove(entry)
            _resolve(entry, ShuttingDown("the server is stopping"))

    async def close(self) -> None:
        """Refuse what waits, let the running batches end, and stop the threads."""
        self.refuse_waiting()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    def _admit(self, work: Work, deadline: float | None, priority: int) -> _Entry:
        """Refuse at the door what cannot be served in time, or queue it."""
        if self._refusing:
            raise ShuttingDown("the server is stopping")
        now, admission = self._loop.time(), self._admission
        due = now + admission.seconds if deadline is None else min(deadline, now + admission.seconds)
        reply = _Reply(self._loop.create_future(), deadline, time.perf_counter_ns())
        entry = Entry(work, reply, priority, due, now)
        wait_seconds = self._estimate_wait(entry, now)
        self._check_room(work, wait_seconds)
        if deadline is not None and now + wait_seconds + self._queue.run_seconds(work) >= deadline:
            wait_seconds = self._estimate_wait(entry, now, exactly=True)
            if now + wait_seconds + self._queue.run_seconds(work) >= deadline:
                raise DeadlinePassed(
                    f"the deadline is {max(deadline - now, 0.0):.3f} s away and about {wait_seconds:.3f} s of work wait"
                )
        self._queue.add(entry)
        self._wake()
        return entry

    def _check_room(self, work: Work, wait_seconds: float) -> None:
        admission, queue = self._admission, self._queue
        held_bytes = queue.held_bytes + work.held_bytes
        full = ""
        if len(queue) >= admission.requests:
            full = f"{len(queue)} requests wait (the server's --max-queue-size)"
        elif held_bytes > admission.input_bytes and len(queue):
            full = f"its inputs would hold {held_bytes} bytes (the server's --max-queue-bytes)"
        elif wait_seconds > admission.seconds:
            full = f"requests would wait about {wait_seconds:.1f} s (the server's --max-queue-seconds)"
        if full:
            raise TooBusy(f"the queue is full: {full}; retry later", self.suggest_retry())

    def _estimate_wait(self, entry: _Entry, now: float, *, exactly: bool = False) -> float:
        """Estimate the seconds until a request's batch begins, on the lane that is free first."""
        if self._idle_lanes and not len(self._queue):
            return 0.0
        running = sum(max(end - now, 0.0) for end in self._running.values())
        waiting = self._queue.wait_seconds(entry.work, entry.order, exactly=exactly)
        return (running + waiting) / self._lanes

    async def _wait(self, entry: _Entry) -> Computed:
        try:
            return await entry.reply.future
        finally:
            if self._queue.remove(entry):  # the caller hung up while it waited
                self._metrics.dropped.labels("cancelled").inc()

    def _wake(self) -> None:
        """Cut batches once everything that has arrived in this turn of the event loop is queued."""
        if self._soon is None and self._idle_lanes:
            self._soon = self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Give every free lane a batch."""
        for handle in (self._soon, self._later):
            if handle:
                handle.cancel()
        self._soon = self._later = None
        self._drop_expired()
        while self._idle_lanes and len(self._queue):
            wait_until = self._wait_until()
            if wait_until > self._loop.time():
                self._later = self._loop.call_at(wait_until, self._dispatch)
                return
            all_idle = self._idle_lanes == self._lanes
            batch = self._queue.take(self._idle_lanes, wide=all_idle)
            alone = all_idle and not len(self._queue)
            self._run(batch, wide=alone and batch[0].work.graph.can_run_wide)

    def _wait_until(self) -> float:
        """Say how long a free lane still waits for company; 0 for not at all.

        While other lanes work, a lane waits where company is near, and never longer than a run's fixed cost, which is
        what company saves: for another lane that is about to end, to share what waits with it; for as many rows as the
        lane has just answered, since their callers are likely to come back at once. An engine that is idle waits only
        where the operator asked for a delay.
        """
        until, company = 0.0, self._company
        if self._running and (self._queue.rows < company.rows or min(self._running.values()) < company.until):
            until = company.until
        if self._delay_seconds and self._queue.rows < self._limits.rows:
            until = max(until, min(entry.arrived for entry in self._queue) + self._delay_seconds)
        return until

    def _drop_expired(self) -> None:
        now = self._loop.time()
        for entry in [entry for entry in self._queue if entry.due <= now]:
            if entry.reply.deadline is not None and entry.reply.deadline <= now:
                self._queue.remove(entry)
                self._metrics.dropped.labels("expired").inc()
                _resolve(entry, DeadlinePassed("the deadline passed while the request waited"))

    def _run(self, batch: list[_Entry], *, wide: bool) -> None:
        lanes = self._lanes if wide else 1
        self._idle_lanes -= lanes
        started_ns = time.perf_counter_ns()
        works = [entry.work for entry in batch]
        running = self._loop.run_in_executor(self._threads, _compute, works, wide)
        self._running[running] = self._loop.time() + self._queue.batch_seconds(batch)
        running.add_done_callback(functools.partial(self._finish, batch, started_ns, lanes))

    def _finish(self, batch: list[_Entry], started_ns: int, lanes: int, running: "asyncio.Future[_Outcomes]") -> None:
        """Start the next batch first, then answer this one's requests."""
        compute_ns = time.perf_counter_ns() - started_ns
        del self._running[running]
        self._idle_lanes += lanes
        if lanes == 1:
            self._queue.learn(batch, compute_ns / 1e9)
        load = Load.of([entry.work for entry in batch])
        fixed_seconds = self._queue.fixed_seconds(batch[0].work)
        self._company = _Company(min(load.rows, self._limits.rows), self._loop.time() + fixed_seconds)
        if len(self._queue):
            self._dispatch()
        self._metrics.observe_batch(batch[0].work.contract.name, load.rows, load.padding_share, compute_ns)
        for entry, outcome in zip(batch, running.result(), strict=True):
            if isinstance(outcome, Results):
                queue_ns = started_ns - entry.reply.arrived_ns
                _resolve(entry, Computed(outcome, queue_ns, compute_ns, load.rows))
            else:
                _resolve(entry, outcome)


_Outcomes = Sequence[Results | InternalFault]


def _resolve(entry: _Entry, outcome: Computed | ServerError) -> None:
    """Answer an entry; the only place that does. A reply that is done belongs to a caller who hung up."""
    future = entry.reply.future
    if future.done():
        return
    if isinstance(outcome, ServerError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _compute(works: Sequence[Work], wide: bool) -> _Outcomes:
    """Run a batch in a lane's thread. Should it fail, each request runs alone: only the guilty one fails."""
    try:
        return run_batch(works, wide=wide)
    except Exception:
        _log.exception("a batch of %d requests of %s failed", len(works), works[0].contract.name)
        if len(works) == 1:
            return [InternalFault()]
    return [outcome for work in works for outcome in _compute([work], wide)]
