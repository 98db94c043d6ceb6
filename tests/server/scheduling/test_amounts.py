"""What a scheduler charges, tells and promises, to the number: nothing runs, and its clock stands at 100 s."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import pytest

from server.auth.clients import Client
from server.auth.quota import Quota
from server.context import RpcContext
from server.engine.cost import CostModel
from server.errors import DeadlinePassed, DeviceFailed, InternalFault, ServerError, ShuttingDown, TooBusy
from server.scheduling.admission import Admission
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Order, Outcome, Result
from server.scheduling.dispatcher import Dispatcher
from server.scheduling.estimate import LatencyMargin
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from server.telemetry.timings import BatchTimes
from server.telemetry.tracing import Tracing
from tests.server.fakes import Clock, EchoGraph, make_item

SECOND_NS = 10**9
COST = CostModel(run_seconds=0.5, token_seconds=0.125)  # a row of four tokens: half a second more


class Charges(Quota):
    """Remembers what a client is charged."""

    def __init__(self) -> None:
        super().__init__("client")
        self.told = list[tuple[str, float, float]]()

    def reserve(self, seconds: float, spent_seconds: float = 0.0) -> None:
        """Remember it."""
        self.told.append(("reserve", seconds, spent_seconds))

    def charge(self, reserved_seconds: float, seconds: float) -> None:
        """Likewise."""
        self.told.append(("charge", reserved_seconds, seconds))


class Still:
    """A dispatcher whose instances do nothing."""

    def __init__(self) -> None:
        self.items, self.batches = list[BatchItem](), list[Batch]()
        self.is_idle, self.is_free, self.wakes = True, False, 0
        self.held_bytes, self.seconds, self.exact_seconds, self.backlog = 0, 0.0, 0.0, 0.0

    def __len__(self) -> int:
        return len(self.items)

    def waiting_of(self, item: BatchItem) -> tuple[int, int]:
        """All are of one client."""
        return len(self.items), self.held_bytes

    def add(self, item: BatchItem) -> bool:
        """Queue it."""
        self.items.append(item)
        return self.is_idle

    def remove(self, item: BatchItem) -> bool:
        """Take it out."""
        if item not in self.items:
            return False
        self.items.remove(item)
        return True

    def clear(self) -> list[BatchItem]:
        """Take all out."""
        found, self.items = self.items, []
        return found

    def running(self) -> list[Batch]:
        """Those that were put there."""
        return self.batches

    def wake(self) -> None:
        """Count."""
        self.wakes += 1

    def wait_seconds(self, item: BatchItem, order: Order, *, exactly: bool = False) -> float:
        """What was put there."""
        assert order == item.order
        return self.exact_seconds if exactly else self.seconds

    def is_free_for(self, item: BatchItem) -> bool:
        """Likewise."""
        return self.is_free

    def backlog_seconds(self, *, with_running: bool = False) -> float:
        """Likewise."""
        return self.backlog if with_running else 0.0


class Learned(LatencyMargin):
    """Remembers what it was taught."""

    def __init__(self) -> None:
        super().__init__(10.0)
        self.told = list[tuple[float, float]]()

    def learn(self, answers: Iterable[tuple[float, float]]) -> None:
        """Remember it."""
        self.told += answers


class Traced(Tracing):
    """Remembers batches."""

    def __init__(self) -> None:
        super().__init__()
        self.told = list[tuple[str, int, dict[str, int]]]()

    def batch(self, model: str, rows: int, spans: Sequence[Any], steps: Any) -> None:
        """Remember it."""
        self.told.append((model, rows, dict(steps)))


@pytest.fixture
def still() -> Still:
    """What its instances would be."""
    return Still()


@pytest.fixture
async def scheduler(clock: Clock, still: Still) -> Scheduler:
    """Of three requests and a thousand bytes, whose answers come within ten seconds."""
    assert clock() == 100.0
    limits = BatchLimits(4, 10**6, 10**9)
    scheduler = Scheduler(limits, Admission(3, 1000, 10.0), 1, Metrics(), tracing=Traced())
    assert scheduler._dispatcher._delay_seconds == 0.0
    scheduler._dispatcher = cast("Dispatcher", still)
    scheduler._loop = asyncio.get_running_loop()
    scheduler.margin = Learned()
    return scheduler


def ask(rows: int = 1, *, deadline: float | None = None, reserved: float = 0.0, arrived: float = 0.0) -> BatchItem:
    """A request of a client who is charged."""
    context = RpcContext(caller=Client("client", quota=Charges()), deadline=deadline, decoding_seconds=0.25)
    item = make_item(EchoGraph(COST), rows=rows, context=context)
    item.reserved_seconds, item.arrived, item.estimate_seconds = reserved, arrived, 1.5
    return item


def awaited(item: BatchItem) -> "asyncio.Future[Result]":
    """Wait for a request that was not submitted."""
    item.reply = asyncio.get_running_loop().create_future()
    return item.reply


async def end_of(scheduler: Scheduler, item: BatchItem) -> ServerError:
    """Submit a request and say what became of it; one that is queued ends with the scheduler."""
    asking = asyncio.create_task(scheduler.submit(item))
    await asyncio.sleep(0)
    scheduler.refuse_waiting()
    with pytest.raises(ServerError) as error:
        await asking
    return error.value


def told(item: BatchItem) -> list[tuple[str, float, float]]:
    """What its client was charged."""
    assert isinstance(item.context.caller.quota, Charges)
    return item.context.caller.quota.told


def ran(*items: BatchItem, outcomes: Sequence[Outcome]) -> Batch:
    """A batch that began at 112 s and took four seconds."""
    times = BatchTimes(SECOND_NS, 2 * SECOND_NS, SECOND_NS)
    return Batch(items, 1, started=112.0, ends=113.0, outcomes=outcomes, times=times)


def result(rows: int) -> Result:
    """Of so many rows."""
    return Result({"embedding": np.zeros((rows, 8), np.float32)}, {})


async def test_clients_pay_for_their_rows_and_are_told_how_long_each_step_took(
    scheduler: Scheduler, clock: Clock
) -> None:
    """A row of four seconds and three rows of it; who came after the batch had begun did not wait."""
    one, three = ask(1, reserved=1.0, arrived=110.0), ask(3, reserved=2.0, arrived=115.0)
    replies = awaited(one), awaited(three)
    clock.now = 120.0
    scheduler._finish(ran(one, three, outcomes=(result(1), result(3))))
    assert (told(one), told(three)) == ([("charge", 1.0, 1.0)], [("charge", 2.0, 3.0)])
    first, second = (reply.result() for reply in replies)
    assert (first.queue_ns, first.compute_ns, first.batch_size) == (2 * SECOND_NS, 4 * SECOND_NS, 4)
    assert (second.queue_ns, second.compute_ns, second.batch_size) == (0, 4 * SECOND_NS, 4)
    value = scheduler._metrics.registry.get_sample_value
    assert value("regard_client_compute_seconds_total", {"client": "client"}) == 4.0
    assert isinstance(scheduler._tracing, Traced)
    assert scheduler._tracing.told == [
        ("tiny-text", 4, {"collate": SECOND_NS, "run": 2 * SECOND_NS, "split": SECOND_NS})
    ]


async def test_who_fails_pays_what_was_expected(scheduler: Scheduler) -> None:
    """What it cost those beside it nobody knows; and nothing is learned from it."""
    item = ask(reserved=7.0)
    reply = awaited(item)
    scheduler._finish(ran(item, outcomes=(InternalFault(),)))
    assert told(item) == [("charge", 7.0, 7.0)]
    assert isinstance(reply.exception(), InternalFault)
    assert isinstance(scheduler.margin, Learned)
    await asyncio.sleep(0)
    assert scheduler.margin.told == []


async def test_a_run_that_failed_with_its_device_says_nothing_of_the_event_loop(
    scheduler: Scheduler, clock: Clock
) -> None:
    """It has no times: the minute for which the device hung is not one for which its answers waited."""
    clock.now = 172.0
    scheduler._finish(Batch([ask()], 1, started=112.0, ends=113.0, outcomes=[DeviceFailed("lost")]))
    await asyncio.sleep(0)
    assert scheduler._ways_seconds == 0.0


async def test_an_answer_has_taken_its_ways_through_the_event_loop_too(scheduler: Scheduler, clock: Clock) -> None:
    """The batch ended at 116 s and the loop came to it at 117; whoever waits writes the answer until 119.

    When it came, a request had to wait for the loop as the batch did: a second more than it has seen itself.
    """
    one, three = ask(1, arrived=110.0), ask(3, arrived=115.0)

    async def write(reply: "asyncio.Future[Result]") -> None:
        await reply
        clock.now = 119.0

    writing = [asyncio.create_task(write(awaited(item))) for item in (one, three)]
    await asyncio.sleep(0)
    clock.now = 117.0
    scheduler._finish(ran(one, three, outcomes=(result(1), result(3))))
    await asyncio.gather(*writing)
    assert isinstance(scheduler.margin, Learned)
    assert scheduler.margin.told == [(1.5, 10.0), (1.5, 5.0)]
    assert scheduler._ways_seconds == pytest.approx(0.1 * (1 + 3))


async def test_an_event_loop_that_stood_still_does_not_take_all_that_is_offered(
    scheduler: Scheduler, clock: Clock
) -> None:
    """For a thousand seconds, of ten: half of these count."""
    clock.now = 1116.0
    scheduler._finish(ran(ask(), outcomes=(result(1),)))
    await asyncio.sleep(0)
    assert scheduler._ways_seconds == pytest.approx(0.1 * 5)


async def test_what_is_offered_counts_the_ways_through_the_event_loop(scheduler: Scheduler, still: Still) -> None:
    """An answer that is computed within ten seconds and takes two more to be given comes too late."""
    still.items, item, scheduler._ways_seconds = [ask()], ask(), 2.0
    assert isinstance(await end_of(scheduler, item), ShuttingDown)
    assert item.offered == 108.0


@pytest.mark.parametrize(("backlog", "hint"), [(0.0, 0.01), (1.0, 0.5), (30.0, 10.0)])
async def test_a_hint_is_half_of_what_waits(scheduler: Scheduler, still: Still, backlog: float, hint: float) -> None:
    """No shorter than a hundredth of a second, no longer than ten."""
    still.backlog = backlog
    assert scheduler.suggest_retry() == hint


@pytest.mark.parametrize(
    ("deadline", "expires", "due"), [(None, math.inf, 110.0), (103.0, 103.0, 103.0), (150.0, 150.0, 110.0)]
)
async def test_a_request_is_due_at_its_deadline_or_when_no_later_answer_is_offered(
    scheduler: Scheduler, still: Still, deadline: float | None, expires: float, due: float
) -> None:
    """And is charged what it should take, decoded images apart; who hangs up gets it back."""
    still.seconds = 2.5
    item = ask(rows=2, deadline=deadline)
    asking = asyncio.create_task(scheduler.submit(item))
    await asyncio.sleep(0)
    assert (item.arrived, item.expires, item.due) == (100.0, expires, due)
    assert (item.estimate_seconds, item.reserved_seconds) == (2.5, 1.5)
    asking.cancel()
    await asyncio.wait([asking])
    assert told(item) == [("reserve", 1.5, 0.25), ("charge", 1.5, 0.0)]
    value = scheduler._metrics.registry.get_sample_value
    assert value("regard_dropped_total", {"reason": "cancelled"}) == 1


@pytest.mark.parametrize(("is_idle", "wakes"), [(True, 1), (False, 0)])
async def test_a_free_instance_is_woken_once_a_turn(
    scheduler: Scheduler, still: Still, is_idle: bool, wakes: int
) -> None:
    """When everything that has come in this turn of the event loop is queued."""
    still.is_idle = is_idle
    asking = [asyncio.create_task(scheduler.submit(ask())) for _ in range(2)]
    await asyncio.sleep(0)
    assert (len(still), still.wakes) == (2, 0)
    await asyncio.sleep(0)
    assert still.wakes == wakes
    scheduler.refuse_waiting()
    await asyncio.wait(asking)


@pytest.mark.parametrize(("others", "offered"), [(1, 110.0), (0, math.inf)])
async def test_what_waits_behind_others_is_offered_an_answer_in_time(
    scheduler: Scheduler, still: Still, others: int, offered: float
) -> None:
    """Within ten seconds; who comes when nothing waits is admitted however long it takes."""
    still.items, item = [ask() for _ in range(others)], ask()
    assert isinstance(await end_of(scheduler, item), ShuttingDown)
    assert item.offered == offered


async def test_who_cannot_be_answered_in_time_is_told_what_was_not_kept(scheduler: Scheduler, still: Still) -> None:
    """The own deadline, or what was offered; half of what waits is gone in two seconds."""
    own, ours = ask(reserved=1.0, arrived=90.0), ask(reserved=1.0, arrived=90.0)
    own.expires, ours.expires, own.offered, ours.offered = 98.0, 98.0, 98.5, 98.5
    ours.is_offer_first = True  # in its batch, which takes longer than it does alone
    still.backlog, replies = 4.0, (awaited(own), awaited(ours))
    for item in (own, ours):
        scheduler._drop(item)
    passed, busy = (reply.exception() for reply in replies)
    assert isinstance(passed, DeadlinePassed)
    assert isinstance(busy, TooBusy)
    assert "no answer within 8.5 s, as was offered (the server's --max-queue-seconds)" in str(busy)
    assert (busy.retry_seconds, busy.reason) == (2.0, "seconds")
    assert told(ours) == [("charge", 1.0, 0.0)]
    value = scheduler._metrics.registry.get_sample_value
    assert [value("regard_dropped_total", {"reason": reason}) for reason in ("expired", "late")] == [1, 1]


async def test_what_is_refused_or_has_expired_costs_nothing(scheduler: Scheduler, still: Still) -> None:
    """What was reserved is given back, to the number."""
    waiting, expired, hung = ask(reserved=3.0), ask(reserved=4.0), ask()
    replies = [awaited(item) for item in (waiting, expired, hung)]
    still.items, still.batches = [waiting], [ran(hung, outcomes=())]
    scheduler._drop(expired)
    scheduler.abandon("it hangs")
    assert (told(waiting), told(expired), told(hung)) == ([("charge", 3.0, 0.0)], [("charge", 4.0, 0.0)], [])
    errors = [reply.exception() for reply in replies]
    assert [type(error) for error in errors] == [ShuttingDown, DeadlinePassed, ShuttingDown]
    assert "it hangs" in str(errors[-1])
    assert scheduler._metrics.registry.get_sample_value("regard_dropped_total", {"reason": "expired"}) == 1


@pytest.mark.parametrize(
    ("deadline", "exact", "message"),
    [
        (103.0, 3.0, "the deadline is 3.000 s away and an answer takes 3.000 s"),
        (99.0, 3.0, "the deadline is 0.000 s away and an answer takes 3.000 s"),
        (103.0, 2.9, ""),
        (103.1, 3.0, ""),
    ],
)
async def test_a_deadline_that_cannot_be_met_is_told_with_both_times(
    scheduler: Scheduler, still: Still, deadline: float, exact: float, message: str
) -> None:
    """What is due later is left out where the first estimate is too long."""
    still.seconds, still.exact_seconds = 3.05, exact
    item = ask(deadline=deadline)
    error = await end_of(scheduler, item)
    if message:
        assert str(error) == message
    else:
        assert isinstance(error, ShuttingDown)
        assert item.estimate_seconds == (exact if deadline == 103.0 else 3.05)


@pytest.mark.parametrize(("deadline", "refused"), [(101.0, True), (101.1, False)])
async def test_a_free_engine_that_seems_slow_tries_what_it_once_was_fast_enough_for(
    scheduler: Scheduler, still: Still, deadline: float, refused: bool
) -> None:
    """A second, when it was measured: nothing but runs would ever tell it that it is no longer slow."""
    still.seconds = still.exact_seconds = 50.0
    still.is_free = True
    error = await end_of(scheduler, ask(deadline=deadline))
    assert isinstance(error, DeadlinePassed if refused else ShuttingDown)


@pytest.mark.parametrize(
    ("seconds", "margin", "ways", "others", "refused"),
    [
        (5.0, 5.0, 4.0, 1, False),
        (5.1, 5.0, 4.0, 1, True),
        (5.0, 4.0, 5.0, 1, False),
        (5.1, 4.0, 5.0, 1, True),
        (99.0, 0.0, 0.0, 0, False),
    ],
)
async def test_a_wait_that_is_too_long_is_refused_where_others_wait(
    scheduler: Scheduler, still: Still, seconds: float, margin: float, ways: float, others: int, refused: bool
) -> None:
    """By what estimates have turned out to be; who is admitted could be answered by when that is offered."""
    still.seconds, scheduler.margin.seconds, scheduler._ways_seconds = seconds, margin, ways
    still.items = [ask() for _ in range(others)]
    error = await end_of(scheduler, ask())
    assert isinstance(error, TooBusy if refused else ShuttingDown)
    assert ("would take about 5.1 s" in str(error)) == refused


@pytest.mark.parametrize(
    ("waiting", "held_bytes", "refused"),
    [(2, 0, ""), (3, 0, "3 requests wait"), (1, 1000 - 64, ""), (1, 1001 - 64, "would hold 1001 bytes"), (0, 5000, "")],
)
async def test_a_queue_is_full_of_requests_or_bytes(
    scheduler: Scheduler, still: Still, waiting: int, held_bytes: int, refused: str
) -> None:
    """Three, or a thousand; one alone may hold more."""
    still.items, still.held_bytes = [ask() for _ in range(waiting)], held_bytes
    item = ask()
    assert item.held_bytes == 64
    error = await end_of(scheduler, item)
    assert isinstance(error, TooBusy if refused else ShuttingDown)
    assert refused in str(error)


async def test_parts_of_a_request_are_expected_together_and_charged_one_by_one(
    scheduler: Scheduler, still: Still
) -> None:
    """Six rows are two runs of two seconds: the second is no longer refused."""
    item = ask(rows=6, deadline=105.0)
    still.seconds = still.exact_seconds = 3.0
    with pytest.raises(DeadlinePassed, match=r"5.000 s away and an answer takes 5.000 s"):
        await scheduler.submit(item)
    still.seconds = still.exact_seconds = 2.9
    asking = asyncio.create_task(scheduler.submit(item))
    await asyncio.sleep(0)
    (part,) = still.clear()
    scheduler._finish(ran(part, outcomes=(result(3),)))
    await asyncio.sleep(0)
    (part,) = still.items
    assert part.reserved_seconds == 2.0
    assert told(item)[-1] == ("charge", 0.0, 2.0)
    scheduler.refuse_waiting()
    with pytest.raises(ShuttingDown):
        await asking
