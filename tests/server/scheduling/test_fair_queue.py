"""Whose turn it is, in simulated time: an engine of one instance that takes what the cost model says."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.cost import CostModel
from server.scheduling.batch import BatchItem, BatchLimits, Load
from server.scheduling.fair_queue import FairQueue, choose_companions
from tests.server.fakes import CONTRACT, EchoGraph, make_item

LIMITS = BatchLimits(rows=8, tokens=256, attention_bytes=10**9)
COST = CostModel(run_seconds=0.002, token_seconds=0.0001, pair_seconds=1e-7)
GRAPH = EchoGraph(COST)


def make_waiting(
    length: int,
    *,
    rows: int = 1,
    arrived: float = 0.0,
    due: float | None = None,
    priority: int = 2,
    graph: EchoGraph = GRAPH,
    attentions: tuple[str, ...] = (),
) -> BatchItem:
    """A request that waits; by default it is due ten seconds after it came."""
    item = make_item(graph, length=length, rows=rows, attentions=attentions, priority=priority)
    item.arrived, item.due = arrived, arrived + 10 if due is None else due
    return item


def fill(*items: BatchItem, limits: BatchLimits = LIMITS) -> FairQueue:
    """A queue with these."""
    queue: FairQueue = FairQueue(limits)
    for item in items:
        queue.add(item)
    return queue


def lengths(batch: Sequence[BatchItem]) -> list[int]:
    """How long each request of a batch is."""
    return [item.length for item in batch]


def test_a_request_larger_than_any_limit_runs_alone() -> None:
    """It does not wait for ever for a batch that it fits."""
    queue = fill(make_waiting(400), make_waiting(400, arrived=1))
    assert [lengths(queue.take()), lengths(queue.take()), queue.take()] == [[400], [400], []]


def test_near_lengths_join_while_that_is_cheaper_than_two_runs() -> None:
    """With a fixed cost of 20 tokens' worth, 10 and 12 join a batch of 11, and 60 does not."""
    queue = fill(make_waiting(11), *(make_waiting(length, arrived=1) for length in (60, 12, 10)))
    assert lengths(queue.take()) == [11, 12, 10]
    assert lengths(queue.take()) == [60]


def test_a_batch_stops_growing_when_its_fixed_cost_is_negligible() -> None:
    """200 tokens cost 20 ms and more each; the 2 ms that a shared run saves are not worth anybody's wait."""
    queue = fill(*(make_waiting(500, arrived=index) for index in range(5)), limits=BatchLimits(8, 10**6, 10**9))
    assert lengths(queue.take()) == [500]


def test_free_instances_share_what_waits() -> None:
    """Six rows for two instances are three each."""
    queue = fill(*(make_waiting(8, arrived=index) for index in range(6)))
    assert [len(queue.take(2)), len(queue.take(1))] == [3, 3]


def test_a_graph_that_can_use_the_whole_machine_takes_everything_while_nothing_runs() -> None:
    """Six rows are one batch, not two."""
    graph = EchoGraph(COST)
    graph.can_use_all_threads = True
    queue = fill(*(make_waiting(8, arrived=index, graph=graph) for index in range(6)))
    assert len(queue.take(2, all_threads=True)) == 6


def test_requests_of_different_graphs_never_share_a_batch() -> None:
    """Plain and tapped, or two models: a caller who wants no attention never pays for one who does."""
    queue = fill(make_waiting(8), make_waiting(8, graph=EchoGraph(COST)), make_waiting(8))
    assert sorted([len(queue.take()), len(queue.take())]) == [1, 2]


def test_attention_requests_are_bounded_by_what_they_fetch() -> None:
    """Two rows of 4 heads and 16 x 16 weights take 8192 bytes; a limit below that keeps them apart."""
    first, other = (make_waiting(16, attentions=("attention.0",)) for _ in range(2))
    assert choose_companions(first, [other], BatchLimits(8, 256, attention_bytes=8192), share=8) == [other]
    assert choose_companions(first, [other], BatchLimits(8, 256, attention_bytes=8191), share=8) == []


def test_what_is_fetched_of_an_axis_that_is_no_sequence_has_its_own_size() -> None:
    """Two rows of 4 heads and 3 x 5 weights take 480 bytes, though each counts as one position."""
    axes = {"query_axis": "image", "key_axis": "words"}
    inputs = tuple(
        spec.model_copy(update={"axes": ("batch", axis)})
        for spec, axis in zip(CONTRACT.inputs, axes.values(), strict=True)
    )
    attention = (CONTRACT.attention[0].model_copy(update=axes),)
    contract = CONTRACT.model_copy(update={"inputs": inputs, "attention": attention})
    arrays = {spec.name: np.ones((1, size), dtype=np.int64) for spec, size in zip(inputs, (3, 5), strict=True)}
    item = BatchItem(GRAPH, contract, arrays, 1, 1, ("embedding",), ("attention.0",))
    load = Load.of([item, item])
    assert load.fits(BatchLimits(8, 256, attention_bytes=480))
    assert not load.fits(BatchLimits(8, 256, attention_bytes=479))


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 4)), max_size=20), st.integers(1, 64))
def test_no_batch_is_larger_than_its_limits_or_dearer_than_its_requests_alone(
    others: list[tuple[int, int]], length: int
) -> None:
    """Whatever waits: rows and padded tokens stay within bounds, and sharing never costs more than not sharing."""
    head, rest = make_waiting(length), [make_waiting(other, rows=rows) for other, rows in others]
    batch = [head, *choose_companions(head, rest, LIMITS, share=100)]
    load = Load.of(batch)
    assert len({id(item) for item in batch}) == len(batch)
    assert load.fits(LIMITS)
    alone = sum(COST.seconds(item.rows, item.length) for item in batch)
    assert COST.seconds(load.rows, load.longest) <= alone + 1e-9


def test_priorities_are_strict_and_deadlines_order_within_them() -> None:
    """The urgent one first, then by deadline, then by arrival."""
    long = BatchLimits(rows=1, tokens=256, attention_bytes=1)
    queue = fill(
        make_waiting(1, priority=3, due=1),
        make_waiting(2, priority=2, due=9),
        make_waiting(3, priority=2, due=5),
        make_waiting(4, priority=1, due=9),
        limits=long,
    )
    assert [lengths(queue.take())[0] for _ in range(4)] == [4, 3, 2, 1]


def test_no_length_starves_while_others_keep_coming() -> None:
    """An odd length waits for what was there before it, and for no more than one batch of what came after."""
    queue, clock = fill(*(make_waiting(8, arrived=0) for _ in range(16))), 0.0
    odd = make_waiting(100, arrived=0.001)
    queue.add(odd)
    for turn in itertools.count(1):  # noqa: B007 -- told at the end
        batch = queue.take()
        if odd in batch:
            break
        clock += queue.batch_seconds(batch)
        for _ in batch:  # those who were answered ask again at once
            queue.add(make_waiting(8, arrived=clock))
    assert turn <= 3


def test_a_burst_of_one_graph_leaves_the_other_its_half_of_the_engine() -> None:
    """Attention costs ten times as much and floods the queue; over time both graphs get the same seconds."""
    tapped = EchoGraph(CostModel(0.02, 0.001, 1e-6))
    queue: FairQueue = FairQueue(LIMITS)
    had, clock = {"plain": 0.0, "tapped": 0.0}, 0.0
    for _ in range(500):
        for graph in (tapped, GRAPH):
            for _ in range(20 - sum(item.graph is graph for item in queue)):
                queue.add(make_waiting(16, arrived=clock, graph=graph))
        batch = queue.take()
        seconds = queue.batch_seconds(batch)
        clock += seconds
        had["tapped" if batch[0].graph is tapped else "plain"] += seconds
    assert 0.8 < had["plain"] / had["tapped"] < 1.25


def test_a_group_that_slept_cannot_claim_the_time_it_did_not_use() -> None:
    """After a hundred plain batches, a first attention request does not get a hundred turns in a row."""
    tapped = EchoGraph(COST)
    queue: FairQueue = FairQueue(LIMITS)
    for turn in range(100):
        queue.add(make_waiting(200, arrived=turn))
        queue.take()
    for turn in range(10):
        queue.add(make_waiting(200, arrived=100 + turn, graph=tapped))
        queue.add(make_waiting(200, arrived=100 + turn))
    served = [queue.take()[0].graph is tapped for _ in range(6)]
    assert 2 <= sum(served) <= 4


def test_estimates_follow_what_runs_really_take() -> None:
    """An engine that turns out three times slower than measured is soon expected to be."""
    queue = fill()
    for turn in range(60):
        queue.add(make_waiting(16, arrived=turn))
        batch = queue.take()
        queue.learn(batch, 3 * COST.seconds(1, 16), whole=True)
    assert 2.8 < queue.run_seconds(make_waiting(16)) / COST.seconds(1, 16) < 3.2


def test_a_run_that_failed_counts_for_fairness_and_says_nothing_of_the_next() -> None:
    """One that broke at once would make the engine look fast."""
    queue, tapped = FairQueue(LIMITS), EchoGraph(COST)
    for turn in range(60):
        queue.add(make_waiting(16, arrived=turn, graph=tapped))
        queue.learn(queue.take(), COST.seconds(1, 16) / 100, whole=False)
    assert queue.run_seconds(make_waiting(16, graph=tapped)) == COST.seconds(1, 16)
    queue.add(make_waiting(16, arrived=60, graph=tapped))
    queue.learn(queue.take(), 1000.0, whole=False)  # and one that took its time has had its share
    queue.add(make_waiting(16, arrived=61, graph=tapped))
    queue.add(make_waiting(16, arrived=62))
    assert [queue.take()[0].graph is tapped for _ in range(2)] == [False, True]


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 3), st.booleans()), max_size=30))
def test_rows_and_bytes_are_accounted_for_exactly(arrivals: list[tuple[int, int, bool]]) -> None:
    """Whatever is added, removed or taken: an empty queue holds nothing and estimates no wait."""
    queue: FairQueue = FairQueue(LIMITS)
    for index, (length, rows, leaves) in enumerate(arrivals):
        item = make_waiting(length, rows=rows, arrived=index)
        queue.add(item)
        if leaves:
            assert queue.remove(item)
            assert not queue.remove(item)
    assert queue.rows == sum(item.rows for item in queue)
    assert queue.held_bytes == sum(item.held_bytes for item in queue)
    while queue.take():
        pass
    assert (len(queue), queue.rows, queue.held_bytes, queue.backlog_seconds()) == (0, 0, 0, 0.0)


def test_an_urgent_request_goes_first_whatever_its_graph_has_had() -> None:
    """Fair shares hold among equals: its graph has had an hour of the engine, and the other's has had nothing."""
    had, fresh = EchoGraph(COST), EchoGraph(COST)
    queue = fill(make_waiting(8, graph=had))
    queue.learn(queue.take(), 3600.0, whole=True)
    queue.add(make_waiting(8, graph=fresh, priority=2))
    queue.add(make_waiting(8, graph=had, priority=1))
    assert [queue.take()[0].graph is had for _ in range(2)] == [True, False]


def test_more_urgent_requests_share_a_batch_before_nearer_lengths() -> None:
    """Room for two: the urgent one of 30 tokens, not the other of exactly the same length."""
    head, near, urgent = make_waiting(20, priority=1), make_waiting(20, priority=3), make_waiting(30, priority=1)
    assert choose_companions(head, [near, urgent], LIMITS, share=2) == [urgent]


def test_padding_counts_for_a_batchs_tokens() -> None:
    """10 and 60 tokens make 120 with padding: a limit of 119 keeps them apart, though 70 are real."""
    load = Load.of([make_waiting(10), make_waiting(60)])
    assert load.fits(BatchLimits(8, 120, 10**9))
    assert not load.fits(BatchLimits(8, 119, 10**9))
    assert Load.of([make_waiting(1, rows=8)]).fits(BatchLimits(8, 8, 10**9))
    assert not Load.of([make_waiting(1, rows=9)]).fits(BatchLimits(8, 9, 10**9))


def test_what_is_less_urgent_is_not_waited_for() -> None:
    """A hundred rows of priority 3 say nothing about the wait of priority 2; those of 1 and 2 do."""
    queue = fill(*(make_waiting(16, priority=3, arrived=index) for index in range(100)))
    new = make_waiting(16, priority=2, arrived=200.0)
    assert queue.wait_seconds(new, new.order) == 0.0
    queue.add(make_waiting(16, priority=1))
    queue.add(make_waiting(16, priority=2))
    rows_seconds = COST.rows_seconds(2, 16)
    assert queue.wait_seconds(new, new.order) == pytest.approx(rows_seconds * 1.03)
    assert queue.wait_seconds(new, new.order, exactly=True) == pytest.approx(rows_seconds)
    assert queue.backlog_seconds() == pytest.approx(COST.rows_seconds(102, 16) * 1.03)


def test_another_graph_is_waited_for_no_longer_than_ones_own() -> None:
    """Fair shares: a second ahead in its own graph makes at most a second of the other's."""
    other = EchoGraph(COST)
    queue = fill(make_waiting(16), *(make_waiting(60, graph=other, arrived=index) for index in range(50)))
    new = make_waiting(16, arrived=100.0)
    own_seconds = COST.rows_seconds(1, 16) * 1.03
    assert queue.wait_seconds(new, new.order) == pytest.approx(2 * own_seconds)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9), st.integers(1, 64)), min_size=1, max_size=12))
def test_the_next_batch_begins_with_whoever_is_first_by_priority_due_and_arrival(
    waiting: list[tuple[int, int, int]],
) -> None:
    """Of one graph, told by sorting what waits here, not by the queue."""
    items = [
        make_waiting(length, priority=priority, due=due, arrived=index)
        for index, (priority, due, length) in enumerate(waiting)
    ]
    queue = fill(*items, limits=BatchLimits(1, 10**6, 10**9))
    ranked = sorted(range(len(items)), key=lambda index: (waiting[index][0], waiting[index][1], index))
    assert [queue.take() for _ in items] == [[items[index]] for index in ranked]
