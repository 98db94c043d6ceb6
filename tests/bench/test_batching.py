"""What the dispatcher's rules do under load, in the simulated time of bench/batching.py."""

import pytest

from bench.batching import SHORT, Figures, Machine, Simulation
from tests.server.fakes import CONTRACT

ONE_THREAD = Machine(all_threads=False)


def under(callers: int, machine: Machine) -> Figures:
    """What so many callers see, who ask again at once."""
    return Simulation(machine, SHORT, CONTRACT).closed_loop(callers, requests=2000)


def test_a_caller_alone_has_all_threads() -> None:
    """All the time, and is answered after a run, its way and the event loop's part."""
    machine = Machine(noise=0.0)
    figures = under(1, machine)
    expected = machine.all_threads_cost.seconds(1, 16) + machine.loop_seconds + machine.way_seconds
    assert figures.p50_ms == pytest.approx(expected * 1e3)
    assert (figures.rows, figures.all_threads) == (1.0, 1.0)


def test_what_is_simulated_is_what_was_measured() -> None:
    """MiniLM on two CPUs: 316, 593 and 800 a second for 1, 8 and 128 callers (docs/performance.md), within a tenth."""
    assert [under(callers, Machine()).per_second for callers in (1, 8, 128)] == pytest.approx([316, 593, 800], rel=0.1)


def test_an_open_load_is_answered_as_it_comes() -> None:
    """At 300 a second, each before long; a server that nobody waits for is no faster than its callers."""
    figures = Simulation(Machine(), SHORT, CONTRACT).open_loop(300, requests=2000)
    assert figures.per_second == pytest.approx(300, rel=0.05)
    assert figures.p50_ms < figures.p99_ms < 20


def test_all_threads_run_where_they_are_faster() -> None:
    """8 callers: 601 a second, against 567 with runs of one thread."""
    assert under(8, Machine()).per_second > 590
    assert under(8, ONE_THREAD).per_second < 580


def test_all_threads_do_not_run_where_the_event_loop_hinders_them() -> None:
    """32 callers: 757 a second, against 726 with runs of all threads."""
    figures = under(32, Machine())
    assert figures.per_second > 745
    assert figures.all_threads < 0.2


def test_the_same_load_has_all_threads_on_a_machine_where_nothing_hinders_them() -> None:
    """Nothing but what runs took tells one machine from the other."""
    assert under(32, Machine(hindered=0.8)).all_threads > 0.8


def test_shares_of_what_waits_and_runs_keep_batches_large() -> None:
    """8 callers, runs of one thread: 2.9 rows a batch; 2.3, and 8 % fewer answers, by the share of what waits."""
    figures = under(8, ONE_THREAD)
    assert figures.rows > 2.7
    assert figures.per_second > 550
