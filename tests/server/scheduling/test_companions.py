"""Who shares a batch: whoever makes it cheaper than two runs, within its limits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.engine.cost import CostModel
from server.scheduling.batch import BatchItem, BatchLimits, Load
from server.scheduling.companions import choose_companions
from tests.server.fakes import CONTRACT, EchoGraph
from tests.server.scheduling.waiting import COST, GRAPH, LIMITS, fill, lengths, make_waiting


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


def test_it_takes_its_share_while_something_runs() -> None:
    """Six rows are two batches."""
    graph = EchoGraph(COST)
    graph.can_use_all_threads = True
    queue = fill(*(make_waiting(8, arrived=index, graph=graph) for index in range(6)))
    assert len(queue.take(2)) == 3


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


def test_sharing_that_costs_as_much_as_two_runs_is_done() -> None:
    """Eight and four tokens, a second for a run and a quarter for a token: five seconds either way, in fewer runs."""
    graph = EchoGraph(CostModel(run_seconds=1.0, token_seconds=0.25, pair_seconds=0.0))
    head, other, longer = (make_waiting(length, graph=graph) for length in (8, 4, 3))
    assert choose_companions(head, [other], LIMITS, share=8) == [other]
    assert choose_companions(head, [longer], LIMITS, share=8) == []


def test_a_batch_whose_fixed_part_is_just_negligible_is_full() -> None:
    """0.03 of exactly 1 second."""
    graph = EchoGraph(CostModel(run_seconds=0.03, token_seconds=0.97, pair_seconds=0.0))
    head, other = (make_waiting(1, graph=graph) for _ in range(2))
    assert choose_companions(head, [other], LIMITS, share=8) == []
