"""What the dispatcher's rules do under load, in the simulated time of bench/simulation."""

import pytest

from bench.batching import SHORT
from bench.simulation.machine import OPEN, Machine
from bench.simulation.service import Figures, Simulation
from tests.server.fakes import CONTRACT

ONE_THREAD = Machine(all_threads=False)


def under(callers: int, machine: Machine) -> Figures:
    """What so many callers see, who ask again at once."""
    return Simulation(machine, SHORT, CONTRACT).closed_loop(callers, requests=2000)


def test_a_caller_alone_has_all_threads() -> None:
    """All the time, and is answered after a run, its way and the event loop's part."""
    machine = Machine(noise=0.0)
    figures = under(1, machine)
    expected = machine.all_threads_cost.seconds(1, 16) + machine.loop_seconds + machine.caller_seconds
    assert figures.p50_ms == pytest.approx(expected * 1e3)
    assert (figures.rows, figures.all_threads) == (1.0, 1.0)


def test_what_is_simulated_is_what_was_measured() -> None:
    """MiniLM on two CPUs: 316, 593 and 800 a second for 1, 8 and 128 callers (docs/performance.md), within a tenth."""
    assert [under(callers, Machine()).per_second for callers in (1, 8, 128)] == pytest.approx([316, 593, 800], rel=0.1)


def test_callers_in_an_open_loop_see_what_was_measured() -> None:
    """Python callers at 0.5 and 0.7 of the peak of 793: p50 and p99, 11.7 and 36.5, 23.3 and 53.6 ms; within a half."""
    seen = [Simulation(OPEN, SHORT, CONTRACT).open_loop(rate, requests=2000) for rate in (0.5 * 793, 0.7 * 793)]
    measured = (11.7, 36.5, 23.3, 53.6)
    assert [value for one in seen for value in (one.p50_ms, one.p99_ms)] == pytest.approx(measured, rel=0.5)


def test_who_is_accepted_in_an_overload_is_answered_within_what_was_offered() -> None:
    """At one and a half times the peak, seen by the callers; and no less than nine tenths of it is answered."""
    peak = Simulation(OPEN, SHORT, CONTRACT).closed_loop(128).per_second
    figures = Simulation(OPEN, SHORT, CONTRACT, offered_seconds=0.5).open_loop(1.5 * peak, requests=6000)
    assert figures.p99_ms < 500
    assert figures.per_second > 0.87 * peak
    assert 0.3 < figures.refused < 0.42


def test_all_threads_run_where_they_are_faster() -> None:
    """8 callers as before, whose rows are too few to be shared out; 32 where nothing hinders all threads."""
    assert under(8, Machine()).all_threads == 1.0
    assert under(32, Machine(hindered=0.8)).all_threads > 0.9


def test_rows_are_shared_out_where_the_event_loop_hinders_all_threads() -> None:
    """32 callers in Python: 722 a second, against 651 with runs of all threads."""
    figures = under(32, OPEN)
    assert figures.per_second > 700
    assert figures.all_threads < 0.5


def test_an_open_load_is_answered_as_it_comes() -> None:
    """At 300 a second, each before long; a server that nobody waits for is no faster than its callers."""
    figures = Simulation(Machine(), SHORT, CONTRACT).open_loop(300, requests=2000)
    assert figures.per_second == pytest.approx(300, rel=0.05)
    assert figures.p50_ms < figures.p99_ms < 20
