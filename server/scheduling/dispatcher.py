"""The engine's instances: threads that cut batches from the queue and run them.

An instance that has ended a run takes the next batch by itself: the way through the event loop, which is busy with
answers just then, would leave it idle for a tenth of the time (docs/decisions.md, Scheduling).
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.errors import InternalFault
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Order, Outcome
from server.scheduling.collate import run_batch
from server.scheduling.fair_queue import FairQueue
from server.telemetry.timings import BatchTimes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Window:
    """What an instance that has just become free waits for: so many rows, until then."""

    rows: int
    until: float


class Dispatcher:
    """Queue and instances, behind one lock; every method may be called from any thread."""

    def __init__(
        self,
        limits: BatchLimits,
        instances: int,
        delay_seconds: float,
        finish: Callable[[Batch], None],
        expire: Callable[[BatchItem], None],
    ) -> None:
        """Make a dispatcher that has not started; `lost` says why an instance has ended that should not have.

        Args:
            limits: A batch's.
            instances: Batches that run at a time.
            delay_seconds: How long the first of a batch that is not full waits for others, though an instance is free.
            finish: Takes what has run; called in an instance's thread.
            expire: Takes a request that was dropped since its deadline had passed; likewise.
        """
        self._limits = limits
        self._instances = instances
        self._delay_seconds = delay_seconds
        self._finish = finish
        self._expire = expire
        self._queue: FairQueue = FairQueue(limits)
        self._idle_instances = instances
        self._running: list[Batch] = []
        self._window = _Window(rows=0, until=0.0)
        self._closing = False
        self.lost = ""
        self._ready = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"instance_{i}", daemon=True) for i in range(instances)
        ]

    def start(self) -> None:
        """Start the instances."""
        for thread in self._threads:
            thread.start()

    def close(self, limit_seconds: float | None = None) -> bool:
        """Run what waits, then stop; blocks until then, or so long. Returns whether every instance has ended."""
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

    def add(self, item: BatchItem) -> bool:
        """Queue a request; returns whether an instance is free, which `wake` would let look at it."""
        with self._ready:
            self._queue.add(item)
            return self._idle_instances > 0

    def remove(self, item: BatchItem) -> bool:
        """Take a request out, its caller having gone; False where it does not wait any more."""
        with self._ready:
            return self._queue.remove(item)

    def clear(self) -> list[BatchItem]:
        """Take out everything that waits."""
        with self._ready:
            waiting = list(self._queue)
            for item in waiting:
                self._queue.remove(item)
            return waiting

    def wait_seconds(self, item: BatchItem, order: Order, *, exactly: bool = False) -> float:
        """Estimate the seconds until a request would be answered if it were queued now; see FairQueue.wait_seconds."""
        with self._ready:
            own_seconds = self._queue.run_seconds(item)
            if self._idle_instances and not len(self._queue):
                return own_seconds
            now = time.monotonic()
            running = sum(run.instances * max(run.ends - now, 0.0) for run in self._running)
            waiting = self._queue.wait_seconds(item, order, exactly=exactly)
            return (running + waiting) / self._instances + own_seconds

    def backlog_seconds(self) -> float:
        """Estimate the seconds until everything that waits now has begun."""
        with self._ready:
            return self._queue.backlog_seconds() / self._instances

    def wake(self) -> None:
        """Let a free instance look at the queue; it wakes the next if it leaves something."""
        with self._ready:
            self._ready.notify()

    def running(self) -> list[Batch]:
        """Return the batches that run now."""
        with self._ready:
            return list(self._running)

    def _work(self) -> None:
        """What an instance does all its life; should it end before its time, the watchdog learns why."""
        try:
            self._run_batches()
        except BaseException as error:
            _log.critical("an instance of the engine has ended", exc_info=True)
            self.lost = f"an instance of the engine has ended: {error!r}"

    def _run_batches(self) -> None:
        while batch := self._take():
            batch.outcomes, batch.times = _compute(batch.items, all_threads=batch.instances > 1)
            self._finish(batch)
            self._end(batch)
            del batch  # what waits for the next batch must not keep an unloaded model

    def _take(self) -> Batch | None:
        """Wait for a batch's time; None where the instance may stop."""
        with self._ready:
            while True:
                self._drop_expired()
                wait_seconds = self._wait_seconds()
                if wait_seconds == 0.0:
                    return self._begin()
                if self._closing and not len(self._queue):
                    return None
                self._ready.wait(wait_seconds)

    def _begin(self) -> Batch:
        all_idle = self._idle_instances == self._instances
        items = self._queue.take(self._idle_instances, all_threads=all_idle)
        alone = all_idle and not len(self._queue) and items[0].graph.can_use_all_threads
        now = time.monotonic()
        batch = Batch(items, self._instances if alone else 1, now, now + self._queue.batch_seconds(items))
        self._running.append(batch)
        self._idle_instances -= batch.instances
        if self._idle_instances and len(self._queue):
            self._ready.notify()
        return batch

    def _end(self, batch: Batch) -> None:
        with self._ready:
            self._running.remove(batch)
            self._idle_instances += batch.instances
            if batch.instances == 1:
                self._queue.learn(batch.items, batch.times.total_ns / 1e9, whole=batch.is_whole)
            expected_rows = min(sum(item.rows for item in batch.items), self._limits.rows)
            until = time.monotonic() + self._queue.fixed_seconds(batch.items[0])
            self._window = _Window(expected_rows, until)

    def _wait_seconds(self) -> float | None:
        """Say how long an instance waits before it cuts a batch: 0 for not at all, None until it is woken.

        While others work, it waits for what is near, and never longer than a run's fixed cost, which is what sharing a
        run saves: for another instance that is about to end, to share what waits with it; for as many rows as it has
        just answered, since their callers are likely to come back at once. An engine that is idle waits only where the
        operator asked for a delay.
        """
        if not self._idle_instances or not len(self._queue):
            return None
        until, window = 0.0, self._window
        if self._running:
            next_end = min(run.ends for run in self._running)
            if self._queue.rows < window.rows or next_end < window.until:
                until = window.until
        if self._delay_seconds and self._queue.rows < self._limits.rows and not self._closing:
            until = max(until, min(item.arrived for item in self._queue) + self._delay_seconds)
        return max(until - time.monotonic(), 0.0)

    def _drop_expired(self) -> None:
        for item in self._queue.drop_expired(time.monotonic()):
            self._expire(item)


def _compute(items: Sequence[BatchItem], *, all_threads: bool) -> tuple[Sequence[Outcome], BatchTimes]:
    """Run a batch. Should it fail, each request runs alone: only the guilty one fails. All of it takes its time."""
    began_ns = time.perf_counter_ns()
    try:
        return run_batch(items, all_threads=all_threads)
    except Exception:
        _log.exception("a batch of %d requests of %s failed", len(items), items[0].contract.name)
        times = BatchTimes(0, time.perf_counter_ns() - began_ns, 0)
        if len(items) == 1:
            return [InternalFault()], times
    alone = [_compute([item], all_threads=all_threads) for item in items]
    return [outcome for outcomes, _ in alone for outcome in outcomes], sum((own for _, own in alone), times)
