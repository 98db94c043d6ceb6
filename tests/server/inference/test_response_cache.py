"""Answers given again, and shared by equal requests at a time; on a scheduler whose engine waits for a gate."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from artifact.dtypes import Array
from server.auth.clients import Client
from server.context import RpcContext
from server.errors import DeadlinePassed, InternalFault
from server.inference import response_cache
from server.inference.response_cache import ResponseCache
from server.scheduling.batch import BatchItem, Result
from server.scheduling.grouping import Each
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.fakes import CONTRACT, POISON, GatedGraph, make_item, occupy, scheduling, value_of

ROOM = 10**6


@pytest.fixture
def graph() -> GatedGraph:
    """A graph whose gate is closed."""
    return GatedGraph()


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    """A scheduler of one instance."""
    async with scheduling(requests=100) as scheduler:
        yield scheduler


def make_cache(scheduler: Scheduler, max_bytes: int = ROOM, metrics: Metrics | None = None) -> ResponseCache:
    """A cache before it."""
    return ResponseCache(scheduler.submit, scheduler.submit_all, max_bytes, metrics or Metrics())


async def start(*requests: "asyncio.Task[Result]") -> None:
    """Let them get as far as they can without the engine."""
    for _ in range(3):
        await asyncio.sleep(0)


async def leave(cache: ResponseCache, graph: GatedGraph, callers: int) -> None:
    """Let some ask the same and hang up."""
    leaving = [asyncio.create_task(cache.compute(make_item(graph, 2))) for _ in range(callers)]
    await start()
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)


def lookups(metrics: Metrics) -> dict[str, float]:
    """What was counted."""
    sample = metrics.registry.get_sample_value
    return {name: sample("regard_cache_lookups_total", {"outcome": name}) or 0 for name in ("hit", "joined", "miss")}


async def test_the_same_request_again_is_not_computed_again(scheduler: Scheduler, graph: GatedGraph) -> None:
    """It takes no time and has no batch."""
    graph.gate.set()
    metrics = Metrics()
    cache = make_cache(scheduler, metrics=metrics)
    first, again = await cache.compute(make_item(graph, 2)), await cache.compute(make_item(graph, 2))
    other = await cache.compute(make_item(graph, 3))
    assert [value_of(one) for one in (first, again, other)] == [8.0, 8.0, 12.0]
    assert graph.batches == [[2], [3]]
    assert (again.compute_ns, again.batch_size) == (0, 0)
    assert lookups(metrics) == {"hit": 1, "joined": 0, "miss": 2}
    assert metrics.registry.get_sample_value("regard_cache_bytes") == 2 * (1024 + 4)


async def test_what_differs_in_shape_or_in_what_is_wanted_is_not_the_same(
    scheduler: Scheduler, graph: GatedGraph
) -> None:
    """Two rows of two tokens are not one row of four, whatever their bytes."""
    graph.gate.set()
    cache = make_cache(scheduler)
    one, ids = make_item(graph, 2), np.full((2, 2), 2)
    two = BatchItem(graph, CONTRACT, {"input_ids": ids, "attention_mask": np.ones_like(ids)}, 2, 2, ("embedding",))
    none = BatchItem(graph, CONTRACT, one.inputs, 1, 4, ())
    for item in (one, two, none):
        await cache.compute(item)
    assert graph.batches == [[2], [2, 2], [2]]


async def test_without_memory_nothing_is_kept_or_shared(scheduler: Scheduler, graph: GatedGraph) -> None:
    """As the server is by default."""
    graph.gate.set()
    cache = make_cache(scheduler, max_bytes=0)
    await asyncio.gather(*(cache.compute(make_item(graph, 2)) for _ in range(3)))
    assert sum(map(len, graph.batches)) == 3


async def test_equal_requests_at_a_time_are_computed_once(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Each gets the answer, though the first of them hangs up."""
    await occupy(scheduler, graph)
    metrics = Metrics()
    cache = make_cache(scheduler, metrics=metrics)
    first, *others = [asyncio.create_task(cache.compute(make_item(graph, 2))) for _ in range(4)]
    await start()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    graph.gate.set()
    assert [value_of(await other) for other in others] == [8.0] * 3
    assert graph.batches == [[1], [2]]
    assert lookups(metrics) == {"hit": 0, "joined": 3, "miss": 1}


async def test_what_all_have_left_is_never_computed(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Whoever leaves last calls it off, and the next who asks starts anew."""
    first = await occupy(scheduler, graph)
    cache = make_cache(scheduler)
    await leave(cache, graph, callers=2)
    await start()
    graph.gate.set()
    await first
    assert graph.batches == [[1]]
    assert value_of(await cache.compute(make_item(graph, 2))) == 8.0


async def test_a_more_urgent_request_does_not_wait_for_a_less_urgent_one(
    scheduler: Scheduler, graph: GatedGraph
) -> None:
    """It is computed by itself."""
    await occupy(scheduler, graph)
    cache = make_cache(scheduler)
    tasks = [asyncio.create_task(cache.compute(make_item(graph, 2, priority=priority))) for priority in (3, 1, 1)]
    await start()
    graph.gate.set()
    assert [value_of(await task) for task in tasks] == [8.0] * 3
    assert sum(batch.count(2) for batch in graph.batches) == 2


async def test_another_callers_deadline_is_not_ones_own(scheduler: Scheduler, graph: GatedGraph) -> None:
    """The first may not wait as long as the second, which is computed then."""
    await occupy(scheduler, graph)
    cache, loop, passed = make_cache(scheduler), asyncio.get_running_loop(), asyncio.Event()
    hurried = asyncio.create_task(cache.compute(make_item(graph, 2, deadline=time.monotonic() + 0.05)))
    await start()
    patient = asyncio.create_task(cache.compute(make_item(graph, 2)))
    await start()
    loop.call_later(0.06, passed.set)
    await passed.wait()
    graph.gate.set()
    with pytest.raises(DeadlinePassed):
        await hurried
    assert value_of(await patient) == 8.0


async def test_ones_own_deadline_holds_while_another_is_waited_for(scheduler: Scheduler, graph: GatedGraph) -> None:
    """The other goes on."""
    await occupy(scheduler, graph)
    cache = make_cache(scheduler)
    patient = asyncio.create_task(cache.compute(make_item(graph, 2)))
    await start()
    cost_seconds = 10.0
    graph.cost = type(graph.cost)(run_seconds=cost_seconds)
    with pytest.raises(DeadlinePassed):
        await cache.compute(make_item(graph, 2, deadline=time.monotonic() + 0.02))
    graph.gate.set()
    assert value_of(await patient) == 8.0


async def test_a_failure_is_not_kept(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Nor given to anybody who did not cause it."""
    graph.gate.set()
    cache = make_cache(scheduler)
    for _ in range(2):
        with pytest.raises(InternalFault):
            await cache.compute(make_item(graph, POISON))


async def test_the_answer_used_longest_ago_makes_room(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Room for two: 2 is asked for again and stays, 3 goes."""
    graph.gate.set()
    cache = make_cache(scheduler, max_bytes=2 * (1024 + 4))
    for value in (2, 3, 2, 4, 2, 3):
        await cache.compute(make_item(graph, value))
    assert graph.batches == [[2], [3], [4], [3]]


async def test_who_asks_as_the_last_waiter_leaves_is_answered(scheduler: Scheduler, graph: GatedGraph) -> None:
    """The request that was called off is not there to be joined any more, not even for a turn of the event loop."""
    first = await occupy(scheduler, graph)
    cache = make_cache(scheduler)
    leaving = asyncio.create_task(cache.compute(make_item(graph, 2)))
    await start()
    leaving.cancel()
    joining = asyncio.create_task(cache.compute(make_item(graph, 2)))
    await asyncio.gather(leaving, return_exceptions=True)
    await start()
    graph.gate.set()
    await first
    async with asyncio.timeout(30):
        assert value_of(await joining) == 8.0


async def test_another_graph_of_the_same_model_gives_its_own_answer(scheduler: Scheduler) -> None:
    """A model that was loaded again answers by its new weights."""
    before, after = GatedGraph(), GatedGraph()
    cache = make_cache(scheduler)
    for graph in (before, after):
        graph.gate.set()
        await cache.compute(make_item(graph, 2))
    assert (before.batches, after.batches) == ([[2]], [[2]])


async def test_what_is_kept_does_not_hold_the_batch_that_it_was_part_of(
    scheduler: Scheduler, graph: GatedGraph
) -> None:
    """Two callers shared a run; each kept answer has memory of its own, for attention as well."""
    first = await occupy(scheduler, graph)
    cache = make_cache(scheduler)
    shared = [asyncio.create_task(cache.compute(make_item(graph, value))) for value in (2, 3)]
    await start()
    graph.gate.set()
    await asyncio.gather(first, *shared)
    assert graph.batches == [[1], [2, 3]]
    kept = (await cache.compute(make_item(graph, 2))).outputs["embedding"]
    assert kept.base is None
    assert kept.flags.owndata


async def test_what_is_larger_than_the_whole_room_makes_none(scheduler: Scheduler, graph: GatedGraph) -> None:
    """What is kept stays kept; an answer of exactly the room is kept alone."""
    graph.gate.set()
    cache = make_cache(scheduler, max_bytes=1024 + 4)
    for value, rows in ((2, 1), (3, 2), (2, 1)):
        await cache.compute(make_item(graph, value, rows=rows))
    assert graph.batches == [[2], [3, 3]]


async def test_an_answer_that_comes_twice_takes_room_once(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Computed for two callers, of whom the second was more urgent; then there is room for one more."""
    first = await occupy(scheduler, graph)
    metrics = Metrics()
    cache = make_cache(scheduler, max_bytes=2 * (1024 + 4), metrics=metrics)
    both = [asyncio.create_task(cache.compute(make_item(graph, 2, priority=priority))) for priority in (3, 1)]
    await start()
    graph.gate.set()
    await asyncio.gather(first, *both)
    await cache.compute(make_item(graph, 3))
    await cache.compute(make_item(graph, 2))
    assert metrics.registry.get_sample_value("regard_cache_bytes") == 2 * (1024 + 4)
    assert graph.batches[-1] == [3]


async def test_flights_that_fail_or_are_called_off_end_quietly(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Nothing goes wrong in the event loop behind the callers."""
    wrong = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    first = await occupy(scheduler, graph)
    cache = make_cache(scheduler)
    leaving = asyncio.create_task(cache.compute(make_item(graph, 2)))
    await start()
    leaving.cancel()
    failing = asyncio.create_task(cache.compute(make_item(graph, POISON)))
    await start()
    graph.gate.set()
    await asyncio.gather(first, failing, leaving, return_exceptions=True)
    await start()
    assert not wrong


async def test_of_two_who_wait_one_may_leave(scheduler: Scheduler, graph: GatedGraph) -> None:
    """The other is answered."""
    await occupy(scheduler, graph)
    cache = make_cache(scheduler)
    one, other = (asyncio.create_task(cache.compute(make_item(graph, 2))) for _ in range(2))
    await start()
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    graph.gate.set()
    assert value_of(await other) == 8.0
    assert graph.batches == [[1], [2]]


async def test_who_leaves_alone_calls_it_off(scheduler: Scheduler, graph: GatedGraph) -> None:
    """There is nobody else to count."""
    first = await occupy(scheduler, graph)
    await leave(make_cache(scheduler), graph, callers=1)
    graph.gate.set()
    await first
    await scheduler.close()
    assert graph.batches == [[1]]


async def test_a_far_deadline_lets_one_wait_for_another(scheduler: Scheduler, graph: GatedGraph) -> None:
    """For as long as it says, whatever the two clocks show."""
    await occupy(scheduler, graph)
    cache = make_cache(scheduler)
    both = [
        asyncio.create_task(cache.compute(make_item(graph, 2, deadline=time.monotonic() + seconds)))
        for seconds in (30, 20)
    ]
    await start()
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in both)
    graph.gate.set()
    assert [value_of(await task) for task in both] == [8.0, 8.0]
    assert graph.batches == [[1], [2]]


async def test_strings_are_compared_by_what_they_say() -> None:
    """Each by itself: "ab", "c" is not "a", "bc"; an array of two axes by all of it."""
    asked, graph = list[BatchItem](), GatedGraph()

    async def submit(item: BatchItem) -> Result:
        asked.append(item)
        return Result({}, {})

    async def submit_all(items: Sequence[BatchItem]) -> list[Each]:
        raise AssertionError(items)

    cache = ResponseCache(submit, submit_all, ROOM, Metrics())
    for strings in (["ab", "c"], ["a", "bc"], ["ab", "c"], ["ab", "d"]):
        texts = np.array([strings], dtype=object)
        await cache.compute(BatchItem(graph, CONTRACT, {"texts": texts}, 1, 1, ()))
    assert [item.inputs["texts"].tolist() for item in asked] == [[["ab", "c"]], [["a", "bc"]], [["ab", "d"]]]


async def test_an_array_that_several_rows_show_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo of which many labels are explained, say; what is shown more often is not the same for that."""
    graph, hashed, asked = GatedGraph(), list[int](), list[BatchItem]()
    hash_array = response_cache._hash

    def counted(array: Array) -> bytes:
        hashed.append(array.size)
        return hash_array(array)

    async def submit(item: BatchItem) -> Result:
        asked.append(item)
        return Result({}, {})

    async def submit_all(items: Sequence[BatchItem], later_rows: int, *, goes_on: bool) -> list[Each]:
        return [await submit(item) for item in items]

    monkeypatch.setattr(response_cache, "_hash", counted)
    cache, ids = ResponseCache(submit, submit_all, ROOM, Metrics()), np.arange(4)[None]
    shown = [np.broadcast_to(ids, (rows, 4)) for rows in (3, 2, 3)]
    for array in (*shown, np.broadcast_to(ids + 1, (3, 4))):
        await cache.compute(BatchItem(graph, CONTRACT, {"input_ids": array}, len(array), 4, ()))
    assert [item.rows for item in asked] == [3, 2, 3]
    assert hashed == [4, 4, 4, 4]
    row = {"input_ids": shown[0][:1]}
    each = [row | {"chosen": np.array([place])} for place in (0, 1, 0)]
    await cache.compute_all([BatchItem(graph, CONTRACT, one, 1, 4, ()) for one in each], 0, goes_on=False)
    assert sorted(hashed[4:]) == [1, 1, 1, 4]


async def test_no_client_is_told_what_another_has_asked(scheduler: Scheduler, graph: GatedGraph) -> None:
    """Neither by an answer that is kept, nor by one that is on its way."""
    first = await occupy(scheduler, graph)
    cache, clients = make_cache(scheduler), [RpcContext(caller=Client(name)) for name in ("alice", "bob", "alice")]
    at_once = [asyncio.create_task(cache.compute(make_item(graph, 2, context=context))) for context in clients]
    await start()
    graph.gate.set()
    await asyncio.gather(first, *at_once)
    assert graph.batches == [[1], [2, 2]]
    await cache.compute(make_item(graph, 3, context=clients[0]))
    other = await cache.compute(make_item(graph, 3, context=clients[1]))
    assert graph.batches[2:] == [[3], [3]]
    assert other.batch_size == 1
