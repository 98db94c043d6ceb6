"""Admits requests, waits for the instances to compute them, and answers.

It is work-conserving: a free instance starts at once with what is queued, and nobody waits on a timer unless the
operator asks for a delay. A request whose caller hung up, or whose deadline passed, is never computed.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn, TypeVar

from server.engine.faults import Judge, judge_cpu
from server.errors import (
    DeadlinePassed,
    DeviceFailed,
    InternalFault,
    InvalidInput,
    Reason,
    ServerError,
    ShuttingDown,
    TooBusy,
)
from server.ledger import has_room
from server.scheduling.admission import Admission
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Load, Result, SpareItem, resolve
from server.scheduling.cutting import PartialResult, cut
from server.scheduling.dispatcher import Dispatcher
from server.scheduling.estimate import MAX_SHARE, LatencyMargin
from server.scheduling.grouping import Each, Runs
from server.scheduling.places import Place
from server.scheduling.watchdog import watch_engine
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing

_RETRY_SECONDS = (0.01, 10.0)  # shortest and longest hint
_NEWEST_SHARE = 0.1  # how much the newest batch tells of how long the event loop takes
_FULL_SHARE = 0.5  # of what waits should be gone when those who were refused come back

Reply = asyncio.Future[Result]
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Scheduler:
    """The way to the engine and back; lives in the event loop."""

    def __init__(
        self,
        limits: BatchLimits,
        admission: Admission,
        instances: int,
        metrics: Metrics,
        delay_seconds: float = 0.0,
        tracing: Tracing | None = None,
        devices: Sequence[str] = ("CPU",),
        judge: Judge = judge_cpu,
        enter: Callable[[int], None] = lambda device: None,
    ) -> None:
        """Make a scheduler that has not started.

        Args:
            limits: A batch's.
            admission: What may wait.
            instances: Batches that run at a time on each device.
            metrics: Where everything is counted.
            delay_seconds: How long the first of a batch that is not full waits for others, though an instance is free.
            tracing: Where batches are traced; None for nowhere.
            devices: Their names, in the order in which graphs know them.
            judge: Says whether what a run raised means that its device has failed.
            enter: Called first by each instance, in its thread, with its device's number.
        """
        self._tracing = tracing or Tracing()
        self._limits, self._admission = limits, admission
        self._metrics = metrics
        tell = self._finish_soon, self._drop_soon
        dispatcher = Dispatcher(limits, instances, delay_seconds, *tell, devices, judge, enter)
        metrics.instances.set_function(lambda: float(dispatcher.places.instances))
        for place in dispatcher.places:
            metrics.device_up.labels(place.name).set_function(partial(_up, place))
        self._dispatcher = dispatcher
        self._soon: asyncio.Handle | None = None
        self.margin = LatencyMargin(admission.seconds)
        self._ways_seconds = 0.0  # of a request through the event loop, both
        self._refusing = False

    def start(self) -> None:
        """Begin to work; must be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._metrics.queue_depth.set_function(lambda: float(len(self._dispatcher)))
        self._metrics.queue_bytes.set_function(lambda: float(self._dispatcher.held_bytes))
        self._metrics.queue_seconds.set_function(self.queue_seconds)
        self._metrics.instances_busy.set_function(lambda: float(sum(map(_is_on_instance, self._dispatcher.running()))))
        self._dispatcher.start()

    async def submit(self, item: BatchItem) -> Result:
        """Queue a request and wait for its result.

        Args:
            item: What to compute; its context says for whom, by when and before whom.

        Raises:
            InvalidInput: A single row of it would take too long.
            TooBusy: Too many requests, bytes or seconds are in the queue, or the client's quota is used.
            DeadlinePassed: The deadline cannot be met, or passed in the queue.
            ShuttingDown: The server stopped before its turn came.
            DeviceFailed: The device failed on which it ran, and so did the next, or there is none.
            InternalFault: The engine failed on this very request.
        """
        outcome = "computed"
        self._metrics.submitted.value += 1
        try:
            first, *others = cut(item, self._limits)
            if first.alone_seconds > self._admission.row_seconds:
                self._check_row(first)
            if others:
                return await self._compute_parts(item, first, others)
            return await self._admit(item)
        except asyncio.CancelledError:
            outcome = "cancelled"
            self._leave(item)
            raise
        except ServerError as error:
            outcome = error.code.name.lower()
            raise
        finally:
            self._metrics.outcomes.of[outcome,].value += 1

    async def submit_all(self, items: Sequence[BatchItem], later_rows: int = 0, *, goes_on: bool = False) -> list[Each]:
        """As submit, for inputs of one call, an error each; rows that come when it `goes_on` are admitted with them."""
        return await self._count(partial(self._compute_all, later_rows=later_rows, goes_on=goes_on), items)

    async def take_turn(self, item: BatchItem) -> Result:
        """As submit, for work of requests that were admitted before: it is not refused for what else waits."""
        return await self._count(self._compute_on, item)

    async def compute_spare(self, item: SpareItem) -> Result:
        """Compute what no caller waits for once nothing waits and nothing runs, however long that takes.

        Raises:
            InvalidInput: It would take too long.
            ShuttingDown: The server stopped before.
            DeviceFailed: The device failed on which it ran.
            InternalFault: The engine failed on it.
        """
        self._arrive(item)
        self._check_row(item)
        item.reply = self._loop.create_future()
        self._dispatcher.add_spare(item)
        self._dispatcher.wake()
        try:
            return await item.reply
        finally:
            self._dispatcher.remove(item)

    @property
    def max_wait_seconds(self) -> float:
        """The longest wait that is offered."""
        return self._admission.seconds

    @property
    def is_wanted(self) -> bool:
        """Whether anything waits that the run of the current thread holds up."""
        return self._dispatcher.holds_up

    @property
    def instances(self) -> int:
        """Batches that may run at a time, on all devices in service."""
        return self._dispatcher.places.instances

    def queue_seconds(self) -> float:
        """Estimate the seconds of work that wait, shared among the instances; none while nothing waits."""
        return self._dispatcher.backlog_seconds()

    def running_seconds(self) -> float:
        """Say for how long all batches together have run that run now on instances."""
        now = time.monotonic()
        return sum(now - batch.started for batch in self._dispatcher.running() if _is_on_instance(batch))

    @property
    def devices_up(self) -> list[int]:
        """Which devices are in service, by their numbers."""
        return [device for device, place in enumerate(self._dispatcher.places) if place.is_up]

    def bound_model(self, name: str, instances: int | None) -> None:
        """Let no more than so many batches of a model run at a time on each device; None for no bound of its own."""
        self._dispatcher.bound(name, instances)

    def suggest_retry(self) -> float:
        """Say in how many seconds a request that was refused has a chance: when half of what waits and runs is done."""
        shortest, longest = _RETRY_SECONDS
        return min(max(self._dispatcher.backlog_seconds(with_running=True) * _FULL_SHARE, shortest), longest)

    def refuse_waiting(self) -> None:
        """Answer everything that waits with ShuttingDown, and everything that comes."""
        self._refusing = True
        for item in self._dispatcher.clear():
            item.charge(0.0)
            resolve(item.reply, ShuttingDown("the server is stopping"))

    async def watch(self, limit_seconds: float) -> str:
        """Wait until the engine hangs or has died; returns what happened. See watch_engine."""
        return await watch_engine(self._dispatcher, limit_seconds)

    def abandon(self, why: str) -> None:
        """Give up what waits and what runs: answer all of it with ShuttingDown, and everything that comes."""
        running = [item for batch in self._dispatcher.running() for item in batch.items]
        self.refuse_waiting()
        for item in running:
            resolve(item.reply, ShuttingDown(why))

    async def close(self, limit_seconds: float | None = None) -> bool:
        """Refuse what waits, let the running batches end, and stop the threads; returns whether all have ended.

        Args:
            limit_seconds: How long that may take; None for as long as it does.
        """
        self.refuse_waiting()
        return await asyncio.to_thread(self._dispatcher.close, limit_seconds)

    async def _count(self, compute: Callable[[Asked], Awaitable[Answer]], asked: Asked) -> Answer:
        outcome = "computed"
        self._metrics.submitted.value += 1
        try:
            return await compute(asked)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except ServerError as error:
            outcome = error.code.name.lower()
            raise
        finally:
            self._metrics.outcomes.of[outcome,].value += 1

    async def _compute_parts(self, item: BatchItem, first: BatchItem, others: Sequence[BatchItem]) -> Result:
        """Compute a request in several runs, where it needs more than one should have; others go between them."""
        self._metrics.cut.inc()
        partial = PartialResult(item)
        later_seconds = sum(part.alone_seconds for part in others)
        self._admit(first, later_seconds)
        partial.add(first.rows, await self._wait(first))
        for part in others:
            self._go_on(part)
            partial.add(part.rows, await self._wait(part))
        return partial.whole()

    async def _compute_all(self, items: Sequence[BatchItem], later_rows: int, *, goes_on: bool) -> list[Each]:
        """Compute inputs in runs of similar lengths, as many at a time as there are instances; others go between."""
        instances = self._dispatcher.places.instances or 1
        runs = Runs(items, self._limits, instances, later_rows, self._check_row)
        waiting = deque[tuple[list[int], BatchItem]]()
        if runs.count > 1:
            self._metrics.cut.inc()
        enter: Callable[[BatchItem, float], Reply] = self._go_on if goes_on else self._admit
        try:
            while runs.count or waiting:
                while runs.count and len(waiting) < instances:
                    numbers, part = runs.take()
                    enter(part, runs.seconds / instances)
                    waiting.append((numbers, part))
                    enter = self._go_on
                numbers, part = waiting.popleft()
                try:
                    runs.succeed(numbers, await self._wait(part))
                except (InternalFault, DeviceFailed) as error:
                    runs.fail(numbers, error)
        finally:
            for _, part in waiting:
                self._leave(part)
        return runs.outcomes

    async def _compute_on(self, item: BatchItem) -> Result:
        self._go_on(item)
        return await self._wait(item)

    def _check_row(self, item: BatchItem) -> None:
        seconds, most = item.alone_seconds, self._admission.row_seconds
        if item.rows == 1 and seconds > most:
            what = f"a row of {item.length} positions takes about {seconds:.0f} s of the engine"
            raise InvalidInput("inputs", what, f"at most {most:g} s (the server's --watchdog-seconds)")

    def _admit(self, item: BatchItem, later_seconds: float = 0.0) -> Reply:
        """Queue a request, or refuse at once what cannot be served in time; returns its reply.

        Args:
            item: The request, or its first part.
            later_seconds: What its further parts take.
        """
        self._arrive(item)
        self._check_room(item)
        item.estimate_seconds = self._estimate(item, later_seconds)
        if len(self._dispatcher):  # else it was admitted however long it takes
            item.offered = item.arrived + self._admission.seconds - later_seconds - self._ways_seconds
        item.reserved_seconds = item.alone_seconds
        item.context.caller.quota.reserve(item.reserved_seconds, item.context.decoding_seconds)
        return self._queue(item)

    def _go_on(self, part: BatchItem, _later_seconds: float = 0.0) -> Reply:
        """Queue a further part of a request that was admitted, behind what has come meanwhile."""
        self._arrive(part)
        part.reserved_seconds = part.alone_seconds
        part.context.caller.quota.charge(0.0, part.reserved_seconds)
        return self._queue(part)

    def _arrive(self, item: BatchItem) -> None:
        if self._refusing:
            raise ShuttingDown("the server is stopping")
        deadline, now = item.context.deadline, time.monotonic()
        item.arrived, item.expires = now, math.inf if deadline is None else deadline
        item.due = min(item.expires, now + self._admission.seconds)

    def _queue(self, item: BatchItem) -> Reply:
        item.reply = reply = self._loop.create_future()
        if self._dispatcher.add(item) and self._soon is None:
            # Once everything that has arrived in this turn of the event loop is queued.
            self._soon = self._loop.call_soon(self._wake)
        return reply

    def _check_room(self, item: BatchItem) -> None:
        """Refuse what there is no room for; one client's requests leave some to the others."""
        waiting, held_bytes = len(self._dispatcher), self._dispatcher.held_bytes + item.held_bytes
        limit, limit_bytes = self._admission.requests, self._admission.input_bytes
        if waiting < limit and held_bytes <= limit_bytes:  # enough even for one who has it all
            return
        own, own_bytes = self._dispatcher.waiting_of(item)
        own_bytes += item.held_bytes
        if not has_room(own + 1, waiting + 1, limit):
            which = f"{waiting} requests wait, {own} of them this client's"
            self._refuse(f"{which}; one alone may have {limit} (the server's --max-queue-size)", "requests")
        if waiting and not has_room(own_bytes, held_bytes, limit_bytes):
            which = f"its inputs would hold {held_bytes} bytes, {own_bytes} of them this client's"
            self._refuse(f"{which}; one alone may have {limit_bytes} (the server's --max-queue-bytes)", "bytes")

    def _estimate(self, item: BatchItem, later_seconds: float) -> float:
        """Say in how many seconds this part's answer is expected, or refuse where the whole would be too late."""
        wanted = item.expires - item.arrived - later_seconds
        seconds = self._dispatcher.wait_seconds(item, item.order)
        if seconds >= wanted:
            seconds = self._dispatcher.wait_seconds(item, item.order, exactly=True)
            # By what was measured at load, a free engine tries: how slow it is now, it learns of nothing but runs.
            if seconds >= wanted and (item.alone_seconds >= wanted or not self._dispatcher.is_free_for(item)):
                left, takes = max(item.expires - item.arrived, 0.0), seconds + later_seconds
                raise DeadlinePassed(f"the deadline is {left:.3f} s away and an answer takes {takes:.3f} s")
        whole = seconds + later_seconds
        margin = max(self.margin.seconds, self._ways_seconds)  # or it would be dropped, in time as it is
        if whole + margin > self._admission.seconds and len(self._dispatcher):
            self._refuse(f"an answer would take about {whole:.1f} s (the server's --max-queue-seconds)", "seconds")
        return seconds

    def _refuse(self, what: str, reason: Reason) -> NoReturn:
        raise TooBusy(f"the queue is full: {what}; retry later", self.suggest_retry(), reason)

    async def _wait(self, item: BatchItem) -> Result:
        assert item.reply is not None  # noqa: S101 -- made when it was admitted
        try:
            return await item.reply
        except asyncio.CancelledError:  # whatever else ends it, it does not wait any more
            self._leave(item)
            raise

    def _leave(self, item: BatchItem) -> None:
        """Nobody waits for a request any more: it is not computed, unless it runs or has."""
        if item.reply is not None:
            item.reply.cancel()
        if self._dispatcher.remove(item):  # the caller hung up while it waited
            item.charge(0.0)
            self._metrics.dropped.labels("cancelled").inc()

    def _wake(self) -> None:
        self._soon = None
        self._dispatcher.wake()

    def _finish_soon(self, batch: Batch) -> None:
        """Called by an instance."""
        self._loop.call_soon_threadsafe(self._finish, batch)

    def _drop_soon(self, item: BatchItem) -> None:
        """Called by an instance."""
        self._loop.call_soon_threadsafe(self._drop, item)

    def _finish(self, batch: Batch) -> None:
        load, compute_ns = Load.of(batch.items), batch.times.total_ns
        for item, outcome in zip(batch.items, batch.outcomes, strict=True):
            if isinstance(outcome, Result):
                self._account(item, outcome, batch.started, compute_ns, load.rows)
            elif isinstance(outcome, DeviceFailed):
                item.charge(0.0)
            else:
                item.charge(item.reserved_seconds)  # for what it cost those beside it, nobody knows
            resolve(item.reply, outcome)
        if isinstance(batch.outcomes[0], DeviceFailed):  # then all are, and nobody knows when it ended
            return
        self._observe(batch, load)
        # Behind those who wait, so that their answers are handed to gRPC by then.
        ended = batch.started + batch.times.total_ns / 1e9
        self._loop.call_soon(self._learn, batch, ended, max(time.monotonic() - ended, 0.0))

    def _learn(self, batch: Batch, ended: float, lag_seconds: float) -> None:
        """Compare what answers took with what was expected.

        Args:
            batch: All of whose answers were handed to gRPC.
            ended: When its run did, on time.monotonic(), in seconds.
            lag_seconds: How long it waited for the event loop, which its requests had to do as well when they came.
        """
        now, items = time.monotonic(), zip(batch.items, batch.outcomes, strict=True)
        computed = (item for item, outcome in items if isinstance(outcome, Result))
        self.margin.learn((item.estimate_seconds, lag_seconds + now - item.arrived) for item in computed)
        newest = min(lag_seconds + now - ended, self._admission.seconds * MAX_SHARE)
        self._ways_seconds += _NEWEST_SHARE * (newest - self._ways_seconds)

    def _account(self, item: BatchItem, result: Result, started: float, compute_ns: int, rows: int) -> None:
        """Charge a caller its share of a batch, and tell in the result how long it took."""
        seconds = compute_ns / 1e9 * item.rows / rows
        item.charge(seconds)
        for client, own_seconds in item.bill(seconds):
            self._metrics.client_seconds.of[client.name,].value += own_seconds
        result.queue_ns = max(round((started - item.arrived) * 1e9), 0)
        result.compute_ns, result.batch_size = compute_ns, rows

    def _observe(self, batch: Batch, load: Load) -> None:
        first, times = batch.items[0], batch.times
        name, version = first.contract.name, str(first.contract.version)
        self._metrics.observe_batch(
            name, version, first.graph_kind, rows=load.rows, padding_share=load.padding_share, times=times
        )
        if not batch.instances:
            self._metrics.express_batches.labels(name).inc()
        steps = {"collate": times.collate_ns, "run": times.run_ns, "split": times.split_ns}
        self._tracing.batch(name, load.rows, [item.context.span for item in batch.items], steps)

    def _drop(self, item: BatchItem) -> None:
        """Tell whoever waits that it cannot be answered in time any more: what it wants, or what it was offered."""
        item.charge(0.0)
        if not item.is_offer_first:
            self._metrics.dropped.labels("expired").inc()
            too_late = "the deadline passed while the request waited, or would while it is computed"
            resolve(item.reply, DeadlinePassed(too_late))
            return
        self._metrics.dropped.labels("late").inc()
        why = f"no answer within {item.offered - item.arrived:.1f} s, as was offered (the server's --max-queue-seconds)"
        what = f"the queue is slower than expected: {why}; retry later"
        resolve(item.reply, TooBusy(what, self.suggest_retry(), "seconds"))


def _up(place: Place) -> float:
    return float(place.is_up)


def _is_on_instance(batch: Batch) -> bool:
    """Whether an instance runs a batch, and not the express thread; with the threads of all it is one all the same."""
    return batch.instances > 0
