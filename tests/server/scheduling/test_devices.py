"""Several devices behind one queue: who takes what, in simulated time, and what becomes of one that fails."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest

from artifact.dtypes import Array
from server.auth.clients import Client
from server.context import RpcContext
from server.engine.cost import CostModel
from server.engine.faults import DeviceLost, judge_cpu, judge_gpu
from server.errors import DeviceFailed, InternalFault
from server.scheduling.admission import Admission
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Result
from server.scheduling.dispatcher import Dispatcher
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from server.telemetry.timings import BatchTimes
from tests.server.fakes import CONTRACT, Clock, GatedGraph, SumGraph, make_item, value_of

COST = CostModel(run_seconds=8.0, token_seconds=0.5)  # two seconds a row of four tokens
GRAPH, SHORT = SumGraph(COST), SumGraph(CostModel(run_seconds=0.1))
LIMITS = BatchLimits(4, 10**6, 10**9)
MODEL = CONTRACT.name
SECOND_NS = 10**9
ECC = "CUDA failure 214: uncorrectable ECC error encountered ; GPU=1 ; hostname=here"
KERNEL = "CUDA failure 700: an illegal memory access was encountered ; GPU=1 ; hostname=here"
LOST = DeviceLost(ECC)
NO_MEMORY = "CUDA failure 2: out of memory ; GPU=1 ; hostname=here"


class PlacedGraph(SumGraph):
    """Remembers on which devices it ran; some of them fail."""

    def __init__(self, *failing: int, error: str = ECC) -> None:
        super().__init__()
        self.failing, self.devices, self._error = failing, list[int](), error
        self.meet: tuple[threading.Event, ...] = ()  # set by the first run on each device, which waits for the others'

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        self.devices.append(device)
        if self.meet:
            self.meet[device].set()
            assert all(event.wait(30) for event in self.meet)
        if device in self.failing:
            raise RuntimeError(self._error)
        return super().run(inputs, names)


def make(*devices: str, instances: int = 1, limits: BatchLimits = LIMITS) -> Dispatcher:
    """A dispatcher that has not started."""
    return Dispatcher(limits, instances, 0.0, lambda batch: None, lambda item: None, devices)


def add(dispatcher: Dispatcher, *items: BatchItem) -> None:
    """Queue requests, which arrive now."""
    for item in items:
        item.arrived = 100.0
        dispatcher.add(item)


def begin(dispatcher: Dispatcher, device: int, rows: int = 1) -> Batch:
    """Let an instance of a device begin a batch of so many rows."""
    add(dispatcher, make_item(GRAPH, rows=rows))
    return dispatcher._begin(device)


def end(dispatcher: Dispatcher, batch: Batch, seconds: float) -> None:
    """Let it end after so long."""
    batch.times, batch.outcomes = BatchTimes(0, round(seconds * SECOND_NS), 0), [Result({}, {}) for _ in batch.items]
    dispatcher._end(batch)


def woken(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where the names of devices go of which an instance is woken."""
    names = list[str]()
    for place in dispatcher.places:
        for name in ("notify", "notify_all"):
            monkeypatch.setattr(place.ready, name, partial(names.append, place.name))
    return names


def test_each_device_has_instances_of_its_own(clock: Clock) -> None:
    """An instance waits where its own device is busy, though another is free."""
    dispatcher = make("A", "B", instances=2)
    assert dispatcher.places.instances == 4
    batches = [begin(dispatcher, 1), begin(dispatcher, 1)]
    assert [batch.device for batch in batches] == [1, 1]
    add(dispatcher, make_item(GRAPH, rows=4))
    assert dispatcher._wait_on(1) is None
    assert dispatcher._wait_on(0) == 0.0


def test_what_waits_is_shared_among_the_free_instances_of_all_devices(clock: Clock) -> None:
    """Four rows of three free instances: two, then two."""
    dispatcher = make("A", "B", instances=2)
    begin(dispatcher, 0)
    add(dispatcher, *(make_item(GRAPH) for _ in range(4)))
    assert len(dispatcher._begin(1).items) == 2


def test_the_least_busy_device_is_woken(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is done first where none runs beside it; of these, on the faster device."""
    dispatcher = make("A", "B", instances=2)
    names = woken(dispatcher, monkeypatch)
    batch = begin(dispatcher, 0)
    dispatcher.wake()
    begin(dispatcher, 1)
    begin(dispatcher, 1)
    dispatcher.wake()
    assert names == ["B", "A"]
    end(dispatcher, batch, seconds=60)
    names.clear()
    dispatcher.places[1].idle = 2
    dispatcher.wake()
    assert names == ["B"]


def test_what_fails_says_nothing_of_a_devices_pace(clock: Clock) -> None:
    """It may have ended at once."""
    dispatcher = make("A", "B")
    batch = begin(dispatcher, 0)
    batch.times, batch.outcomes = BatchTimes(0, 1, 0), [InternalFault()]
    dispatcher._end(batch)
    assert dispatcher.places[0].slowdown == 1.0


def test_a_slow_device_is_told_by_its_runs(clock: Clock) -> None:
    """Which are expected to take longer there, and not elsewhere."""
    dispatcher = make("A", "B")
    for _ in range(60):
        one, other = begin(dispatcher, 0), begin(dispatcher, 1)
        end(dispatcher, one, 10)
        end(dispatcher, other, 40)
    fast, slow = (begin(dispatcher, device).expected_seconds for device in (0, 1))
    assert fast == pytest.approx(10, rel=0.1)
    assert slow == pytest.approx(40, rel=0.1)


def slow(dispatcher: Dispatcher) -> None:
    """Make the second device three times as slow as the first."""
    dispatcher.places[1].slowdown = 3.0


def test_a_slow_device_leaves_a_batch_to_a_faster_one_that_is_done_first(clock: Clock) -> None:
    """Ten seconds of the fast are thirty of the slow: what ends within twenty is waited for."""
    dispatcher = make("A", "B")
    slow(dispatcher)
    running = begin(dispatcher, 0)
    add(dispatcher, make_item(GRAPH))
    for ends, waits in ((101.0, 1.0), (119.0, 19.0), (120.0, 0.0), (130.0, 0.0), (99.0, 0.0)):
        running.ends = ends
        assert dispatcher._wait_on(1) == waits
    running.ends = 101.0
    dispatcher.places[1].slowdown = 1.4  # which may be chance
    assert dispatcher._wait_on(1) == 0.0


def test_a_slow_device_takes_what_the_faster_one_would_leave(clock: Clock) -> None:
    """More than a batch; and all that is left where the server stops."""
    dispatcher = make("A", "B")
    slow(dispatcher)
    begin(dispatcher, 0).ends = 101.0
    add(dispatcher, *(make_item(GRAPH) for _ in range(4)))
    assert dispatcher._wait_on(1) == 1.0
    add(dispatcher, make_item(GRAPH))
    assert dispatcher._wait_on(1) == 0.0
    dispatcher.clear()
    add(dispatcher, make_item(GRAPH))
    dispatcher._closing = True
    assert dispatcher._wait_on(1) == 0.0


def of_other_model() -> BatchItem:
    """A request of a model without a bound."""
    item = make_item(SumGraph(COST))
    item.contract = CONTRACT.model_copy(update={"name": "other"})
    return item


def test_no_more_batches_of_a_model_run_on_a_device_than_it_may_have(clock: Clock) -> None:
    """Another device, and other models, have theirs; when one has ended, the next begins."""
    dispatcher = make("A", "B", instances=2)
    dispatcher.bound(MODEL, 1)
    first = begin(dispatcher, 0)
    add(dispatcher, make_item(GRAPH))
    assert (dispatcher._wait_on(0), dispatcher._wait_on(1)) == (None, 0.0)
    add(dispatcher, other := of_other_model())
    assert dispatcher._wait_on(0) == 0.0
    assert dispatcher._begin(0).items == [other]
    end(dispatcher, first, 10)
    assert dispatcher._wait_on(0) == 0.0
    dispatcher._begin(0)
    add(dispatcher, make_item(GRAPH))
    assert dispatcher._wait_on(0) is None
    dispatcher.bound(MODEL, None)
    assert not dispatcher.places.bounds


def test_rows_are_shared_among_those_instances_that_a_model_may_have(clock: Clock) -> None:
    """Of two free ones it may have one: all rows are one batch. On a second device it may have another."""
    for devices, rows in ((("A",), 4), (("A", "B"), 2)):
        dispatcher = make(*devices, instances=2)
        dispatcher.bound(MODEL, 1)
        add(dispatcher, *(make_item(GRAPH) for _ in range(4)))
        assert len(dispatcher._begin(0).items) == rows


def test_the_backlog_of_a_model_with_a_bound_is_computed_by_its_part_of_the_instances(clock: Clock) -> None:
    """One of two: what it runs and what waits of it, one after the other; another model's do not count."""
    dispatcher = make("A", instances=2)
    dispatcher.bound(MODEL, 1)
    first = begin(dispatcher, 0)
    add(dispatcher, of_other_model())
    dispatcher._begin(0)
    add(dispatcher, *(make_item(GRAPH) for _ in range(4)), of_other_model())
    clock.now += 1
    waiting = COST.rows_seconds(4, 4) * 1.03
    assert dispatcher.backlog_seconds() == pytest.approx(waiting)
    assert dispatcher.backlog_seconds(with_running=True) == pytest.approx(first.expected_seconds - 1 + waiting)


def test_who_would_begin_at_once_is_known(clock: Clock) -> None:
    """Where an instance is free, nothing waits, and the model has not all that it may have."""
    dispatcher, item, other = make("A", instances=2), make_item(GRAPH), of_other_model()
    dispatcher.bound(MODEL, 1)
    assert dispatcher.is_free_for(item)
    begin(dispatcher, 0)
    assert (dispatcher.is_free_for(item), dispatcher.is_free_for(other)) == (False, True)
    add(dispatcher, of_other_model())
    assert not dispatcher.is_free_for(other)
    dispatcher._begin(0)
    assert not dispatcher.is_free_for(other)


def test_where_a_model_has_a_bound_every_device_is_asked(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least busy may have its part of it already."""
    dispatcher = make("A", "B", instances=2)
    dispatcher.bound(MODEL, 1)
    names = woken(dispatcher, monkeypatch)
    dispatcher.wake()
    assert names == ["A", "B"]


def test_what_is_urgent_of_a_full_model_does_not_hold_up_the_others_of_its_client(clock: Clock) -> None:
    """They are of lower priority, and can be computed."""
    dispatcher = make("A", instances=2)
    dispatcher.bound(MODEL, 1)
    begin(dispatcher, 0)
    other = of_other_model()
    other.context.priority = 3
    add(dispatcher, make_item(GRAPH, priority=1), other)
    assert dispatcher._begin(0).items == [other]


@pytest.mark.parametrize(
    ("message", "may_be_input"),
    [
        (ECC, False),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=0", False),
        (KERNEL, True),
        ("Non-zero status code returned while running Gemm node. CUDA failure 719: unspecified launch failure", True),
        ("CUDA failure 46: all CUDA-capable devices are busy or unavailable ; GPU=0", None),
        ("CUDA failure 999: unknown error ; GPU=0", None),
        (NO_MEMORY, None),
        ("CUDA failure 1: invalid argument ; GPU=0", None),
        ("CUDA failure 7000: what is not there yet", None),
        ("CUBLAS failure 13: the GPU program failed to execute", None),
        ("Failed to allocate memory for requested buffer of size 700", None),
        ("indices element out of data bounds, idx=700 must be within the inclusive range [-60,59]", None),
    ],
)
def test_what_a_run_raises_tells_a_lost_device(message: str, may_be_input: bool | None) -> None:
    """By CUDA's own number, and whether a request may have done it; what is wrong with a single run is none of it."""
    lost = judge_gpu(RuntimeError(message))
    assert (lost and lost.may_be_input) is may_be_input
    assert judge_cpu(RuntimeError(message)) is None


class Served:
    """A scheduler of some devices with one instance each, its metrics, and a graph."""

    def __init__(self, graph: SumGraph, *devices: str) -> None:
        self.graph, self.metrics = graph, Metrics()
        admission = Admission(64, 10**9, 1000.0)
        self.scheduler = Scheduler(LIMITS, admission, 1, self.metrics, devices=devices, judge=judge_gpu)

    async def __aenter__(self) -> "Served":
        self.scheduler.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.scheduler.close(30)

    async def sums(self, count: int) -> list[object]:
        """Ask for so many, one after the other; what cannot be computed is its error."""
        found = list[object]()
        for value in range(count):
            try:
                found.append(value_of(await self.scheduler.submit(make_item(self.graph, value))))
            except (DeviceFailed, InternalFault) as error:
                found.append(type(error))
        return found

    def up(self) -> dict[str, float]:
        """Which devices are in service, by the metric."""
        (family,) = self.metrics.device_up.collect()
        return {sample.labels["device"]: sample.value for sample in family.samples}


async def test_what_ran_on_a_device_that_fails_is_computed_on_another() -> None:
    """Nobody sees it but metrics and log; nothing runs on it any more."""
    graph = PlacedGraph(0)
    async with Served(graph, "CUDA:0", "CUDA:1") as served:
        assert served.up() == {"CUDA:0": 1, "CUDA:1": 1}
        assert await served.sums(5) == [4 * value for value in range(5)]
        assert served.up() == {"CUDA:0": 0, "CUDA:1": 1}
        assert graph.devices.count(0) == 1
        assert served.scheduler.devices_up == [1]
        assert served.metrics.instances.collect()[0].samples[0].value == 1  # type: ignore[index]
        assert not served.scheduler._dispatcher.lost


async def test_without_another_device_callers_are_told_and_the_server_ends() -> None:
    """UNAVAILABLE, and the watchdog says why."""
    async with Served(PlacedGraph(0, 1), "CUDA:0", "CUDA:1") as served:
        assert await served.sums(1) == [DeviceFailed]
        why = await served.scheduler.watch(60.0)
        assert why.startswith("the last device has failed: CUDA:")
        assert ECC in why
        assert served.up() == {"CUDA:0": 0, "CUDA:1": 0}
        served.scheduler.suggest_retry()  # nothing is divided by the instances that are left


async def test_what_has_failed_on_two_devices_is_not_tried_on_a_third() -> None:
    """It may be what fails them."""
    async with Served(PlacedGraph(0, 1), "A", "B", "C") as served:
        assert await served.sums(3) == [DeviceFailed, 4, 8]
        assert served.up() == {"A": 0, "B": 0, "C": 1}


async def test_a_device_without_memory_for_a_run_stays_in_service() -> None:
    """A caller who asks for much would have them all taken out; the request alone fails."""
    async with Served(PlacedGraph(0, 1, error=NO_MEMORY), "A", "B") as served:
        assert await served.sums(3) == [InternalFault] * 3
        assert served.up() == {"A": 1, "B": 1}


def test_what_was_lost_is_charged_once(clock: Clock) -> None:
    """Its client has had nothing for the first time."""
    dispatcher = make("A", "B")
    batch = begin(dispatcher, 0)
    (share,) = dispatcher._queue._shares.values()
    charged = [share.served_seconds]
    dispatcher._lose(batch, LOST)
    charged.append(share.served_seconds)
    dispatcher._begin(1)
    assert [*charged, share.served_seconds] == [10, 0, 10]


def test_a_device_that_fails_counts_no_more_in_what_is_estimated(clock: Clock) -> None:
    """Its instances are gone, and what one of them still runs gives none back."""
    dispatcher = make("A", "B", instances=3)
    one, other = begin(dispatcher, 1), begin(dispatcher, 1)
    lost_items = list(one.items)
    dispatcher._lose(one, LOST)
    assert (dispatcher.places.instances, dispatcher.places.idle, len(dispatcher)) == (3, 3, 1)
    assert not dispatcher.lost
    end(dispatcher, other, 10)
    assert (dispatcher.places.idle, dispatcher.places[1].idle) == (3, 0)
    assert dispatcher._take(1) is None
    again = dispatcher._begin(0)
    assert again.items == lost_items
    assert again.items[0].was_lost


def test_a_server_that_stops_tries_nothing_again(clock: Clock) -> None:
    """The instances of the other device may have ended already."""
    finished = list[Batch]()
    dispatcher = Dispatcher(LIMITS, 1, 0.0, finished.append, lambda item: None, ("A", "B"))
    batch = begin(dispatcher, 1)
    dispatcher._closing = True
    dispatcher._lose(batch, LOST)
    assert [type(outcome) for outcome in finished[0].outcomes] == [DeviceFailed]
    assert len(dispatcher) == 0


def test_what_is_short_runs_beside_the_instances_on_a_device_in_service(clock: Clock) -> None:
    """On the least busy one."""
    dispatcher = make("A", "B", "C")
    for device in range(3):
        begin(dispatcher, device)
    dispatcher._lose(dispatcher.running()[0], LOST)
    dispatcher.clear()
    dispatcher.places[1].slowdown = 2.0
    add(dispatcher, short := of_short_model())
    batch = dispatcher._take_express()
    assert batch
    assert (batch.items, batch.device, batch.instances) == ([short], 2, 0)


def test_instances_that_wait_end_when_their_device_has_failed() -> None:
    """And the server closes without waiting for what will not come."""
    graph, dispatcher = GatedGraph(), make("A", "B", instances=2)
    graph.can_use_all_threads = False
    dispatcher.start()
    dispatcher.add(make_item(graph))
    dispatcher.wake()
    assert graph.entered.wait(30)
    with dispatcher._ready:
        for place in dispatcher.places:
            dispatcher._take_out(place, ECC)
    ends = time.monotonic() + 30
    while sum(thread.name.startswith("instance_") and thread.is_alive() for thread in dispatcher._threads) > 1:
        assert time.monotonic() < ends
    graph.gate.set()
    assert dispatcher.close(30)


async def test_many_callers_beside_a_device_that_fails_are_all_answered() -> None:
    """While both work; what ran there is tried there once."""
    graph = PlacedGraph(1)
    graph.meet = threading.Event(), threading.Event()
    async with Served(graph, "A", "B") as served:
        calls = [asyncio.create_task(served.scheduler.submit(make_item(graph, value))) for value in range(40)]
        results = await asyncio.gather(*calls)
        assert [value_of(result) for result in results] == [4 * value for value in range(40)]
        assert served.up() == {"A": 1, "B": 0}
    assert graph.devices.count(1) == 1


async def test_what_a_request_may_have_done_is_tried_again_only_where_a_device_would_be_left() -> None:
    """One request cannot take the last two together, with all that runs there."""
    async with Served(PlacedGraph(0, 1, error=KERNEL), "A", "B") as served:
        assert await served.sums(1) == [DeviceFailed]
        assert sum(served.up().values()) == 1
    async with Served(PlacedGraph(0, error=KERNEL), "A", "B", "C") as served:
        assert await served.sums(2) == [0, 4]
        assert served.up() == {"A": 0, "B": 1, "C": 1}


@pytest.mark.parametrize("priority", [1, 3])
def test_what_was_lost_is_tried_again_alone(clock: Clock, priority: int) -> None:
    """The guilty one has no company that it could take along, be that before or behind it."""
    dispatcher = make("A", "B", "C")
    add(dispatcher, *(make_item(GRAPH) for _ in range(4)))
    dispatcher.places[1].idle = dispatcher.places[2].idle = 0
    batch = dispatcher._begin(0)
    assert len(batch.items) == 4
    dispatcher._lose(batch, DeviceLost(KERNEL, may_be_input=True))
    add(dispatcher, *(make_item(GRAPH, priority=priority) for _ in range(2)))
    assert len(dispatcher) == 6
    sizes = list[int]()
    while len(dispatcher):
        dispatcher.places[1].idle = 1
        sizes.append(len(again := dispatcher._begin(1).items))
        assert any(item.was_lost for item in again) == (len(again) == 1)
    assert sorted(sizes) == [1, 1, 1, 1, 2]


def test_who_was_woken_on_a_device_that_fails_leaves_what_waits_to_others(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing of what has failed is tried again."""
    dispatcher = make("A", "B", "C", instances=2)
    batch = begin(dispatcher, 0)
    batch.items[0].was_lost = True
    add(dispatcher, make_item(GRAPH))
    names = woken(dispatcher, monkeypatch)
    dispatcher._lose(batch, LOST)
    assert names == ["A", "B"]


async def test_a_message_that_reads_like_cudas_takes_no_cpu_out() -> None:
    """ONNX Runtime names the node that failed, and whoever made the model has named that."""
    graph = PlacedGraph(0)
    scheduler = Scheduler(LIMITS, Admission(64, 10**9, 1000.0), 1, Metrics())
    scheduler.start()
    with pytest.raises(InternalFault):
        await scheduler.submit(make_item(graph))
    assert scheduler.devices_up == [0]
    assert await scheduler.close(30)


def of_short_model() -> BatchItem:
    """A request that goes by express."""
    return replace(of_other_model(), graph=SHORT)


def test_a_run_by_express_teaches_nothing_of_its_device(clock: Clock) -> None:
    """It is expected to take what runs there take, and takes longer beside others."""
    dispatcher = make("A", "B")
    for place in dispatcher.places:
        place.slowdown = 3.0
        begin(dispatcher, dispatcher.places.index(place))
    add(dispatcher, of_short_model())
    batch = dispatcher._take_express()
    assert batch
    assert batch.expected_seconds == pytest.approx(0.3)
    end(dispatcher, batch, seconds=1)
    assert [place.slowdown for place in dispatcher.places] == [3.0, 3.0]


def test_what_waits_for_a_run_by_express_begins_when_that_ends(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all that its model may have, and an instance has become free meanwhile."""
    dispatcher = make("A")
    dispatcher.bound("other", 1)
    long = begin(dispatcher, 0)
    add(dispatcher, of_short_model())
    by_express = dispatcher._take_express()
    assert by_express
    end(dispatcher, long, 10)
    add(dispatcher, of_short_model())
    assert dispatcher._wait_on(0) is None
    names = woken(dispatcher, monkeypatch)
    end(dispatcher, by_express, 0.1)
    assert names == ["A"]
    assert dispatcher._wait_on(0) == 0.0


@pytest.mark.parametrize(("devices", "seconds"), [("A", 10 + 10), ("AB", 10)])
def test_who_waits_for_a_bounded_model_is_told_how_long(clock: Clock, devices: str, seconds: float) -> None:
    """One more may begin on the second device; behind seven more, full ones, it is their number that counts."""
    dispatcher = make(*devices, instances=4)
    dispatcher.bound(MODEL, 1)
    begin(dispatcher, 0)
    item = make_item(GRAPH)
    assert dispatcher.wait_seconds(item, item.order) == seconds
    other = of_other_model()
    assert dispatcher.wait_seconds(other, other.order) == 10
    add(dispatcher, *(make_item(GRAPH, rows=4) for _ in range(7)))
    waiting = 7 * 8 * 1.03  # rows, and the part of them that estimates take for what is fixed of a run
    assert dispatcher.wait_seconds(item, item.order) == pytest.approx((10 + waiting) / len(devices) + 16)


def test_other_models_do_not_count_in_a_bounded_ones_runs(clock: Clock) -> None:
    """Of its own client or another: it is shared among all instances, as ever."""
    dispatcher, item = make("A", instances=4), make_item(GRAPH)
    dispatcher.bound(MODEL, 1)
    begin(dispatcher, 0)
    add(dispatcher, of_other_model())
    dispatcher._begin(0)
    others = [replace(of_other_model(), context=client("other")) for _ in range(2)]
    others += [of_other_model() for _ in range(2)]
    add(dispatcher, make_item(GRAPH), *others)
    assert dispatcher.wait_seconds(item, item.order) == pytest.approx(10 + 2 * 1.03 + 12)


def test_only_what_could_begin_in_its_place_is_held_up_by_a_run(clock: Clock) -> None:
    """Not what waits since another run has all that its model may have."""
    dispatcher = make("A", instances=2)
    dispatcher.bound(MODEL, 1)
    full = begin(dispatcher, 0)
    full.thread = 0
    add(dispatcher, make_item(GRAPH))
    assert not dispatcher.holds_up
    add(dispatcher, of_other_model())
    own = dispatcher._begin(0)
    assert own.items[0].contract.name == "other"
    assert not dispatcher.holds_up
    full.thread, own.thread = own.thread, 0
    assert dispatcher.holds_up  # its own model's next
    full.thread, own.thread = own.thread, full.thread
    add(dispatcher, of_other_model())
    assert dispatcher.holds_up


def test_how_long_a_slow_device_waits_is_told_by_what_it_would_take(clock: Clock) -> None:
    """The request of the client who has had least, not of whoever came first."""
    dispatcher = make("A", "B")
    rich, poor = make_item(GRAPH, context=client("rich")), make_item(SHORT, context=client("poor"))
    dispatcher._queue._share(rich).served_seconds = 100.0
    add(dispatcher, rich, poor)
    assert dispatcher._queue.next_seconds(()) == 0.1
    assert dispatcher._begin(0).items == [poor]
    assert dispatcher._queue.next_seconds(()) == 10


def client(name: str) -> RpcContext:
    """A request's context."""
    return RpcContext(caller=Client(name))
