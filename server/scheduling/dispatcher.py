"""The engine's instances: threads that cut batches from the queue and run them.

An instance that has ended a run takes the next batch by itself: the way through the event loop, which is busy with
answers just then, would leave it idle for a tenth of the time (docs/decisions.md, Scheduling).

Beside the instances there is an express thread: while all of them are busy with long runs of other models, it runs what
is short. The operating system gives a thread that mostly sleeps a core at once, so that a step of half a millisecond
does not wait for a batch of fifty.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.scheduling.batch import Batch, BatchItem, BatchLimits, Order
from server.scheduling.collate import compute
from server.scheduling.fair_queue import FairQueue

_log = logging.getLogger(__name__)

_SHORT_SHARE = 0.25  # of the shortest run of an instance, which a run by express takes at most


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
        lock = threading.RLock()
        self._ready, self._express_ready = threading.Condition(lock), threading.Condition(lock)
        self._express = threading.Thread(target=self._work, args=(self._take_express,), name="express", daemon=True)
        self._threads = [
            *(
                threading.Thread(target=self._work, args=(self._take,), name=f"instance_{i}", daemon=True)
                for i in range(instances)
            ),
            self._express,
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
            self._express_ready.notify()
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

    def waiting_of(self, item: BatchItem) -> tuple[int, int]:
        """How many requests of its client wait, and how many bytes their inputs hold."""
        with self._ready:
            return self._queue.waiting_of(item)

    def add(self, item: BatchItem) -> bool:
        """Queue a request; returns whether a thread is free that could run it, which `wake` would let look."""
        with self._ready:
            self._queue.add(item)
            return self._idle_instances > 0 or self._goes_by_express(item)

    def remove(self, item: BatchItem) -> bool:
        """Take a request out, its caller having gone; False where it does not wait any more."""
        with self._ready:
            was_there = self._queue.remove(item)
            if was_there:  # which it may have been fair to wait for
                self._express_ready.notify()
            return was_there

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
            seconds = (running + waiting) / self._instances
            if self._goes_by_express(item):
                ahead = sum(max(run.ends - now, 0.0) for run in self._running if not run.instances)
                ahead += self._queue.seconds_within(self._short_seconds, self._busy_models)
                seconds = min(seconds, ahead)
            return seconds + own_seconds

    def backlog_seconds(self) -> float:
        """Estimate the seconds until everything that waits now has begun."""
        with self._ready:
            return self._queue.backlog_seconds() / self._instances

    def wake(self) -> None:
        """Let a free instance look at the queue; it wakes the next if it leaves something."""
        with self._ready:
            (self._ready if self._idle_instances else self._express_ready).notify()

    @property
    def holds_up(self) -> bool:
        """Whether something waits that the run of the current thread holds up."""
        with self._ready:
            if threading.current_thread() is not self._express:
                return len(self._queue) > 0
            return self._express_is_wanted

    def running(self) -> list[Batch]:
        """Return the batches that run now."""
        with self._ready:
            return list(self._running)

    def _work(self, take: Callable[[], Batch | None]) -> None:
        """What an instance does all its life; should it end before its time, the watchdog learns why."""
        try:
            self._run_batches(take)
        except BaseException as error:
            _log.critical("an instance of the engine has ended", exc_info=True)
            self.lost = f"an instance of the engine has ended: {error!r}"

    def _run_batches(self, take: Callable[[], Batch | None]) -> None:
        while batch := take():
            batch.outcomes, batch.times = compute(batch.items, all_threads=batch.instances > 1)
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
        items = self._queue.take(self._idle_instances, all_threads=all_idle, running=self._running)
        alone = all_idle and not len(self._queue) and items[0].graph.can_use_all_threads
        now = time.monotonic()
        ends = now + self._queue.batch_seconds(items, all_threads=alone)
        batch = Batch(items, self._instances if alone else 1, now, ends)
        self._running.append(batch)
        self._idle_instances -= batch.instances
        if (self._idle_instances and len(self._queue)) or self._express_is_wanted:
            self.wake()
        return batch

    def _take_express(self) -> Batch | None:
        """Wait for something short that would wait for an instance; None when everything ends."""
        with self._express_ready:
            while not self._closing:
                self._drop_expired()
                if items := self._queue.take_within(self._short_seconds, self._busy_models):
                    now = time.monotonic()
                    batch = Batch(items, 0, now, now + self._queue.batch_seconds(items))
                    self._running.append(batch)
                    return batch
                self._express_ready.wait()
            return None

    def _goes_by_express(self, item: BatchItem) -> bool:
        return self._queue.is_within(item, self._short_seconds, self._busy_models)

    @property
    def _express_is_wanted(self) -> bool:
        return self._queue.has_within(self._short_seconds, self._busy_models)

    @property
    def _short_seconds(self) -> float:
        """How long a run by express may take now: no time where an instance is free."""
        runs = [run.expected_seconds for run in self._running if run.instances]
        return 0.0 if self._idle_instances else _SHORT_SHARE * min(runs, default=0.0)

    @property
    def _busy_models(self) -> set[str]:
        """What the instances run; more of the same would only share the processors."""
        return {run.items[0].contract.name for run in self._running if run.instances}

    def _end(self, batch: Batch) -> None:
        with self._ready:
            self._running.remove(batch)
            self._idle_instances += batch.instances
            seconds, all_threads = batch.times.total_ns / 1e9, batch.instances > 1
            self._queue.learn(batch.items, seconds, whole=batch.is_whole, all_threads=all_threads)
            if not batch.instances:
                return
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
        if ends := [run.ends for run in self._running if run.instances]:
            next_end = min(ends)
            if self._queue.rows < window.rows or next_end < window.until:
                until = window.until
        if self._delay_seconds and self._queue.rows < self._limits.rows and not self._closing:
            until = max(until, min(item.arrived for item in self._queue) + self._delay_seconds)
        return max(until - time.monotonic(), 0.0)

    def _drop_expired(self) -> None:
        for item in self._queue.drop_expired(time.monotonic()):
            self._expire(item)
            self._express_ready.notify()
