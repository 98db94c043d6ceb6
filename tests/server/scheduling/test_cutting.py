"""A request that needs more than a run's budget takes several runs, and others have their turn between them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.auth.clients import Client
from server.auth.quota import Quota
from server.context import RpcContext
from server.engine.cost import CostModel
from server.errors import DeadlinePassed, InvalidInput, ShuttingDown, TooBusy
from server.scheduling.admission import Admission
from server.scheduling.batch import BatchItem, BatchLimits, Result
from server.scheduling.cutting import PartialResult, cut, max_rows
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.fakes import Clock, EchoGraph, SteppedGraph, make_item, on_device

COST = CostModel(run_seconds=0.5, token_seconds=0.125, pair_seconds=0.0)  # of a row of four tokens: half a second
ROOMY = BatchLimits(rows=100, tokens=10**6, attention_bytes=10**9)
OUTPUTS, ATTENTIONS = ("last_hidden_state", "embedding"), ("attention.0", "attention.1")


def sizes(parts: Sequence[BatchItem]) -> list[int]:
    """Rows of each."""
    return [part.rows for part in parts]


def make_rows(graph: EchoGraph, rows: int, attentions: tuple[str, ...] = ATTENTIONS) -> BatchItem:
    """A request of rows of four tokens, each with its own number."""
    item = make_item(graph, rows=rows, outputs=OUTPUTS, attentions=attentions)
    ids = np.arange(1, rows * 4 + 1, dtype=np.int64).reshape(rows, 4)
    return replace(item, inputs={"input_ids": ids, "attention_mask": np.ones_like(ids)})


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        (ROOMY, [10]),
        (replace(ROOMY, rows=10), [10]),
        (replace(ROOMY, rows=9), [5, 5]),
        (replace(ROOMY, tokens=40), [10]),
        (replace(ROOMY, tokens=39), [5, 5]),
        (replace(ROOMY, tokens=12), [2, 3, 2, 3]),
        (replace(ROOMY, tokens=14), [2, 3, 2, 3]),
        (replace(ROOMY, tokens=3), [1] * 10),
        (replace(ROOMY, attention_bytes=10 * 512), [10]),  # two layers, four heads, 4 x 4 weights
        (replace(ROOMY, attention_bytes=10 * 512 - 1), [5, 5]),
        (replace(ROOMY, attention_bytes=7 * 256), [2, 3, 2, 3]),
        (replace(ROOMY, attention_bytes=1), [1] * 10),
        (replace(ROOMY, seconds=5.5), [10]),
        (replace(ROOMY, seconds=5.4), [5, 5]),
        (replace(ROOMY, seconds=2.0), [2, 3, 2, 3]),
        (replace(ROOMY, seconds=0.1), [1] * 10),
    ],
)
def test_no_part_is_above_a_limit_unless_it_is_a_single_row(limits: BatchLimits, parts: list[int]) -> None:
    """Ten rows of four tokens; parts are about equal."""
    assert sizes(cut(make_rows(EchoGraph(COST), 10), limits)) == parts


def test_a_request_of_two_rows_is_cut_too() -> None:
    """The smallest that can be; one of a single row is passed on as it is."""
    two, one = make_rows(EchoGraph(COST), 2), make_rows(EchoGraph(COST), 1)
    assert sizes(cut(two, replace(ROOMY, seconds=0.1))) == [1, 1]
    assert cut(one, replace(ROOMY, seconds=0.1)) == [one]
    assert cut(two, replace(ROOMY, rows=2)) == [two]


def test_a_graph_that_costs_nothing_has_no_limit_of_seconds() -> None:
    """It was not measured."""
    item = make_rows(EchoGraph(CostModel(0.0, 0.0, 0.0)), 10, ())
    assert max_rows(item, replace(ROOMY, seconds=0.001)) == 100
    assert sizes(cut(item, replace(ROOMY, tokens=14))) == [2, 3, 2, 3]
    with_attention = make_rows(EchoGraph(CostModel(0.0, 0.0, 0.0)), 10)
    assert sizes(cut(with_attention, replace(ROOMY, attention_bytes=7 * 256))) == [2, 3, 2, 3]


def test_a_model_without_rows_is_not_cut() -> None:
    """Its first axis is no batch."""
    item = make_rows(EchoGraph(COST), 2, ())
    spec = item.contract.outputs[0]
    outputs = (spec.model_copy(update={"axes": (4, *spec.axes[1:])}), *item.contract.outputs[1:])
    whole = replace(item, contract=item.contract.model_copy(update={"outputs": outputs}))
    assert not whole.contract.batched
    assert cut(whole, replace(ROOMY, seconds=0.1)) == [whole]


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_parts_put_together_are_what_one_run_gives(rows: int, most: int, on_a_device: bool) -> None:
    """Outputs and attention, row by row, wherever the attention lies."""
    graph = EchoGraph(COST)
    item = make_rows(graph, rows)
    names, partial = (*OUTPUTS, *ATTENTIONS), PartialResult(item)
    parts = cut(item, replace(ROOMY, rows=most))
    assert sum(sizes(parts)) == rows
    for number, part in enumerate(parts):
        found = graph.run(part.inputs, names)
        attentions: Mapping[str, Any] = {name: found[name] for name in ATTENTIONS}
        attentions = on_device(attentions) if on_a_device else attentions
        outputs = {name: found[name] for name in OUTPUTS}
        partial.add(part.rows, Result(outputs, attentions, queue_ns=1, compute_ns=10, batch_size=number))
    whole, expected = partial.whole(), graph.run(item.inputs, names)
    assert whole.outputs.keys() == set(OUTPUTS)
    assert whole.further.keys() == set(ATTENTIONS)
    for name, array in {**whole.outputs, **whole.further}.items():
        np.testing.assert_array_equal(array, expected[name])
    assert (whole.queue_ns, whole.compute_ns, whole.batch_size) == (len(parts), 10 * len(parts), len(parts) - 1)


@pytest.fixture
def metrics() -> Metrics:
    """Counts from nothing."""
    return Metrics()


@pytest.fixture
async def scheduler(metrics: Metrics) -> AsyncIterator[Scheduler]:
    """Runs of at most two rows, and of four seconds for a single row."""
    limits, admission = BatchLimits(2, 10**6, 10**9), Admission(100, 10**6, 10.0, row_seconds=4.0)
    scheduler = Scheduler(limits, admission, 1, metrics)
    scheduler.start()
    yield scheduler
    await scheduler.close()


async def test_others_have_their_turn_between_the_runs_of_one(scheduler: Scheduler, metrics: Metrics) -> None:
    """Six rows take three runs; what came after the request is computed after its first."""
    graph = SteppedGraph()
    large = asyncio.create_task(scheduler.submit(make_item(graph, 1, rows=6)))
    assert await asyncio.to_thread(graph.entered.wait, 30)
    small = asyncio.create_task(scheduler.submit(make_item(graph, 2)))
    await asyncio.sleep(0)
    for _ in range(4):
        await graph.let_run()
    assert (await large).outputs["embedding"].tolist() == [[4.0]] * 6
    await small
    assert graph.batches == [[1, 1], [2], [1, 1], [1, 1]]
    assert metrics.cut.value == 1.0


async def test_a_cut_request_is_one_request(scheduler: Scheduler, metrics: Metrics) -> None:
    """To whoever counts, and its times are those of all its runs."""
    graph = SteppedGraph()
    task = asyncio.create_task(scheduler.submit(make_item(graph, 1, rows=4)))
    for _ in range(2):
        await graph.let_run()
    result = await task
    assert result.compute_ns > 0
    assert result.batch_size == 2
    assert metrics.submitted.value == 1.0
    assert metrics.outcomes.labels("computed").value == 1.0


async def test_who_hangs_up_between_two_runs_is_not_computed_further(scheduler: Scheduler) -> None:
    """The first run ends; the others never begin."""
    graph = SteppedGraph()
    task = asyncio.create_task(scheduler.submit(make_item(graph, 1, rows=6)))
    assert await asyncio.to_thread(graph.entered.wait, 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await graph.let_run()
    after = asyncio.create_task(scheduler.submit(make_item(graph, 2)))
    await graph.let_run()
    await after
    assert graph.batches == [[1, 1], [2]]


async def test_a_deadline_counts_for_all_runs_of_a_request(scheduler: Scheduler) -> None:
    """Three runs of 1.5 seconds: refused at once where 2 seconds are left, though the first would end in time."""
    context = RpcContext(deadline=asyncio.get_running_loop().time() + 2.0)
    with pytest.raises(DeadlinePassed, match=r"an answer takes 4\.\d+ s"):
        await scheduler.submit(make_item(EchoGraph(COST), rows=6, context=context))


async def test_a_wait_that_is_too_long_counts_all_runs(scheduler: Scheduler) -> None:
    """Something waits, and the request's nine runs take longer than the ten seconds that are offered."""
    graph = SteppedGraph(COST)
    first = asyncio.create_task(scheduler.submit(make_item(graph)))
    assert await asyncio.to_thread(graph.entered.wait, 30)
    waiting = asyncio.create_task(scheduler.submit(make_item(graph)))
    await asyncio.sleep(0)
    with pytest.raises(TooBusy, match="--max-queue-seconds"):
        await scheduler.submit(make_item(graph, rows=18))
    for _ in range(2):
        await graph.let_run()
    await asyncio.gather(first, waiting)


async def test_a_server_that_stops_refuses_what_is_left(scheduler: Scheduler) -> None:
    """The first run ends; its caller is told to come again."""
    graph = SteppedGraph()
    task = asyncio.create_task(scheduler.submit(make_item(graph, 1, rows=4)))
    assert await asyncio.to_thread(graph.entered.wait, 30)
    scheduler.refuse_waiting()
    await graph.let_run()
    with pytest.raises(ShuttingDown):
        await task


async def test_every_run_is_charged_and_none_is_refused_for_its_quota(scheduler: Scheduler) -> None:
    """The request was admitted while something was left; what it took is owed when it is done."""
    clock = Clock()
    client = Client("a", quota=Quota("a", compute_seconds_per_second=1e-9, clock=clock))
    graph = EchoGraph(COST)
    await scheduler.submit(make_item(graph, rows=6, context=RpcContext(caller=client)))
    with pytest.raises(TooBusy):
        client.quota.admit()


async def test_a_single_row_that_takes_too_long_is_refused(scheduler: Scheduler) -> None:
    """It cannot be cut; the first of several rows is as long."""
    graph = EchoGraph(CostModel(0.5, 1.0, 0.0))
    for rows in (1, 5):
        with pytest.raises(InvalidInput, match=r"inputs: a row of 4 positions takes about 4 s .* at most 4 s"):
            await scheduler.submit(make_item(graph, rows=rows))
    await scheduler.submit(make_item(EchoGraph(CostModel(0.0, 1.0, 0.0))))


async def test_rows_of_which_none_takes_too_long_are_computed_together() -> None:
    """Two of three seconds each, of which a row may take four: --watchdog-seconds is of what cannot be cut."""
    graph = EchoGraph(CostModel(0.0, 0.75, 0.0))
    scheduler = Scheduler(ROOMY, Admission(9, 10**6, 100.0, row_seconds=4.0), 1, Metrics())
    scheduler.start()
    whole = await scheduler.submit(make_item(graph, rows=2))
    await scheduler.close()
    assert whole.batch_size == 2
