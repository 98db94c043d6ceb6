"""The engine's lanes: threads that cut batches from the queue and run them; the scheduler fills it and takes results.

A lane that has ended a run takes the next batch by itself: the way through the event loop, which is busy with answers
just then, would leave the lane idle for a tenth of the time (docs/decisions.md, Scheduling).
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from server.errors import InternalFault
from server.scheduling.batch import BatchLimits, BatchTimes, Load, Results, Work, run_batch
from server.scheduling.fair_queue import Entry, Order, Queue, Reply

_log = logging.getLogger(__name__)

Outcome = Results | InternalFault


@dataclass(frozen=True, eq=False)
class Run(Generic[Reply]):
    """A batch that runs.

    Attributes:
        batch: At least one request.
        lanes: How many lanes it occupies.
        started: When it began, on time.monotonic(), in seconds.
        ends: When it should end, likewise.
    """

    batch: Sequence[Entry[Reply]]
    lanes: int
    started: float
    ends: float


@dataclass(frozen=True, eq=False)
class Finished(Generic[Reply]):
    """A batch that has run: what became of each request, in the batch's order; times in nanoseconds."""

    batch: Sequence[Entry[Reply]]
    outcomes: Sequence[Outcome]
    load: Load
    started_ns: int
    times: BatchTimes

    @property
    def whole(self) -> bool:
        """Whether every request was computed, and in one run."""
        return all(isinstance(outcome, Results) for outcome in self.outcomes)


@dataclass(frozen=True)
class _Company:
    """Whom a lane that has just become free expects: so many rows, until then."""

    rows: int
    until: float


class Dispatcher(Generic[Reply]):
    """Queue and lanes, behind one lock; every method may be called from any thread."""

    def __init__(
        self,
        limits: BatchLimits,
        lanes: int,
        delay_seconds: float,
        finish: Callable[[Finished[Reply]], None],
        expire: Callable[[Entry[Reply]], None],
    ) -> None:
        """Make a dispatcher that has not started; `lost` says why a lane has ended that should not have.

        Args:
            limits: A batch's.
            lanes: Batches that run at a time.
            delay_seconds: How long the first of a batch that is not full waits for company, though a lane is free.
            finish: Takes what has run; called in a lane's thread.
            expire: Takes a request that was dropped since its deadline had passed; likewise.
        """
        self._limits = limits
        self._lanes = lanes
        self._delay_seconds = delay_seconds
        self._finish = finish
        self._expire = expire
        self._queue: Queue[Reply] = Queue(limits)
        self._idle_lanes = lanes
        self._running: list[Run[Reply]] = []
        self._company = _Company(rows=0, until=0.0)
        self._closing = False
        self.lost = ""
        self._ready = threading.Condition()
        self._threads = [threading.Thread(target=self._work, name=f"lane_{i}", daemon=True) for i in range(lanes)]

    def start(self) -> None:
        """Start the lanes."""
        for thread in self._threads:
            thread.start()

    def close(self, limit_seconds: float | None = None) -> bool:
        """Run what waits, then stop; blocks until then, or so long. Returns whether every lane has ended."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        ends = None if limit_seconds is None else time.monotonic() + limit_seconds
        for thread in self._threads:
            thread.join(None if ends is None else max(ends - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def held_bytes(self) -> int:
        """Bytes of the inputs of what waits."""
        return self._queue.held_bytes

    def add(self, entry: Entry[Reply]) -> bool:
        """Queue a request; returns whether a lane is free, which `wake` would let look at it."""
        with self._ready:
            self._queue.add(entry)
            return self._idle_lanes > 0

    def remove(self, entry: Entry[Reply]) -> bool:
        """Take a request out, its caller having gone; False where it does not wait any more."""
        with self._ready:
            return self._queue.remove(entry)

    def clear(self) -> list[Entry[Reply]]:
        """Take out everything that waits."""
        with self._ready:
            waiting = list(self._queue)
            for entry in waiting:
                self._queue.remove(entry)
            return waiting

    def wait_seconds(self, work: Work, order: Order, *, exactly: bool = False) -> float:
        """Estimate the seconds until a request would be answered if it were queued now; see Queue.wait_seconds."""
        with self._ready:
            own_seconds = self._queue.run_seconds(work)
            if self._idle_lanes and not len(self._queue):
                return own_seconds
            now = time.monotonic()
            running = sum(run.lanes * max(run.ends - now, 0.0) for run in self._running)
            waiting = self._queue.wait_seconds(work, order, exactly=exactly)
            return (running + waiting) / self._lanes + own_seconds

    def backlog_seconds(self) -> float:
        """Estimate the seconds until everything that waits now has begun."""
        with self._ready:
            return self._queue.backlog_seconds() / self._lanes

    def wake(self) -> None:
        """Let a free lane look at the queue; it wakes the next if it leaves something."""
        with self._ready:
            self._ready.notify()

    def running(self) -> list[Run[Reply]]:
        """Return the batches that run now."""
        with self._ready:
            return list(self._running)

    def _work(self) -> None:
        """What a lane does all its life; should it end before its time, the watchdog learns why."""
        try:
            self._run_batches()
        except BaseException as error:
            _log.critical("a lane of the engine has ended", exc_info=True)
            self.lost = f"a lane of the engine has ended: {error!r}"

    def _run_batches(self) -> None:
        while run := self._take():
            started_ns = time.perf_counter_ns()
            works = [entry.work for entry in run.batch]
            outcomes, times = _compute(works, wide=run.lanes > 1)
            finished = Finished(run.batch, outcomes, Load.of(works), started_ns, times)
            self._finish(finished)
            self._end(run, finished)
            del run, works, outcomes, finished  # what waits for the next batch must not keep an unloaded model

    def _take(self) -> Run[Reply] | None:
        """Wait for a batch's time; None where the lane may stop."""
        with self._ready:
            while True:
                self._drop_expired()
                wait_seconds = self._wait_seconds()
                if wait_seconds == 0.0:
                    return self._begin()
                if self._closing and not len(self._queue):
                    return None
                self._ready.wait(wait_seconds)

    def _begin(self) -> Run[Reply]:
        all_idle = self._idle_lanes == self._lanes
        batch = self._queue.take(self._idle_lanes, wide=all_idle)
        alone = all_idle and not len(self._queue) and batch[0].work.graph.can_run_wide
        now = time.monotonic()
        run = Run(batch, self._lanes if alone else 1, now, now + self._queue.batch_seconds(batch))
        self._running.append(run)
        self._idle_lanes -= run.lanes
        if self._idle_lanes and len(self._queue):
            self._ready.notify()
        return run

    def _end(self, run: Run[Reply], finished: Finished[Reply]) -> None:
        with self._ready:
            self._running.remove(run)
            self._idle_lanes += run.lanes
            if run.lanes == 1:
                self._queue.learn(run.batch, finished.times.total_ns / 1e9, whole=finished.whole)
            expected_rows = min(finished.load.rows, self._limits.rows)
            until = time.monotonic() + self._queue.fixed_seconds(run.batch[0].work)
            self._company = _Company(expected_rows, until)

    def _wait_seconds(self) -> float | None:
        """Say how long a lane waits before it cuts a batch: 0 for not at all, None until it is woken.

        While other lanes work, a lane waits where company is near, and never longer than a run's fixed cost, which is
        what company saves: for another lane that is about to end, to share what waits with it; for as many rows as the
        lane has just answered, since their callers are likely to come back at once. An engine that is idle waits only
        where the operator asked for a delay.
        """
        if not self._idle_lanes or not len(self._queue):
            return None
        until, company = 0.0, self._company
        if self._running:
            next_end = min(run.ends for run in self._running)
            if self._queue.rows < company.rows or next_end < company.until:
                until = company.until
        if self._delay_seconds and self._queue.rows < self._limits.rows and not self._closing:
            until = max(until, min(entry.arrived for entry in self._queue) + self._delay_seconds)
        return max(until - time.monotonic(), 0.0)

    def _drop_expired(self) -> None:
        for entry in self._queue.drop_expired(time.monotonic()):
            self._expire(entry)


def _compute(works: Sequence[Work], *, wide: bool) -> tuple[Sequence[Outcome], BatchTimes]:
    """Run a batch. Should it fail, each request runs alone: only the guilty one fails. All of it takes its time."""
    began_ns = time.perf_counter_ns()
    try:
        return run_batch(works, wide=wide)
    except Exception:
        _log.exception("a batch of %d requests of %s failed", len(works), works[0].contract.name)
        times = BatchTimes(0, time.perf_counter_ns() - began_ns, 0)
        if len(works) == 1:
            return [InternalFault()], times
    alone = [_compute([work], wide=wide) for work in works]
    return [outcome for outcomes, _ in alone for outcome in outcomes], sum((own for _, own in alone), times)
