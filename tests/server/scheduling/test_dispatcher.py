"""When an instance begins what, in simulated time: no thread runs but where one is started."""

import threading
import time

import pytest

from server.engine.cost import CostModel
from server.errors import InternalFault
from server.scheduling import dispatcher as module
from server.scheduling.batch import Batch, BatchItem, BatchLimits
from server.scheduling.collate import compute
from server.scheduling.dispatcher import Dispatcher
from server.telemetry.timings import BatchTimes
from tests.server.fakes import POISON, Clock, GatedGraph, SumGraph, make_item

RUN_SECONDS, ROW_SECONDS = 8.0, 2.0
COST = CostModel(run_seconds=RUN_SECONDS, token_seconds=ROW_SECONDS / 4)
SECOND_NS = 10**9


@pytest.fixture
def graph() -> SumGraph:
    """A run costs eight seconds and two more for each row."""
    return SumGraph(COST)


def make(instances: int = 2, *, delay_seconds: float = 0.0, rows: int = 4) -> Dispatcher:
    """A dispatcher that has not started."""
    limits = BatchLimits(rows, 10**6, 10**9)
    return Dispatcher(limits, instances, delay_seconds, lambda batch: None, lambda item: None)


def add(dispatcher: Dispatcher, *items: BatchItem, arrived: float = 100.0) -> None:
    """Queue requests, which arrive when the clock starts unless it is told when."""
    for item in items:
        item.arrived = arrived
        dispatcher.add(item)


def begin(dispatcher: Dispatcher, graph: SumGraph, rows: int = 1) -> Batch:
    """Let an instance begin a batch of so many rows."""
    add(dispatcher, make_item(graph, rows=rows))
    return dispatcher._begin(0)


def end(dispatcher: Dispatcher, batch: Batch, seconds: float | None = None) -> None:
    """Let it end, after the time that it was expected to take or another."""
    expected = batch.ends - batch.started
    batch.times = BatchTimes(0, round((expected if seconds is None else seconds) * SECOND_NS), 0)
    dispatcher._end(batch)


def test_simulated_time_is_not_that_of_the_process(clock: Clock) -> None:
    """In which the event loop lives, and other tests' servers."""
    assert module.time.monotonic() == 100  # type: ignore[attr-defined] # what the module calls so
    assert time.monotonic is not clock


def test_a_run_ends_when_its_cost_says(clock: Clock, graph: SumGraph) -> None:
    """Ten seconds for one row, sixteen for four."""
    dispatcher = make()
    one, four = begin(dispatcher, graph), begin(dispatcher, graph, rows=4)
    assert [(batch.started, batch.ends, batch.instances) for batch in (one, four)] == [(100, 110, 1), (100, 116, 1)]
    assert dispatcher.running() == [one, four]


def test_only_what_finds_a_free_instance_is_told_so(clock: Clock, graph: SumGraph) -> None:
    """Whoever queues it wakes one."""
    dispatcher = make(1)
    assert dispatcher.add(make_item(graph))
    dispatcher._begin(0)
    assert not dispatcher.add(make_item(graph))


def test_the_wait_is_what_runs_and_what_waits_shared_among_the_instances(clock: Clock, graph: SumGraph) -> None:
    """And the run that one is part of; on a free instance that alone."""
    dispatcher, item = make(), make_item(graph)
    begin(dispatcher, graph)
    own = dispatcher.wait_seconds(item, item.order)
    assert own == 10
    begin(dispatcher, graph, rows=2)
    clock.now += 4
    assert dispatcher.wait_seconds(item, item.order) == (6 + 8) / 2 + own
    clock.now += 100  # both are late: they may end at any moment
    assert dispatcher.wait_seconds(item, item.order) == own
    add(dispatcher, make_item(graph, rows=3))
    waiting = 3 * ROW_SECONDS * 1.03
    assert dispatcher.backlog_seconds(with_running=True) == pytest.approx(waiting / 2)
    clock.now -= 102  # they end in eight and in ten seconds
    assert dispatcher.backlog_seconds() == pytest.approx(waiting / 2)
    assert dispatcher.backlog_seconds(with_running=True) == pytest.approx((waiting + 8 + 10) / 2)
    clock.now += 102
    assert dispatcher.wait_seconds(item, item.order) == pytest.approx(waiting / 2 + RUN_SECONDS + 4 * ROW_SECONDS)


def test_an_instance_of_an_idle_engine_begins_at_once(clock: Clock, graph: SumGraph) -> None:
    """One that has nothing to do, or is not there, waits until it is woken."""
    dispatcher = make(1)
    assert dispatcher._wait_seconds() is None
    add(dispatcher, make_item(graph))
    assert dispatcher._wait_seconds() == 0
    dispatcher._begin(0)
    add(dispatcher, make_item(graph))
    assert dispatcher._wait_seconds() is None


def test_while_others_work_it_waits_for_as_many_rows_as_it_has_answered(clock: Clock, graph: SumGraph) -> None:
    """For the fixed part of a run at most."""
    dispatcher = make()
    begin(dispatcher, graph, rows=4)
    end(dispatcher, begin(dispatcher, graph, rows=2))
    clock.now += 2
    add(dispatcher, make_item(graph))
    assert dispatcher._wait_seconds() == RUN_SECONDS - 2
    clock.now += 10
    assert dispatcher._wait_seconds() == 0
    clock.now -= 10
    add(dispatcher, make_item(graph))
    assert dispatcher._wait_seconds() == 0


def test_while_another_is_about_to_end_it_waits_to_share_with_it(clock: Clock, graph: SumGraph) -> None:
    """Though as many rows wait as it has answered; not for one that ends when the fixed part would be over."""
    dispatcher = make()
    other = begin(dispatcher, graph)
    end(dispatcher, begin(dispatcher, graph))
    add(dispatcher, make_item(graph))
    for ends, waits in ((107.5, RUN_SECONDS), (108, 0), (110, 0)):
        other.ends = ends
        assert dispatcher._wait_seconds() == waits
    end(dispatcher, other)
    assert dispatcher._wait_seconds() == 0


def test_the_next_that_ends_is_waited_for_not_the_last(clock: Clock, graph: SumGraph) -> None:
    """Of two that work, one ends soon."""
    dispatcher = make(3)
    soon, late = begin(dispatcher, graph), begin(dispatcher, graph)
    end(dispatcher, begin(dispatcher, graph))
    add(dispatcher, make_item(graph))
    soon.ends, late.ends = 101, 200
    assert dispatcher._wait_seconds() == RUN_SECONDS


@pytest.mark.parametrize(("expires", "waits"), [(127.0, RUN_SECONDS), (125.0, 0.0), (113.0, 0.0)])
def test_nobody_waits_for_company_who_has_no_time_for_it(
    clock: Clock, graph: SumGraph, expires: float, waits: float
) -> None:
    """A run takes ten seconds and the window eight: it takes up to half of what anybody has, seventeen here."""
    dispatcher, item = make(), make_item(graph)
    begin(dispatcher, graph, rows=4)
    end(dispatcher, begin(dispatcher, graph, rows=2))
    item.expires = expires
    add(dispatcher, item)
    assert dispatcher._wait_seconds() == waits
    clock.now += waits
    dispatcher._drop_late()
    assert dispatcher._begin(0).items == [item]


def test_what_is_cleared_waits_no_more(clock: Clock, graph: SumGraph) -> None:
    """Nobody computes it, and nothing of it is held."""
    dispatcher, items = make(1), [make_item(graph), make_item(graph)]
    add(dispatcher, *items)
    assert dispatcher.clear() == items
    assert (len(dispatcher), dispatcher.held_bytes, dispatcher.clear()) == (0, 0, [])


def test_no_more_rows_are_waited_for_than_a_batch_holds(clock: Clock, graph: SumGraph) -> None:
    """One request may be larger than that."""
    dispatcher = make(rows=4)
    begin(dispatcher, graph)
    end(dispatcher, begin(dispatcher, graph, rows=6))
    add(dispatcher, *(make_item(graph) for _ in range(4)))
    assert dispatcher._wait_seconds() == 0


@pytest.mark.parametrize(("expires", "waits"), [(113.0, 1.5), (121.0, 5.0)])
def test_nobody_is_too_late_for_a_delay(clock: Clock, graph: SumGraph, expires: float, waits: float) -> None:
    """A run takes ten seconds: who has three or eleven more waits for others for half of these, five at most."""
    dispatcher, item = make(1, delay_seconds=5), make_item(graph)
    item.expires = expires
    add(dispatcher, item)
    assert dispatcher._wait_seconds() == waits
    clock.now += waits
    dispatcher._drop_late()
    assert dispatcher._wait_seconds() == 0
    assert dispatcher._begin(0).items == [item]


def test_a_delay_is_kept_until_a_batch_is_full(clock: Clock, graph: SumGraph) -> None:
    """Counted from the first that waits; whoever closes does not wait for more."""
    dispatcher = make(1, delay_seconds=5, rows=3)
    add(dispatcher, make_item(graph))
    assert dispatcher._wait_seconds() == 5
    clock.now += 2
    add(dispatcher, make_item(graph), arrived=clock())
    assert dispatcher._wait_seconds() == 3
    add(dispatcher, make_item(graph), arrived=clock())
    assert dispatcher._wait_seconds() == 0
    hurried = make(1, delay_seconds=5)
    add(hurried, make_item(graph), arrived=clock())
    hurried._closing = True
    assert hurried._wait_seconds() == 0


def test_runs_of_one_instance_teach_how_slow_the_engine_is(clock: Clock) -> None:
    """A run with all threads is another kind, and teaches nothing of them."""
    one_thread, all_threads = SumGraph(COST), GatedGraph(COST)
    for graph, expected in ((one_thread, 8 * 1.1), (all_threads, 8.0)):
        dispatcher = make()
        batch = begin(dispatcher, graph)
        assert batch.instances == (1 if graph is one_thread else 2)
        end(dispatcher, batch, seconds=20)
        assert dispatcher._queue.fixed_seconds(make_item(graph)) == pytest.approx(expected)


def test_a_run_of_all_threads_ends_when_those_have_shown(clock: Clock) -> None:
    """Measured alone they take six seconds; one run that took twelve makes that a tenth longer."""
    dispatcher, graph = make(), GatedGraph(COST)
    graph.all_threads_cost = CostModel(run_seconds=6.0)
    for expected in (6.0, 6.6):
        batch = begin(dispatcher, graph, rows=4)
        assert batch.instances == 2
        assert batch.expected_seconds == pytest.approx(expected)
        end(dispatcher, batch, seconds=12.0)


def test_rows_that_nothing_runs_beside_are_shared_out_where_all_threads_are_slow(clock: Clock) -> None:
    """Four rows are two and two; a request of four cannot be cut, and has all threads."""
    cost = CostModel(run_seconds=0.5, token_seconds=ROW_SECONDS / 4)
    for rows, taken, instances in ((1, 2, 1), (4, 1, 2)):
        dispatcher, graph = make(), GatedGraph(cost)
        graph.all_threads_cost = CostModel(run_seconds=5.0)
        add(dispatcher, *(make_item(graph, rows=rows) for _ in range(4 // rows)))
        batch = dispatcher._begin(0)
        assert (len(batch.items), batch.instances) == (taken, instances)


def test_one_row_has_one_thread_where_that_is_measured_to_end_sooner(clock: Clock) -> None:
    """By a tenth: 2.5 seconds, though nothing else waits or runs; all threads once one has taken twice as long."""
    for all_threads_seconds, instances in ((2.74, 2), (2.76, 1)):
        dispatcher, graph = make(), GatedGraph(CostModel(run_seconds=0.5, token_seconds=ROW_SECONDS / 4))
        graph.all_threads_cost = CostModel(run_seconds=all_threads_seconds)
        batch = begin(dispatcher, graph)
        assert batch.instances == instances
        assert batch.expected_seconds == pytest.approx(2.5 if instances == 1 else all_threads_seconds)
    end(dispatcher, batch, seconds=5.0)
    assert begin(dispatcher, graph).instances == 2


def test_an_instance_that_leaves_something_wakes_the_next() -> None:
    """Two graphs wait and one instance is woken."""
    graphs, dispatcher = (GatedGraph(), GatedGraph()), make(2)
    for graph in graphs:
        graph.can_use_all_threads = False
    dispatcher.start()
    ends = time.monotonic() + 30
    while len(dispatcher._ready._waiters) < 2:  # type: ignore[attr-defined]
        assert time.monotonic() < ends
    add(dispatcher, *map(make_item, graphs))
    dispatcher.wake()
    assert all(graph.entered.wait(30) for graph in graphs)
    for graph in graphs:
        graph.gate.set()
    assert dispatcher.close(30)


def test_closing_waits_for_what_runs_as_long_as_it_may() -> None:
    """And says whether all have ended."""
    graph, dispatcher = GatedGraph(), make(1)
    dispatcher.start()
    dispatcher.add(make_item(graph))
    dispatcher.wake()
    assert graph.entered.wait(30)
    ended, ends = list[bool](), threading.Event()

    def close() -> None:
        ended.append(dispatcher.close(0.05))
        ends.set()

    threading.Thread(target=close, daemon=True).start()
    assert ends.wait(30)
    assert ended == [False]
    threading.Timer(0.1, graph.gate.set).start()
    assert dispatcher.close(30)
    assert dispatcher.close()


def test_a_run_that_fails_has_a_duration() -> None:
    """Of what it tried together and one by one."""
    graph = SumGraph()
    began = time.perf_counter_ns()
    outcomes, times = compute([make_item(graph, 2), make_item(graph, POISON)], all_threads=False)
    assert [isinstance(outcome, InternalFault) for outcome in outcomes] == [False, True]
    assert 0 < times.total_ns < time.perf_counter_ns() - began
    _, alone = compute([make_item(graph, POISON)], all_threads=False)
    assert (alone.collate_ns, alone.split_ns) == (0, 0)
    assert alone.run_ns == alone.total_ns > 0


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1)])
def test_an_instance_that_ends_says_why(error: BaseException) -> None:
    """For whatever reason; the watchdog reads it."""

    def fail(batch: Batch) -> None:
        raise error

    dispatcher = Dispatcher(BatchLimits(4, 10**6, 10**9), 1, 0.0, fail, lambda item: None)
    assert not dispatcher.lost
    dispatcher.start()
    dispatcher.add(make_item(SumGraph()))
    dispatcher.wake()
    assert dispatcher.close(30)
    assert dispatcher.lost == f"an instance of the engine has ended: {error!r}"
