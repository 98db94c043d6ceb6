import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from server.auth.clients import Client
from server.context import RpcContext
from server.engine.cost import CostModel
from server.errors import DeadlinePassed, InternalFault, ShuttingDown, TooBusy
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.fakes import CONTRACT, POISON, GatedGraph, make_item, occupy, queue, scheduling, value_of


@pytest.fixture
def graph() -> GatedGraph:
    """A graph whose gate is closed."""
    return GatedGraph()


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    """A scheduler for batches of four rows and a queue of six."""
    async with scheduling() as scheduler:
        yield scheduler


async def test_an_idle_engine_starts_at_once_with_a_single_request(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Nobody waits for others while the engine is free."""
    first = await occupy(scheduler, graph)
    graph.gate.set()
    result = await first
    assert (value_of(result), result.batch_size) == (4.0, 1)


async def test_what_waits_while_a_batch_runs_goes_together_in_the_next(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Three that queue behind one are computed as one batch, each with its own answer."""
    first = await occupy(scheduler, graph)
    waiting = await queue(scheduler, graph, 2, 3, 4)
    graph.gate.set()
    answers = [await task for task in (first, *waiting)]
    assert [value_of(answer) for answer in answers] == [4.0, 8.0, 12.0, 16.0]
    assert graph.batches == [[1], [2, 3, 4]]
    assert answers[-1].batch_size == 3


async def test_a_cancelled_request_is_never_computed_and_harms_nobody(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Its neighbours in the queue get their own answers."""
    first = await occupy(scheduler, graph)
    left, cancelled, right = await queue(scheduler, graph, 2, 3, 4)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    graph.gate.set()
    assert [value_of(await task) for task in (first, left, right)] == [4.0, 8.0, 16.0]
    assert graph.batches == [[1], [2, 4]]


async def test_a_request_cancelled_in_the_middle_of_its_batch_harms_nobody(
    scheduler: Scheduler, graph: GatedGraph
) -> None:
    """The batch it is part of answers the others."""
    first = await occupy(scheduler, graph)
    first.cancel()
    (later,) = await queue(scheduler, graph, 5)
    graph.gate.set()
    assert value_of(await later) == 20.0
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_request_whose_deadline_passes_in_the_queue_is_never_computed(
    scheduler: Scheduler, graph: GatedGraph
) -> None:
    """It is noticed when the next batch is cut."""
    first, loop = await occupy(scheduler, graph), asyncio.get_running_loop()
    deadline, passed = loop.time() + 0.05, asyncio.Event()
    late = asyncio.create_task(scheduler.submit(make_item(graph, 2, deadline=deadline)))
    loop.call_at(deadline + 0.001, passed.set)
    await passed.wait()
    graph.gate.set()
    with pytest.raises(DeadlinePassed, match="passed while the request waited"):
        await late
    await first
    assert graph.batches == [[1]]


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(scheduler: Scheduler) -> None:
    """A run takes two seconds by the cost model; one second is too short, three are enough."""
    graph = GatedGraph(CostModel(run_seconds=2.0))
    graph.gate.set()
    now = time.monotonic()
    with pytest.raises(DeadlinePassed, match=r"deadline is \d\.\d+ s away"):
        await scheduler.submit(make_item(graph, 2, deadline=now + 1))
    assert value_of(await scheduler.submit(make_item(graph, 3, deadline=now + 3))) == 12.0
    assert graph.batches == [[3]]


async def test_an_engine_that_was_slow_for_a_while_answers_within_deadlines_again(graph: GatedGraph) -> None:
    """Each run teaches it a little, though all that comes has a deadline that it seems too slow for."""
    graph.gate.set()
    async with scheduling() as scheduler:
        group = scheduler._dispatcher._queue._group(make_item(graph, 1))
        group.slowdown = 1e9
        answer = await scheduler.submit(make_item(graph, 2, deadline=time.monotonic() + 60))
        assert value_of(answer) == 8.0
        await scheduler.close()  # once what it took is learned
        assert group.slowdown < 1e9


async def test_a_near_deadline_is_not_refused_for_what_is_due_later() -> None:
    """Four seconds of work wait without a deadline; a request due in three goes first and is admitted."""
    graph = GatedGraph(CostModel(run_seconds=0.0, token_seconds=0.25))
    async with scheduling(seconds=100) as scheduler:
        await occupy(scheduler, graph)
        waiting = await queue(scheduler, graph, 2, 3, 4, 5)
        deadline = time.monotonic() + 3
        urgent = asyncio.create_task(scheduler.submit(make_item(graph, 6, deadline=deadline)))
        await asyncio.sleep(0)
        graph.gate.set()
        assert value_of(await urgent) == 24.0
        await asyncio.gather(*waiting)
        assert graph.batches[:2] == [[1], [6]]


async def test_more_urgent_priorities_go_first(scheduler: Scheduler) -> None:
    """Whatever came first: 1, then 2, then 3."""
    graph = GatedGraph(CostModel(run_seconds=0.0, token_seconds=0.001))
    await occupy(scheduler, graph)
    tasks = [
        asyncio.create_task(scheduler.submit(make_item(graph, 10 + priority, priority=priority)))
        for priority in (3, 1, 2)
    ]
    await asyncio.sleep(0)
    graph.gate.set()
    await asyncio.gather(*tasks)
    assert graph.batches == [[1], [11], [12], [13]]


async def test_what_would_wait_too_long_is_refused_with_a_hint_when_to_come_back() -> None:
    """Two seconds of work wait and one is offered."""
    graph = GatedGraph(CostModel(run_seconds=0.0, token_seconds=0.25))
    async with scheduling(seconds=1.0) as scheduler:
        first = await occupy(scheduler, graph)
        waiting = await queue(scheduler, graph, 2)
        with pytest.raises(TooBusy, match="--max-queue-seconds") as refusal:
            await scheduler.submit(make_item(graph, 4))
        assert 0.1 < refusal.value.retry_seconds <= 10
        names = [name for name, _ in refusal.value.trailers]
        assert names == ["grpc-retry-pushback-ms", "grpc-status-details-bin"]
        graph.gate.set()
        await asyncio.gather(first, *waiting)


async def test_inputs_that_would_hold_too_many_bytes_are_refused(graph: GatedGraph) -> None:
    """Each holds 64 bytes; two may wait."""
    async with scheduling(input_bytes=128) as scheduler:
        first = await occupy(scheduler, graph)
        waiting = await queue(scheduler, graph, 2, 3)
        with pytest.raises(TooBusy, match="--max-queue-bytes"):
            await scheduler.submit(make_item(graph, 4))
        graph.gate.set()
        await asyncio.gather(first, *waiting)


async def test_half_of_a_thousand_cancelled_in_the_queue_are_never_computed(graph: GatedGraph) -> None:
    """Every second caller hangs up while the first batch runs."""
    metrics = Metrics()
    async with scheduling(requests=1000, metrics=metrics) as scheduler:
        first = await occupy(scheduler, graph)
        waiting = await queue(scheduler, graph, *range(100, 1099))
        for task in waiting[::2]:
            task.cancel()
        await asyncio.gather(*waiting[::2], return_exceptions=True)
        graph.gate.set()
        await asyncio.gather(first, *waiting[1::2])
        computed = [value for batch in graph.batches for value in batch]
        assert sorted(computed) == [1, *range(101, 1099, 2)]
    assert metrics.registry.get_sample_value("regard_dropped_total", {"reason": "cancelled"}) == 500
    assert metrics.registry.get_sample_value("regard_scheduler_outcomes_total", {"outcome": "cancelled"}) == 500


async def test_a_batch_that_leaves_nothing_waiting_has_all_threads(graph: GatedGraph) -> None:
    """The first has them, and what came meanwhile goes together and has them too."""
    async with scheduling(instances=2) as scheduler:
        first = await occupy(scheduler, graph)
        waiting = await queue(scheduler, graph, 2, 3)
        graph.gate.set()
        await asyncio.gather(first, *waiting)
    assert graph.batches == [[1], [2, 3]]
    assert graph.had_all_threads == [True, True]


async def test_what_waits_is_divided_among_instances_where_no_run_can_have_them_all(graph: GatedGraph) -> None:
    """The first leaves an instance free, and two more share both."""
    graph.can_use_all_threads = False
    graph.gate.set()
    async with scheduling(instances=2) as scheduler:
        await asyncio.gather(*await queue(scheduler, graph, 2, 3))
    assert sorted(graph.batches) == [[2], [3]]
    assert graph.had_all_threads == [False, False]


async def test_a_full_queue_refuses_at_once(scheduler: Scheduler, graph: GatedGraph) -> None:
    """The seventh that would wait is told so, with the name of the limit."""
    await occupy(scheduler, graph)
    waiting = await queue(scheduler, graph, *range(2, 8))
    with pytest.raises(TooBusy, match=r"6 requests wait, 6 of them this client's; one alone may have 6 .*-queue-size"):
        await scheduler.submit(make_item(graph, 9))
    graph.gate.set()
    await asyncio.gather(*waiting)


async def test_a_queue_full_of_callers_who_hung_up_has_room(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Dead requests do not keep the living out."""
    await occupy(scheduler, graph)
    waiting = await queue(scheduler, graph, *range(2, 8))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    (fresh,) = await queue(scheduler, graph, 9)
    graph.gate.set()
    assert value_of(await fresh) == 36.0


async def test_only_the_guilty_request_of_a_failed_batch_fails(
    scheduler: Scheduler, graph: GatedGraph, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch is run again one by one, the failure is logged, and the scheduler goes on."""
    await occupy(scheduler, graph)
    left, guilty, right = await queue(scheduler, graph, 2, POISON, 4)
    graph.gate.set()
    assert [value_of(await task) for task in (left, right)] == [8.0, 16.0]
    with pytest.raises(InternalFault, match="internal error"):
        await guilty
    assert "poisoned" in caplog.text
    assert value_of(await scheduler.submit(make_item(graph, 5))) == 20.0


async def test_a_run_that_fails_takes_the_time_that_it_took(graph: GatedGraph) -> None:
    """Otherwise what breaks after a minute would look free."""
    metrics = Metrics()
    async with scheduling(metrics=metrics) as scheduler:
        failing = asyncio.create_task(scheduler.submit(make_item(graph, POISON)))
        assert await asyncio.to_thread(graph.entered.wait, 30)
        graph.gate.set()
        with pytest.raises(InternalFault):
            await failing
    labels = {"model": CONTRACT.name, "graph": "plain"}
    assert metrics.registry.get_sample_value("regard_engine_seconds_total", labels)


async def test_refusing_answers_everything_that_waits_and_everything_that_comes(
    scheduler: Scheduler, graph: GatedGraph
) -> None:
    """The batch that runs still ends well."""
    first = await occupy(scheduler, graph)
    waiting = await queue(scheduler, graph, 2, 3)
    scheduler.refuse_waiting()
    graph.gate.set()
    for task in waiting:
        with pytest.raises(ShuttingDown):
            await task
    with pytest.raises(ShuttingDown):
        await scheduler.submit(make_item(graph, 4))
    assert value_of(await first) == 4.0


async def test_metrics_say_what_waits_and_runs() -> None:
    """One runs on one of two instances, and the other takes what comes next; inputs of a row hold 64 bytes.

    The two that wait take a second each, which two instances share; three hundredths are for the fixed part of a run.
    """
    metrics, graph = Metrics(), GatedGraph(CostModel(run_seconds=0.0, token_seconds=0.25))

    def values() -> list[float | None]:
        names = ("instances", "instances_busy", "queue_depth", "queue_bytes", "queue_seconds")
        return [metrics.registry.get_sample_value(f"regard_{name}") for name in names]

    async with scheduling(metrics=metrics, instances=2) as scheduler:
        assert values() == [2, 0, 0, 0, 0]
        second = GatedGraph()
        graph.can_use_all_threads = second.can_use_all_threads = False
        running = [await occupy(scheduler, graph)]
        running.append(await occupy(scheduler, second))
        waiting = await queue(scheduler, graph, 2, 3)
        assert values() == [2, 2, 2, 128, pytest.approx(1.03)]
        closing = asyncio.create_task(scheduler.close())
        for task in waiting:
            with pytest.raises(ShuttingDown):
                await task
        graph.gate.set()
        second.gate.set()
        assert await closing
        assert values() == [2, 0, 0, 0, 0]
        await asyncio.gather(*running)
    assert graph.batches == [[1]]


async def test_one_caller_alone_is_not_read_as_saturation() -> None:
    """Its run has the threads of both instances, as nobody else wants them, and is one run still.

    Nothing waits, however long it takes; who is refused meanwhile is told to wait for it.
    """
    metrics, graph = Metrics(), GatedGraph(CostModel(run_seconds=100.0))
    async with scheduling(metrics=metrics, instances=2) as scheduler:
        running = await occupy(scheduler, graph)
        assert metrics.registry.get_sample_value("regard_instances_busy") == 1
        assert metrics.registry.get_sample_value("regard_lanes_busy") == 1
        assert metrics.registry.get_sample_value("regard_queue_seconds") == 0
        assert scheduler.suggest_retry() > 1
        assert scheduler.instances == 2
        assert scheduler.running_seconds() < scheduler.running_seconds()  # it goes on
        graph.gate.set()
        await running
        await scheduler.close()
        assert scheduler.running_seconds() == 0
    assert graph.had_all_threads == [True]


async def test_older_requests_are_never_overtaken_for_ever(scheduler: Scheduler, graph: GatedGraph) -> None:
    """The oldest is in the next batch, whatever came after it."""
    await occupy(scheduler, graph)
    waiting = await queue(scheduler, graph, 2, 3, 4, 5, 6)
    graph.gate.set()
    await asyncio.gather(*waiting)
    assert graph.batches == [[1], [2, 3, 4, 5], [6]]


async def test_what_has_turned_out_slower_than_estimated_is_refused_earlier(graph: GatedGraph) -> None:
    """An estimate of 0.8 of the limit is let in; where answers take half the limit longer than estimated, it is not."""
    slow = GatedGraph(CostModel(run_seconds=0.0, token_seconds=0.05))
    async with scheduling(seconds=1.0) as scheduler:
        first = await occupy(scheduler, slow)
        waiting = await queue(scheduler, slow, 2)
        (let_in,) = await queue(scheduler, slow, 3)
        assert not let_in.done()
        scheduler.margin.learn([(0.5, 1.0)])
        (refused,) = await queue(scheduler, slow, 4)
        assert refused.done()
        with pytest.raises(TooBusy, match="--max-queue-seconds"):
            await refused
        slow.gate.set()
        await asyncio.gather(first, let_in, *waiting)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("requests", "9 requests wait, 1 of them this client's; one alone may have 8 (the server's --max-queue-size)"),
        (
            "input_bytes",
            "its inputs would hold 640 bytes, 128 of them this client's; one alone may have 512 "
            "(the server's --max-queue-bytes)",
        ),
    ],
)
async def test_a_queue_that_one_client_has_filled_has_room_for_others(graph: GatedGraph, what: str, told: str) -> None:
    """Of eight requests, or as many bytes, it has all; another has one place besides. Who is refused hears of both."""
    flood, modest = RpcContext(caller=Client("flood")), RpcContext(caller=Client("modest"))
    requests, input_bytes = (8, 10**6) if what == "requests" else (100, 8 * 64)
    async with scheduling(requests=requests, input_bytes=input_bytes) as scheduler:
        first = await occupy(scheduler, graph)
        waiting = [asyncio.create_task(scheduler.submit(make_item(graph, one, context=flood))) for one in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(TooBusy, match="--max-queue"):
            await scheduler.submit(make_item(graph, 9, context=flood))
        waiting.append(asyncio.create_task(scheduler.submit(make_item(graph, 10, context=modest))))
        await asyncio.sleep(0)
        assert not waiting[-1].done()
        with pytest.raises(TooBusy) as refusal:
            await scheduler.submit(make_item(graph, 11, context=modest))
        assert str(refusal.value) == f"the queue is full: {told}; retry later"
        graph.gate.set()
        await asyncio.gather(first, *waiting)
