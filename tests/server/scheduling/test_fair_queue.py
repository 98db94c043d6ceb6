"""Whose turn it is, in simulated time: an engine of one instance that takes what the cost model says."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.cost import CostModel
from server.scheduling.batch import BatchLimits
from server.scheduling.fair_queue import FairQueue
from tests.server.fakes import EchoGraph
from tests.server.scheduling.waiting import COST, GRAPH, LIMITS, fill, lengths, make_waiting


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


@pytest.mark.parametrize(("times", "slowdown"), [(0.0, 0.91), (0.05, 0.91), (5.0, 1.4), (10.0, 1.9), (1000.0, 1.9)])
def test_one_run_teaches_so_much_and_is_charged_in_full(times: float, slowdown: float) -> None:
    """A tenth of what it took, which counts as a tenth of what was expected at least, ten times that at most."""
    queue = fill(make_waiting(16))
    expected = COST.seconds(1, 16)
    batch = queue.take()
    (share,) = queue._shares.values()
    assert share.served_seconds == pytest.approx(expected)
    queue.learn(batch, times * expected, whole=True)
    assert share.served_seconds == pytest.approx(times * expected)
    assert queue.run_seconds(make_waiting(16)) == pytest.approx(slowdown * expected)


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


def test_a_run_that_took_what_was_expected_corrects_nothing() -> None:
    """One graph had a run of 16 tokens as estimated, the other one of 40: it is the first one's turn."""
    first, other = EchoGraph(COST), EchoGraph(COST)
    queue = fill(make_waiting(16, graph=first))
    batch = queue.take()
    queue.learn(batch, queue.batch_seconds(batch), whole=True)
    queue.add(make_waiting(40, graph=other))
    queue.take()
    queue.add(make_waiting(16, arrived=2, graph=first))
    queue.add(make_waiting(16, arrived=1, graph=other))
    assert queue.take()[0].graph is first


def test_an_idle_graph_that_asks_one_at_a_time_cannot_claim_its_past() -> None:
    """It never has two waiting, and gets every second turn, not a hundred in a row."""
    late = EchoGraph(COST)
    queue: FairQueue = FairQueue(LIMITS)
    for turn in range(100):
        queue.add(make_waiting(200, arrived=turn))
        queue.take()
    served = []
    for turn in range(6):
        if not any(item.graph is late for item in queue):
            queue.add(make_waiting(200, arrived=100 + turn, graph=late))
        queue.add(make_waiting(200, arrived=100 + turn))
        served.append(queue.take()[0].graph is late)
    assert sum(served) == 3


def test_a_run_is_expected_to_grow_until_its_fixed_part_is_negligible() -> None:
    """16 tokens take 1.6256 ms and the fixed part 2 ms, which is 3 % of 42 rows; more that wait do not count."""
    queue = fill(*(make_waiting(16) for _ in range(60)), limits=BatchLimits(100, 10**6, 10**9))
    assert queue.run_seconds(make_waiting(16)) == pytest.approx(COST.seconds(42, 16))


def test_who_leaves_takes_nothing_but_their_own_part_of_the_backlog() -> None:
    """Of three, one hangs up: two are waited for."""
    items = [make_waiting(16) for _ in range(3)]
    queue = fill(*items)
    queue.remove(items[1])
    assert queue.backlog_seconds() == pytest.approx(COST.rows_seconds(2, 16) * 1.03)


def test_nobody_is_ahead_of_themselves() -> None:
    """Not in the exact estimate either."""
    item = make_waiting(16)
    assert fill(item).wait_seconds(item, item.order, exactly=True) == 0.0


@pytest.mark.parametrize(("expires", "offered", "rows"), [(5.0, 6.0, 1), (6.0, 5.0, 4)])
def test_what_would_not_end_in_time_is_taken_out_before_it_begins(expires: float, offered: float, rows: int) -> None:
    """By how slow the engine is: by the caller's time if it ran alone, by what was offered in its batch."""
    item, slow = make_waiting(16), 2 * COST.seconds(rows, 16)
    item.expires, item.offered = expires, offered
    queue = fill(*(make_waiting(16) for _ in range(3)))
    queue._group(item).slowdown = 2.0
    queue.add(item)
    assert queue.drop_late(5.0 - slow - 1e-6) == []
    assert queue.drop_late(5.0 - slow) == [item]
    assert len(queue) == 3


@pytest.mark.parametrize(("others", "begin_by"), [(0, 5.0), (1, -15.0)])
def test_who_is_alone_is_tried_until_its_deadline(others: int, begin_by: float) -> None:
    """However slow the engine seems to be: twenty seconds for what has five."""
    item, queue = make_waiting(16), fill(*(make_waiting(16) for _ in range(others)))
    item.expires, queue._group(item).slowdown = 5.0, 20 / COST.seconds(1, 16)
    queue.add(item)
    assert item.begin_by == pytest.approx(begin_by)


@pytest.mark.parametrize(("share", "is_offer"), [(-1.0, True), (0.5, True), (1.5, False)])
def test_a_deadline_may_be_nearer_than_what_was_offered_and_leave_more_time(share: float, is_offer: bool) -> None:
    """In its batch a request takes longer than alone; the deadline is nearer by some share of that."""
    item, longer = make_waiting(16), COST.seconds(4, 16) - COST.seconds(1, 16)
    item.expires, item.offered = 5.0, 5.0 + share * longer
    fill(*(make_waiting(16) for _ in range(3)), item)
    assert item.is_offer_first == is_offer
