"""Inputs of one call run together by length, each gets its own row, and others have their turn between the runs."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.dtypes import Array
from server.auth.clients import Client
from server.auth.quota import Quota
from server.context import RpcContext
from server.engine.cost import CostModel
from server.engine.faults import judge_gpu
from server.errors import DeadlinePassed, InternalFault, InvalidInput
from server.scheduling.admission import Admission
from server.scheduling.batch import BatchItem, BatchLimits, Result
from server.scheduling.collate import split
from server.scheduling.grouping import Each, Runs, group, merge
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.fakes import (
    POISON,
    Clock,
    EchoGraph,
    GatedGraph,
    SteppedGraph,
    SumGraph,
    make_item,
    occupy,
    scheduling,
)

COST = CostModel(run_seconds=0.5, token_seconds=0.125, pair_seconds=0.0)  # of a row of four tokens: half a second
ROOMY = BatchLimits(rows=100, tokens=10**6, attention_bytes=10**9)
OUTPUTS, ATTENTIONS = ("last_hidden_state", "embedding"), ("attention.0", "attention.1")


def of_lengths(graph: EchoGraph, *lengths: int, attentions: tuple[str, ...] = ()) -> list[BatchItem]:
    """Inputs of some lengths, each with its own number."""
    return [
        make_item(graph, number + 1, length=length, outputs=OUTPUTS, attentions=attentions)
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize(
    ("lengths", "limits", "groups"),
    [
        ([4, 4, 4], ROOMY, [[0, 1, 2]]),
        ([4] * 5, replace(ROOMY, rows=4), [[0, 1, 2], [3, 4]]),
        ([4, 100, 4], ROOMY, [[1], [0, 2]]),
        ([3, 5, 4], ROOMY, [[1, 2, 0]]),
        ([4, 4, 4, 4], replace(ROOMY, tokens=8), [[0, 1], [2, 3]]),
        ([4, 4, 4, 4], replace(ROOMY, seconds=1.5), [[0, 1], [2, 3]]),
        ([8, 9], replace(ROOMY, tokens=1), [[1], [0]]),
        ([], ROOMY, []),
    ],
)
def test_inputs_run_together_where_that_is_cheaper(
    lengths: list[int], limits: BatchLimits, groups: list[list[int]]
) -> None:
    """Padding to the longest costs less than a run, and no limit is passed but by a single row."""
    assert group(of_lengths(EchoGraph(COST), *lengths), limits) == groups


def test_every_instance_gets_its_share_of_many_inputs() -> None:
    """Two runs each, but none of fewer than eight rows for that."""
    items = of_lengths(EchoGraph(COST), *[4] * 64)
    sizes = {count: [len(one) for one in group(items[:count], ROOMY, 2)] for count in (7, 16, 31, 64)}
    assert sizes == {7: [7], 16: [8, 8], 31: [11, 11, 9], 64: [16] * 4}
    assert [len(one) for one in group(items, ROOMY)] == [32, 32], "of one, where nobody says how many there are"


def test_what_cannot_share_a_run_has_its_own() -> None:
    """A model whose first axis is no batch."""
    items = of_lengths(EchoGraph(COST), 4, 4)
    spec = items[0].contract.outputs[0]
    outputs = (spec.model_copy(update={"axes": (4, *spec.axes[1:])}), *items[0].contract.outputs[1:])
    contract = items[0].contract.model_copy(update={"outputs": outputs})
    assert group([replace(item, contract=contract) for item in items], ROOMY) == [[0], [1]]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_an_input_gets_from_a_shared_run_what_it_gets_alone(lengths: list[int]) -> None:
    """Outputs and attention, of its own length."""
    graph = EchoGraph(COST)
    items = of_lengths(graph, *lengths, attentions=ATTENTIONS)
    names = (*OUTPUTS, *ATTENTIONS)
    merged = merge(items)
    assert (merged.rows, merged.length) == (len(lengths), max(lengths))
    for item, part in zip(items, split(items, graph.run(merged.inputs, names)), strict=True):
        expected = graph.run(item.inputs, names)
        for name, array in {**part.outputs, **part.further}.items():
            np.testing.assert_array_equal(array, expected[name])


def values(outcomes: Sequence[object]) -> list[float | str]:
    """The sums that were computed, or the codes of errors."""
    return [
        float(one.outputs["embedding"].item()) if isinstance(one, Result) else one.code.name  # type: ignore[attr-defined]
        for one in outcomes
    ]


def test_rows_that_come_later_count_as_the_longest_that_is_there() -> None:
    """Nobody knows their lengths; a run of what is left counts as its own longest."""
    items = of_lengths(EchoGraph(COST), 11, 12, 12)
    runs = Runs(items, ROOMY, 1, later_rows=2, check=lambda item: None)
    assert runs.count == 1
    assert runs.seconds == pytest.approx(COST.rows_seconds(2, 12) + COST.seconds(3, 12))
    runs.take()
    assert runs.seconds == pytest.approx(COST.rows_seconds(2, 12))


def test_an_input_on_which_the_engine_fails_has_that_very_error() -> None:
    """Once it failed alone; what nothing became of is a fault of ours, too."""
    runs, error = Runs(of_lengths(EchoGraph(COST), 4, 4), ROOMY, 1, 0, check=lambda item: None), InternalFault()
    together, _ = runs.take()
    runs.fail(together, error)
    assert runs.count == 2
    alone, _ = runs.take()
    runs.fail(alone, error)
    found, unknown = runs.outcomes
    assert found is error
    assert isinstance(unknown, InternalFault) and unknown is not error


async def test_each_input_has_its_result_in_its_place() -> None:
    """However they were sorted; they are one request to whoever counts."""
    metrics, graph = Metrics(), SumGraph(COST)
    async with scheduling(metrics=metrics, instances=2) as scheduler:
        items = [make_item(graph, value, length=length) for value, length in ((1, 9), (2, 3), (3, 8), (4, 2), (5, 9))]
        assert values(await scheduler.submit_all(items)) == [9.0, 6.0, 24.0, 8.0, 45.0]
    assert sorted(map(len, graph.batches)) == [2, 3]
    assert metrics.submitted.value == 1.0
    assert metrics.cut.value == 1.0
    assert metrics.outcomes.labels("computed").value == 1.0


async def test_only_the_input_on_which_the_engine_fails_has_an_error() -> None:
    """The others of its run are computed without it."""
    graph = SumGraph(COST)
    async with scheduling() as scheduler:
        outcomes = await scheduler.submit_all([make_item(graph, value) for value in (1, POISON, 2)])
    assert values(outcomes) == [4.0, "INTERNAL", 8.0]
    assert isinstance(outcomes[1], InternalFault)


class LosingGraph(SumGraph):
    """Its second run loses the device."""

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        if self.batches:
            raise RuntimeError("CUDA failure 214: uncorrectable ECC error encountered ; GPU=0 ; hostname=here")
        return super().run(inputs, names)


async def test_a_device_that_fails_fails_those_inputs_that_ran_there() -> None:
    """Those that were computed before have their results."""
    scheduler = Scheduler(BatchLimits(2, 10**6, 10**9), Admission(9, 10**6, 100.0), 1, Metrics(), judge=judge_gpu)
    scheduler.start()
    graph = LosingGraph(COST)
    outcomes = await scheduler.submit_all([make_item(graph, value) for value in (1, 2, 3, 4)])
    assert values(outcomes) == [4.0, 8.0, "UNAVAILABLE", "UNAVAILABLE"]
    assert await scheduler.close(30)


async def test_an_input_that_would_take_too_long_is_an_error_of_its_own() -> None:
    """The others are computed."""
    graph = SumGraph(COST)
    scheduler = Scheduler(ROOMY, Admission(9, 10**6, 100.0, row_seconds=4.0), 1, Metrics())
    scheduler.start()
    outcomes = await scheduler.submit_all([make_item(graph, 1), make_item(graph, 1, length=90)])
    only_long = await scheduler.submit_all([make_item(graph, 1, length=90)])
    await scheduler.close()
    assert values([*outcomes, *only_long]) == [4.0, "INVALID_ARGUMENT", "INVALID_ARGUMENT"]
    assert isinstance(outcomes[1], InvalidInput)


async def test_all_runs_count_for_the_deadline() -> None:
    """Ten rows, four a run, half a second each: the call is refused at once where two seconds are left."""
    context = RpcContext(deadline=asyncio.get_running_loop().time() + 2.0)
    graph = SumGraph(COST)
    async with scheduling() as scheduler:
        with pytest.raises(DeadlinePassed):
            await scheduler.submit_all([make_item(graph, 1, context=context) for _ in range(10)])
    assert graph.batches == []


async def test_rows_that_come_later_count_for_the_deadline_too() -> None:
    """And are not asked for again: the call was admitted with its first."""
    soon = RpcContext(deadline=asyncio.get_running_loop().time() + 2.0)
    graph = SumGraph(COST)
    async with scheduling() as scheduler:
        with pytest.raises(DeadlinePassed):
            await scheduler.submit_all([make_item(graph, 1, context=soon)], 9)
        assert graph.batches == []
        await scheduler.submit_all([make_item(graph, 1, context=soon)], 9, goes_on=True)
    assert graph.batches == [[1]]


async def test_the_caller_is_charged_for_every_input() -> None:
    """Of the engine's time, all runs together; nothing stays reserved."""
    quota = Quota("alice", compute_seconds_per_second=1000.0, clock=Clock())
    context, graph = RpcContext(caller=Client("alice", quota=quota)), SumGraph(COST)
    async with scheduling() as scheduler:
        await scheduler.submit_all([make_item(graph, 1, context=context) for _ in range(10)])
    assert quota._seconds
    assert 0 < 1000.0 - quota._seconds._left < 1.0  # it did not take the five seconds that were reserved


def begin(calling: Coroutine[Any, Any, list[Each]]) -> "asyncio.Task[list[Each]]":
    """Let a call go on by itself."""
    return asyncio.create_task(calling)


async def test_others_have_their_turn_between_the_runs_of_a_call() -> None:
    """No more runs wait than there are instances."""
    graph = SteppedGraph()
    async with scheduling() as scheduler:
        call = begin(scheduler.submit_all([make_item(graph, 1) for _ in range(8)]))
        assert await asyncio.to_thread(graph.entered.wait, 30)
        other = asyncio.create_task(scheduler.submit(make_item(graph, 2)))
        await asyncio.sleep(0)
        for _ in range(3):
            await graph.let_run()
        await call
        await other
    assert graph.batches == [[1] * 4, [2], [1] * 4]


async def test_who_hangs_up_is_not_computed_further() -> None:
    """What runs ends; what waits never begins, and nothing is left in the queue."""
    metrics, graph = Metrics(), SteppedGraph()
    async with scheduling(metrics=metrics, instances=1) as scheduler:
        call = begin(scheduler.submit_all([make_item(graph, 1) for _ in range(8)]))
        assert await asyncio.to_thread(graph.entered.wait, 30)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await graph.let_run()
        after = asyncio.create_task(scheduler.submit(make_item(graph, 2)))
        await graph.let_run()
        await after
    assert graph.batches == [[1] * 4, [2]]
    assert metrics.outcomes.labels("cancelled").value == 1.0


async def test_no_run_of_a_call_stays_in_the_queue_when_its_caller_hangs_up() -> None:
    """As many wait as there are instances, here two."""
    metrics, graph = Metrics(), GatedGraph()
    async with scheduling(metrics=metrics, instances=2) as scheduler:
        before = await occupy(scheduler, graph)
        call = begin(scheduler.submit_all([make_item(graph, 1) for _ in range(12)]))
        await asyncio.sleep(0)
        assert len(scheduler._dispatcher) == 2
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        graph.gate.set()
        await before
    assert metrics.dropped.labels("cancelled").value == 2.0
    assert graph.batches == [[1]]
