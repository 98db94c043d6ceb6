"""What is short goes beside the instances while they are busy with another model, in simulated time unless told."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import pytest

from artifact.dtypes import Array
from server.auth.clients import Client
from server.context import RpcContext
from server.engine.cost import CostModel
from server.scheduling.admission import Admission
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Runner
from server.scheduling.dispatcher import Dispatcher
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from server.telemetry.timings import BatchTimes
from tests.server.fakes import CONTRACT, Clock, GatedGraph, SumGraph, make_item

LONG, SHORT = SumGraph(CostModel(20.0, 5.0)), SumGraph(CostModel(2.0, 0.25))  # 40 and 3 seconds, of four tokens
QUARTER = 10.0


def make(instances: int = 1, finish: Callable[[Batch], None] = lambda batch: None) -> Dispatcher:
    """A dispatcher that has not started."""
    return Dispatcher(BatchLimits(16, 10**6, 10**9), instances, 0.0, finish, lambda item: None)


def short(graph: Runner = SHORT, model: str = "short", client: str = "", rows: int = 1, weight: float = 1) -> BatchItem:
    """A request of another model than the long one's."""
    item = make_item(graph, rows=rows, context=RpcContext(caller=Client(client, weight=weight)))
    item.contract = CONTRACT.model_copy(update={"name": model})
    return item


def busy(*, instances: int = 1, rows: int = 1) -> Dispatcher:
    """All instances run what is long."""
    dispatcher = make(instances)
    for _ in range(instances):
        dispatcher.add(make_item(LONG, rows=rows))
        dispatcher._begin(0)
    return dispatcher


@pytest.fixture(autouse=True)
def _stand_still(clock: Clock) -> None:
    """In all tests of this file; those with threads do not look at it."""


def test_what_is_short_does_not_wait_for_an_instance() -> None:
    """It has none, and whoever queues it is told to wake somebody."""
    dispatcher, item = busy(), short()
    assert dispatcher.add(item)
    batch = dispatcher._take_express()
    assert batch is not None
    assert (batch.items, batch.instances, batch.expected_seconds) == ([item], 0, 3)
    assert batch in dispatcher.running()
    assert len(dispatcher) == 0


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (short(model=CONTRACT.name), "of the model that runs"),
        (short(SumGraph(CostModel(QUARTER, 0.01))), "a little longer than a quarter of what runs"),
        (short(SumGraph(CostModel(2.0, 0.25)), rows=9), "of many rows"),
    ],
)
def test_everything_else_waits(item: BatchItem, why: str) -> None:
    """More of one model would only share the processors, and what is long would slow everyone."""
    dispatcher = busy()
    assert not dispatcher.add(item), why
    assert not dispatcher._queue.take_within(dispatcher.places.short_seconds, dispatcher.places.busy_models)


def test_the_shortest_run_of_the_instances_says_what_is_short() -> None:
    """Of two, one of forty seconds and one of twelve."""
    dispatcher = busy(instances=2)
    assert dispatcher.places.short_seconds == QUARTER
    dispatcher.places.running[0].ends = dispatcher.places.running[0].started + 12
    assert dispatcher.places.short_seconds == 3
    assert dispatcher.add(short())
    assert not dispatcher.add(short(rows=2))


def test_an_instance_that_is_free_takes_what_is_short() -> None:
    """So that nothing goes by express."""
    dispatcher = make(2)
    dispatcher.add(make_item(LONG))
    dispatcher._begin(0)
    item = short()
    assert dispatcher.add(item)
    assert not dispatcher._goes_by_express(item)
    assert dispatcher._begin(0).items == [item]


def test_a_batch_by_express_stays_short() -> None:
    """Eight rows take ten seconds."""
    dispatcher, items = busy(), [short() for _ in range(12)]
    for item in items:
        dispatcher.add(item)
    batch = dispatcher._take_express()
    assert batch is not None
    assert (batch.items, batch.expected_seconds) == (items[:8], QUARTER)


def test_what_is_short_is_so_at_the_pace_of_late() -> None:
    """A graph that turns out five times slower is not."""
    dispatcher = busy()
    dispatcher._queue._group(short()).slowdown = 5.0
    assert not dispatcher.add(short())


def test_the_client_who_has_had_least_is_first_and_urgency_counts_among_its_own() -> None:
    """As everywhere."""
    dispatcher = busy()
    rich, poor = short(SumGraph(SHORT.cost), client="rich"), short(client="poor")
    for item in (rich, poor):
        dispatcher._queue._share(item).served_seconds = 50.0 if item is rich else 0.0
    usual, urgent = (short(SumGraph(SHORT.cost), client="poor") for _ in range(2))
    urgent.context.priority = 1
    dispatcher._queue._share(urgent).line(dispatcher._queue._group(urgent)).served_seconds = 5.0
    for item in (rich, poor, usual, urgent):
        dispatcher.add(item)
    order = list[BatchItem]()
    while batch := dispatcher._queue.take_within(QUARTER, ()):
        order += batch
    assert order == [urgent, poor, usual, rich]


def test_what_is_out_of_turn_does_not_move_the_clock_by_which_newcomers_begin() -> None:
    """A client who has had much goes by express; one who comes then is not behind those who wait."""
    dispatcher = busy()
    dispatcher._queue._share(short(client="rich")).served_seconds = 1000.0
    dispatcher.add(short(client="rich"))
    assert dispatcher._take_express()
    newcomer = short(client="new")
    dispatcher.add(newcomer)
    assert dispatcher._queue._share(newcomer).served_seconds == 0


def test_its_end_frees_no_instance_and_teaches_how_slow_the_engine_is() -> None:
    """Nor do instances wait for those who were answered to come back."""
    dispatcher = busy()
    dispatcher.add(short())
    batch, window = dispatcher._take_express(), dispatcher._window
    assert batch is not None
    batch.times = BatchTimes(0, 30 * 10**9, 0)
    dispatcher._end(batch)
    assert (dispatcher.places.idle, dispatcher._window) == (0, window)
    assert dispatcher._queue._group(short()).slowdown > 1
    assert batch not in dispatcher.running()


def test_an_instance_waits_to_share_with_others_like_it_alone() -> None:
    """What runs by express and is about to end frees nobody."""
    dispatcher = busy()
    dispatcher.add(short())
    assert dispatcher._take_express()
    long, _ = dispatcher.places.running
    long.times = BatchTimes(0, 40 * 10**9, 0)
    dispatcher._end(long)
    dispatcher.add(make_item(LONG, rows=2))
    assert dispatcher._wait_seconds() == 0


def test_nothing_waits_longer_in_estimates_than_by_express() -> None:
    """A deadline that an instance could not keep is met, also behind others by express, but not behind too many."""
    dispatcher, item = busy(), short()
    assert dispatcher.wait_seconds(item, item.order) == 3
    dispatcher.add(item)
    dispatcher.add(short())
    assert dispatcher.wait_seconds(short(), item.order) == 3 + 3 + (2 + 3)  # its run would have three rows
    assert dispatcher._take_express()
    assert dispatcher.wait_seconds(short(), item.order) == (2 + 2) + 3
    for _ in range(30):
        dispatcher.add(short())
    assert 40 < dispatcher.wait_seconds(short(), item.order) < 30 * 3


def test_what_is_short_goes_before_what_is_long_of_its_own_graph() -> None:
    """Which came first, and waits for an instance."""
    dispatcher, long, item = busy(), short(rows=16), short()
    assert not dispatcher.add(long)
    assert dispatcher.add(item)
    assert dispatcher._queue.take_within(QUARTER, ()) == [item]


def test_a_client_that_has_had_more_than_others_waits_with_them() -> None:
    """By more than a short run takes, of its weight; whoever is before it may hang up."""
    dispatcher, poor = busy(), make_item(LONG, context=RpcContext(caller=Client("poor")))
    dispatcher._queue._share(short(client="rich", weight=0.5)).served_seconds = 2 * QUARTER
    dispatcher.add(poor)
    item = short(client="rich", weight=0.5)
    assert dispatcher.add(item)
    dispatcher._queue._share(item).served_seconds += 0.01
    assert not dispatcher._express_is_wanted
    assert not dispatcher._goes_by_express(item)
    assert dispatcher.remove(item)
    assert dispatcher.wait_seconds(item, item.order) > 40  # before it waits, too
    dispatcher.add(item)
    assert dispatcher.remove(poor)
    assert dispatcher._express_is_wanted


def test_what_no_caller_wants_any_more_does_not_run() -> None:
    """Its deadline has passed while it waited."""
    dispatcher, late, item = busy(), short(), short()
    late.expires = 1.0
    for one in (late, item):
        dispatcher.add(one)
    batch = dispatcher._take_express()
    assert batch is not None
    assert batch.items == [item]


class Asking(GatedGraph):
    """Asks in its run whether it holds others up, until it does."""

    can_use_all_threads = False

    def __init__(self, cost: CostModel) -> None:
        super().__init__(cost)
        self.dispatcher: Dispatcher | None = None
        self.held_up = list[bool]()

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        assert self.dispatcher is not None
        self.held_up.append(self.dispatcher.holds_up)
        found = super().run(inputs, names, all_threads=all_threads)
        self.held_up.append(self.dispatcher.holds_up)
        return found


def test_threads_run_what_is_short_while_the_instance_is_stuck() -> None:
    """A run by express holds up what is short as well, but not what waits for the instance."""
    done = list[list[BatchItem]]()
    ended = threading.Semaphore(0)

    def finish(batch: Batch) -> None:
        done.append(list(batch.items))
        ended.release()

    long, by_express, dispatcher = GatedGraph(LONG.cost), Asking(SHORT.cost), make(1, finish)
    long.can_use_all_threads, by_express.dispatcher = False, dispatcher
    dispatcher.start()
    first, waiting = make_item(long), make_item(long)
    dispatcher.add(first)
    dispatcher.wake()
    assert long.entered.wait(30)
    dispatcher.add(waiting)
    one, two = short(by_express), short(SumGraph(SHORT.cost), model="third")
    assert dispatcher.add(one)
    dispatcher.wake()
    assert by_express.entered.wait(30)
    dispatcher.add(two)
    by_express.gate.set()
    for _ in range(2):
        assert ended.acquire(timeout=30)
    assert done == [[one], [two]]
    assert by_express.held_up == [False, True]
    assert dispatcher.holds_up  # asked by anyone else: the second long one waits
    long.gate.set()
    assert dispatcher.close(30)
    assert done[2:] == [[first], [waiting]]
    assert not dispatcher.lost


def test_an_instance_that_leaves_what_is_short_wakes_the_express() -> None:
    """Both wait for one instance, which takes the long one."""
    long, by_express, dispatcher = GatedGraph(LONG.cost), GatedGraph(SHORT.cost), make()
    long.can_use_all_threads = by_express.can_use_all_threads = False
    dispatcher.start()
    ends = time.monotonic() + 30
    while not (dispatcher._ready._waiters and dispatcher._express_ready._waiters):  # type: ignore[attr-defined]
        assert time.monotonic() < ends
    for item in (make_item(long), short(by_express)):
        dispatcher.add(item)
    dispatcher.wake()
    assert long.entered.wait(30)
    assert by_express.entered.wait(30)
    for graph in (long, by_express):
        graph.gate.set()
    assert dispatcher.close(30)


def test_who_waited_for_another_client_runs_when_that_one_hangs_up() -> None:
    """Though nothing else comes to the queue."""
    long, by_express, dispatcher = GatedGraph(LONG.cost), GatedGraph(SHORT.cost), make()
    long.can_use_all_threads = by_express.can_use_all_threads = False
    dispatcher.start()
    dispatcher.add(make_item(long))
    dispatcher.wake()
    assert long.entered.wait(30)
    poor, item = make_item(long, context=RpcContext(caller=Client("poor"))), short(by_express, client="rich")
    dispatcher._queue._share(item).served_seconds = 1000.0
    dispatcher.add(poor)
    assert not dispatcher.add(item)
    assert dispatcher.remove(poor)
    assert by_express.entered.wait(30)
    for graph in (long, by_express):
        graph.gate.set()
    assert dispatcher.close(30)


async def test_runs_by_express_are_counted_and_answered() -> None:
    """As every other, and as batches beside the instances."""
    metrics, long, by_express = Metrics(), GatedGraph(LONG.cost), SumGraph(SHORT.cost)
    long.can_use_all_threads = False
    scheduler = Scheduler(BatchLimits(4, 1024, 10**9), Admission(64, 10**9, 1000.0), 1, metrics)
    scheduler.start()
    stuck = asyncio.create_task(scheduler.submit(make_item(long)))
    assert await asyncio.to_thread(long.entered.wait, 30)
    result = await scheduler.submit(short(by_express))
    assert result.batch_size == 1
    assert metrics.express_batches.labels("short").value == 1.0
    assert not stuck.done()
    long.gate.set()
    await stuck
    assert metrics.express_batches.labels(CONTRACT.name).value == 0.0
    assert await scheduler.close(30)
