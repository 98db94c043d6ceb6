"""The engine's instances: threads that cut batches from the queue and run them.

An instance that has ended a run takes the next batch by itself: the way through the event loop, which is busy with
answers just then, would leave it idle for a tenth of the time (docs/decisions.md, Scheduling).

Each device has instances of its own. All take from one queue, so a batch goes to whoever is free: of several devices
the one where it is done first. What was on a device that fails is tried once more on another.

Beside the instances there is an express thread: while all of them are busy with long runs of other models, it runs what
is short. The operating system gives a thread that mostly sleeps a core at once, so that a step of half a millisecond
does not wait for a batch of fifty.

What nobody waits for (spare items) has no place in the queue: one begins when nothing waits and nothing runs.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from server.engine.faults import DEVICE_FAILED, DeviceLost, Judge, judge_cpu
from server.errors import DeviceFailed
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Order
from server.scheduling.collate import compute
from server.scheduling.fair_queue import FairQueue
from server.scheduling.places import ANY_ROOM, Place, Places

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
        drop: Callable[[BatchItem], None],
        devices: Sequence[str] = ("CPU",),
        judge: Judge = judge_cpu,
        enter: Callable[[int], None] = lambda device: None,
    ) -> None:
        """Make a dispatcher that has not started; `lost` says why an instance, or the last device, is gone.

        Args:
            limits: A batch's.
            instances: Batches that run at a time on each device.
            delay_seconds: How long the first of a batch that is not full waits for others, though an instance is free.
            finish: Takes what has run; called in an instance's thread.
            drop: Takes a request that cannot be answered in time any more; likewise.
            devices: Their names, in the order in which graphs know them.
            judge: Says whether what a run raised means that its device has failed.
            enter: Called first by each instance, in its thread, with its device's number.
        """
        self._limits, self._judge = limits, judge
        self._delay_seconds = delay_seconds
        self._finish = finish
        self._drop = drop
        self._queue: FairQueue = FairQueue(limits)
        self._spare = deque[BatchItem]()
        self._window = _Window(rows=0, until=0.0)
        self._closing = False
        self.lost = ""
        self._lock = lock = threading.RLock()  # the conditions' own, which is entered without a call of Python
        self.places = Places([Place(name, instances, threading.Condition(lock)) for name in devices])
        self._ready, self._express_ready = self.places[0].ready, threading.Condition(lock)
        self._express = threading.Thread(target=self._work, args=(self._take_express,), name="express", daemon=True)
        self._threads = [
            *(
                threading.Thread(
                    target=self._work,
                    args=(partial(self._take, device), partial(enter, device)),
                    name=f"instance_{device}_{i}",
                    daemon=True,
                )
                for device in range(len(devices))
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
            self._wake_all()
        ends = None if limit_seconds is None else time.monotonic() + limit_seconds
        for thread in self._threads:
            thread.join(None if ends is None else max(ends - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def __len__(self) -> int:
        return self._queue.size

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
        with self._lock:
            self._queue.add(item)
            return self.places.idle > 0 or self._goes_by_express(item)

    def add_spare(self, item: BatchItem) -> None:
        """Keep what nobody waits for until nothing waits and nothing runs; `wake` lets a free instance look."""
        with self._lock:
            self._spare.append(item)

    def remove(self, item: BatchItem) -> bool:
        """Take a request out, its caller having gone; False where it does not wait any more."""
        with self._ready:
            if item in self._spare:
                self._spare.remove(item)
                return True
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
            waiting += self._spare
            self._spare.clear()
            return waiting

    def wait_seconds(self, item: BatchItem, order: Order, *, exactly: bool = False) -> float:
        """Estimate the seconds until a request would be answered if it were queued now; see FairQueue.wait_seconds."""
        with self._lock:
            now, seconds, idle = time.monotonic(), 0.0, self.places.idle
            if self._queue.size or not idle:
                seconds = self._queue.wait_seconds(item, order, exactly=exactly)
                for run in self.places.running:
                    seconds += run.instances * run.left_seconds(now)
                seconds /= self.places.instances or 1
            if item.contract.name in self.places.bounds:
                seconds = max(seconds, self._bounded_seconds(item, order, now, exactly=exactly))
            if not idle and self._goes_by_express(item):
                ahead = sum(run.left_seconds(now) for run in self.places.running if not run.instances)
                ahead += self._queue.seconds_within(self.places.short_seconds, self.places.busy_models)
                seconds = min(seconds, ahead)
            return seconds + self._queue.run_seconds(item)

    def is_free_for(self, item: BatchItem) -> bool:
        """Whether a request would begin at once if it were queued now."""
        with self._lock:
            model, places = item.contract.name, self.places
            is_full = model in places.bounds and not places.room(0).left[model]
            return not self._queue.size and places.idle > 0 and not is_full

    def _bounded_seconds(self, item: BatchItem, order: Order, now: float, *, exactly: bool) -> float:
        """Estimate the seconds until its model's own bound lets a request begin, by that model's runs alone."""
        model = item.contract.name
        waiting = self._queue.wait_seconds(item, order, exactly=exactly, model=model)
        if not waiting and self.places.room(0).left[model]:
            return 0.0
        running = sum(run.left_seconds(now) for run in self.places.running if run.model == model)
        return (running + waiting) / (self.places.instances_of(model) or 1)

    def backlog_seconds(self, *, with_running: bool = False) -> float:
        """Estimate the seconds that all instances need for what waits now, and for what runs where that is counted."""
        with self._ready:
            now, queue, places = time.monotonic(), self._queue, self.places
            runs = places.running if with_running else ()
            running = sum(run.instances * run.left_seconds(now) for run in runs)
            seconds = [(running + queue.backlog_seconds()) / (places.instances or 1)]
            for model in places.bounds:
                own = sum(run.left_seconds(now) for run in runs if run.model == model)
                seconds.append((own + queue.backlog_seconds(model)) / (places.instances_of(model) or 1))
            return max(seconds)

    def wake(self) -> None:
        """Let a free instance look at the queue; it wakes the next if it leaves something."""
        with self._ready:
            if self.places.idle and len(self.places) > 1:
                self.places.wake_first()
            else:
                (self._ready if self.places.idle else self._express_ready).notify()

    def bound(self, model: str, instances: int | None) -> None:
        """Let no more than so many batches of a model run at a time on each device; None for as many as there are."""
        with self._ready:
            self.places.bounds.pop(model, None)
            if instances is not None:
                self.places.bounds[model] = instances
            self._wake_all()

    @property
    def holds_up(self) -> bool:
        """Whether something waits that the run of the current thread holds up."""
        with self._ready:
            if threading.current_thread() is self._express:
                return self._express_is_wanted
            if not self.places.bounds:
                return len(self._queue) > 0
            own = next((run for run in self.places.running if run.thread == threading.get_ident()), None)
            return self._queue.has_next(self.places.room(own.device if own else 0, beside=own).full)

    def running(self) -> list[Batch]:
        """Return the batches that run now."""
        with self._ready:
            return list(self.places.running)

    def _work(self, take: Callable[[], Batch | None], enter: Callable[[], None] = lambda: None) -> None:
        """What an instance does all its life; should it end before its time, the watchdog learns why."""
        try:
            enter()
            self._run_batches(take)
        except BaseException as error:
            _log.critical("an instance of the engine has ended", exc_info=True)
            self.lost = f"an instance of the engine has ended: {error!r}"

    def _run_batches(self, take: Callable[[], Batch | None]) -> None:
        while batch := take():
            try:
                batch.outcomes, batch.times = compute(
                    batch.items, all_threads=batch.instances > 1, device=batch.device, judge=self._judge
                )
            except DeviceLost as error:
                self._lose(batch, error)
            else:
                self._finish(batch)
                self._end(batch)
            del batch  # what waits for the next batch must not keep an unloaded model

    def _take(self, device: int) -> Batch | None:
        """Wait for a batch's time on a device; None where the instance may stop."""
        place = self.places[device]
        with place.ready:
            while place.is_up:
                self._drop_late()
                is_simple = len(self.places) == 1 and not self.places.bounds
                wait_seconds = self._wait_seconds() if is_simple else self._wait_on(device)
                if wait_seconds == 0.0:
                    return self._begin(device)
                if self._closing and not len(self._queue):
                    return None
                if self._spare and not len(self._queue) and not self.places.running:
                    self._queue.add(self._spare.popleft())
                    return self._begin(device)
                place.ready.wait(wait_seconds)
            return None

    def _begin(self, device: int) -> Batch:
        place = self.places[device]
        all_idle, is_one = place.idle == place.instances, len(self.places) == 1
        room = self.places.room(device) if self.places.bounds else ANY_ROOM
        items = self._queue.take(self.places.idle, all_threads=all_idle and is_one, room=room)
        alone = all_idle and not len(self._queue) and self._queue.is_for_all_threads(items)
        alone = alone and not items[0].is_spare  # whoever comes meanwhile finds an instance free
        batch = self._note(items, place.instances if alone else 1, device)
        if (self.places.idle and len(self._queue)) or self._express_is_wanted:
            self.wake()
        return batch

    def _take_express(self) -> Batch | None:
        """Wait for something short that would wait for an instance; None when everything ends."""
        with self._express_ready:
            while not self._closing:
                self._drop_late()
                if items := self._queue.take_within(self.places.short_seconds, self.places.busy_models):
                    return self._note(items, 0, self.places.least_busy())
                self._express_ready.wait()
            return None

    def _note(self, items: Sequence[BatchItem], instances: int, device: int) -> Batch:
        """Take note of a batch that begins now, on so many instances."""
        now = time.monotonic()
        seconds = self._queue.batch_seconds(items, all_threads=instances > 1)
        ends = now + seconds * self.places[device].slowdown
        batch = Batch(items, instances, now, ends, device)
        self.places.begin(batch)
        return batch

    def _goes_by_express(self, item: BatchItem) -> bool:
        seconds = self.places.short_seconds  # none where an instance is free
        return seconds > 0 and self._queue.is_within(item, seconds, self.places.busy_models)

    @property
    def _express_is_wanted(self) -> bool:
        seconds = self.places.short_seconds
        return seconds > 0 and self._queue.has_within(seconds, self.places.busy_models)

    def _end(self, batch: Batch) -> None:
        place = self.places[batch.device]
        with self._ready:
            self.places.end(batch)
            seconds, whole, all_threads = batch.times.total_ns / 1e9, batch.is_whole, batch.instances > 1
            self._queue.learn(batch.items, seconds, whole=whole, all_threads=all_threads)
            # Beside the instances all is slower, and all threads are another kind of run.
            if whole and batch.instances == 1 and len(self.places) > 1:
                place.learn(batch.expected_seconds, seconds)
            if self._closing:
                self._wake_all()
            if not batch.instances:
                if self.places.bounds or self._spare:  # it had its part of a bound, or was the last that ran
                    place.ready.notify()
                return
            if batch.items[0].is_spare:  # nobody comes back for more
                return
            expected_rows = min(sum(item.rows for item in batch.items), self._limits.rows)
            until = time.monotonic() + self._queue.fixed_seconds(batch.items[0])
            self._window = _Window(expected_rows, until)

    def _lose(self, batch: Batch, lost: DeviceLost) -> None:
        """Take a device out of service; what it ran is tried once on another.

        Where that may be what has failed the device, only if a third is left should it fail the other, too.
        """
        with self._ready:
            self.places.end(batch)
            self._take_out(self.places[batch.device], str(lost))
            self._queue.learn(batch.items, 0.0, whole=False)  # its clients have had nothing for it
            needed = 2 if lost.may_be_input else 1
            is_left = sum(place.is_up for place in self.places) >= needed and not self._closing
            wanted = [item for item in batch.items if not (item.was_lost or item.is_given_up or item.is_spare)]
            again = wanted if is_left else []
            for item in again:
                item.was_lost = True
                self._queue.add(item)
            batch.items = [item for item in batch.items if item not in again]
            self.wake()  # whoever was woken for what waits may be among the instances that are gone
        if batch.items:
            batch.outcomes = [DeviceFailed(DEVICE_FAILED) for _ in batch.items]
            self._finish(batch)

    def _take_out(self, place: Place, why: str) -> None:
        if not place.is_up:  # another of its instances has found that
            return
        place.is_up = False
        place.idle = 0
        place.ready.notify_all()
        _log.critical("%s is out of service: %s", place.name, why)
        if not self.places.instances:
            self.lost = f"the last device has failed: {place.name}: {why}"

    def _wake_all(self) -> None:
        self.places.wake_all()
        self._express_ready.notify()

    def _wait_on(self, device: int) -> float | None:
        """As _wait_seconds, for an instance of one of several devices, or where models have bounds."""
        place, full = self.places[device], self.places.room(device).full
        seconds = self._queue.next_seconds(full)
        if not place.idle or seconds is None:
            return None
        wait_seconds = self._wait_seconds()
        is_shared = self._closing or self._queue.rows > self._limits.rows  # more than a faster device would take
        if wait_seconds == 0.0 and not is_shared:
            return self.places.wait_for_faster(place, seconds, time.monotonic())
        return wait_seconds

    def _wait_seconds(self) -> float | None:
        """Say how long an instance waits before it cuts a batch: 0 for not at all, None until it is woken.

        While others work, it waits for what is near, and never longer than a run's fixed cost, which is what sharing a
        run saves: for another instance that is about to end, to share what waits with it; for as many rows as it has
        just answered, since their callers are likely to come back at once. Not where that is half of the time that
        anybody has who waits. An engine that is idle waits only where the operator asked for a delay.
        """
        if not self.places.idle or not len(self._queue):
            return None
        now, until, window = time.monotonic(), 0.0, self._window
        ends = [run.ends for run in self.places.running if run.instances] if now < window.until else ()
        if ends and (self._queue.rows < window.rows or min(ends) < window.until):
            first = min(item.begin_by for item in self._queue)
            if window.until - now <= (first - now) / 2:
                until = window.until
        if self._delay_seconds and self._queue.rows < self._limits.rows and not self._closing:
            until = max(until, min(self._delay_ends(item) for item in self._queue))
        return max(until - now, 0.0)

    def _delay_ends(self, item: BatchItem) -> float:
        """Say until when a request waits for others: half of the time that it has, or it would be dropped for that."""
        return min(item.arrived + self._delay_seconds, (item.arrived + item.begin_by) / 2)

    def _drop_late(self) -> None:
        for item in self._queue.drop_late(time.monotonic()):
            self._drop(item)
            self._express_ready.notify()
