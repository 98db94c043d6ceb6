"""What nobody waits for is computed while nothing waits and nothing runs, and holds nobody up."""

import asyncio
import time
from collections.abc import Callable

import pytest

from server.engine.cost import CostModel
from server.engine.faults import DeviceLost
from server.errors import DeviceFailed, InternalFault, InvalidInput, ShuttingDown
from server.scheduling.admission import Admission
from server.scheduling.batch import Batch, BatchLimits, SpareItem
from server.scheduling.dispatcher import Dispatcher
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from server.telemetry.timings import BatchTimes
from tests.server.fakes import CONTRACT, POISON, GatedGraph, SumGraph, make_item, occupy, scheduling, value_of


class _Waits(Exception):
    """An instance found nothing to do."""


def spare(graph: SumGraph, value: int = 9) -> SpareItem:
    """One row."""
    like = make_item(graph, value)
    return SpareItem(graph, CONTRACT, like.inputs, 1, like.length, like.outputs)


def make(
    instances: int = 1,
    devices: tuple[str, ...] = ("CPU",),
    finish: Callable[[Batch], None] = lambda batch: None,
    delay_seconds: float = 0.0,
) -> Dispatcher:
    """A dispatcher that has not started; an instance that would wait says so."""

    def wait(timeout: float | None = None) -> bool:
        del timeout
        raise _Waits

    dispatcher = Dispatcher(BatchLimits(16, 10**6, 10**9), instances, delay_seconds, finish, lambda item: None, devices)
    for place in dispatcher.places:
        place.ready.wait = wait  # type: ignore[method-assign]
    return dispatcher


def take(dispatcher: Dispatcher, device: int = 0) -> Batch | None:
    """What an instance begins now; None where it would wait."""
    try:
        return dispatcher._take(device)
    except _Waits:
        return None


def end(dispatcher: Dispatcher, batch: Batch) -> None:
    """Let it end."""
    batch.times, batch.outcomes = BatchTimes(0, 1, 0), ()
    dispatcher._end(batch)


def test_it_begins_when_nothing_waits_and_nothing_runs() -> None:
    """A caller who comes later goes first, and beside its batch nothing spare begins, though an instance is free."""
    dispatcher, item, later = make(2), spare(SumGraph()), make_item(SumGraph())
    dispatcher.add_spare(item)
    dispatcher.add(later)
    batch = take(dispatcher)
    assert batch is not None
    assert batch.items == [later]
    assert take(dispatcher) is None
    end(dispatcher, batch)
    found = take(dispatcher)
    assert found is not None
    assert (found.items, len(dispatcher)) == ([item], 0)


def test_it_does_not_begin_while_a_caller_waits_for_company() -> None:
    """As the operator asked for."""
    dispatcher = make(delay_seconds=1e6)
    dispatcher.add_spare(spare(SumGraph()))
    later = make_item(SumGraph())
    later.arrived = time.monotonic()
    dispatcher.add(later)
    assert take(dispatcher) is None
    assert dispatcher.remove(later)
    assert take(dispatcher) is not None


def test_one_runs_at_a_time_and_leaves_the_other_instances_to_callers() -> None:
    """Though its graph could use all threads."""
    dispatcher, graph = make(2), GatedGraph(CostModel(1.0))
    for _ in range(2):
        dispatcher.add_spare(spare(graph))
    first = take(dispatcher)
    assert first is not None
    assert first.instances == 1
    assert take(dispatcher) is None
    later = make_item(SumGraph())
    dispatcher.add(later)
    beside = take(dispatcher)
    assert beside is not None
    assert beside.items == [later]


def test_no_caller_waits_for_those_who_would_come_back_for_it() -> None:
    """A caller's batch opens such a window when it ends; nobody comes back for what is spare."""
    dispatcher, long = make(2), SumGraph(CostModel(100.0))
    dispatcher.add_spare(spare(SumGraph(CostModel(1000.0))))
    first = take(dispatcher)
    dispatcher.add(make_item(long))
    assert first is not None
    assert take(dispatcher) is not None
    end(dispatcher, first)
    dispatcher.add(make_item(long))
    assert take(dispatcher) is not None


def test_none_is_tried_again_on_another_device() -> None:
    """Which callers may need."""
    finished = list[Batch]()
    dispatcher = make(devices=("CUDA:0", "CUDA:1", "CUDA:2"), finish=finished.append)
    dispatcher.add_spare(spare(SumGraph()))
    batch = take(dispatcher)
    assert batch is not None
    dispatcher._lose(batch, DeviceLost("gone"))
    assert len(dispatcher) == 0
    assert [type(outcome) for one in finished for outcome in one.outcomes] == [DeviceFailed]


def test_one_that_ends_last_beside_the_instances_lets_one_look() -> None:
    """The express thread runs nothing spare itself."""
    dispatcher, woken = make(), list[bool]()
    dispatcher.places[0].ready.notify = lambda n=1: woken.append(True)  # type: ignore[method-assign]
    express = dispatcher._note([make_item(SumGraph())], 0, 0)
    dispatcher.add_spare(spare(SumGraph()))
    assert take(dispatcher) is None
    end(dispatcher, express)
    assert woken == [True]


async def test_it_is_computed_by_instances_that_run() -> None:
    """Once the engine is idle, whoever had it before."""
    graph, gated = SumGraph(), GatedGraph()
    async with scheduling() as scheduler:
        running = await occupy(scheduler, gated)
        waiting = asyncio.create_task(scheduler.compute_spare(spare(graph)))
        await asyncio.sleep(0)
        assert graph.batches == []
        assert scheduler.queue_seconds() == 0  # it is no work that callers wait for
        gated.gate.set()
        await running
        assert value_of(await waiting) == 36
        assert value_of(await scheduler.compute_spare(spare(graph))) == 36  # on an engine that was idle


async def test_a_row_that_takes_too_long_is_refused() -> None:
    """The watchdog would take its run for hung."""
    admission = Admission(6, 10**6, 10.0, row_seconds=60.0)
    scheduler = Scheduler(BatchLimits(4, 1024, 10**9), admission, 1, Metrics())
    scheduler.start()
    with pytest.raises(InvalidInput, match="at most 60 s"):
        await scheduler.compute_spare(spare(SumGraph(CostModel(61.0))))
    await scheduler.close()


async def test_whoever_gives_up_or_stops_leaves_nothing() -> None:
    """And a failure is told."""
    graph, gated = SumGraph(), GatedGraph()
    async with scheduling() as scheduler:
        running = await occupy(scheduler, gated)
        given_up, stopped = (asyncio.create_task(scheduler.compute_spare(spare(graph))) for _ in range(2))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        gated.gate.set()
        await running
        await stopped
        assert graph.batches == [[9]]
        with pytest.raises(InternalFault):
            await scheduler.compute_spare(spare(graph, POISON))
        gated.gate.clear()
        gated.entered.clear()
        running = await occupy(scheduler, gated)
        stopped = asyncio.create_task(scheduler.compute_spare(spare(graph)))
        await asyncio.sleep(0)
        scheduler.refuse_waiting()
        with pytest.raises(ShuttingDown):
            await stopped
        with pytest.raises(ShuttingDown):
            await scheduler.compute_spare(spare(graph))
        gated.gate.set()
        await running
    assert graph.batches == [[9]]
