"""The margin's window and bounds, written out by hand."""

import pytest

from server.scheduling.estimate import LatencyMargin

LIMIT = 1.0


def taught(*answers: tuple[float, float]) -> LatencyMargin:
    """A margin that has seen so many answers: estimates, and what came."""
    margin = LatencyMargin(LIMIT)
    margin.learn(answers)
    return margin


def test_the_margin_is_what_the_slowest_hundredth_took_longer() -> None:
    """Of a hundred and fifty the second, of ninety-nine the first."""
    late = [(0.5, 0.8), (0.5, 0.7), (0.5, 0.6)]
    assert taught(*late, *[(0.5, 0.5)] * 147).seconds == pytest.approx(0.2)
    assert taught(*late, *[(0.5, 0.5)] * 96).seconds == pytest.approx(0.3)


def test_only_the_newest_1024_answers_tell() -> None:
    """Eleven that were late are forgotten one by one: ten of 1024 are the slowest hundredth."""
    margin = taught(*[(0.5, 0.9)] * 11, *[(0.5, 0.6)] * 1013)
    assert margin.seconds == pytest.approx(0.4)
    margin.learn([(0.5, 0.6)])
    assert margin.seconds == pytest.approx(0.1)


def test_the_margin_stays_between_nothing_and_half_of_the_limit() -> None:
    """However early or late the answers come: else nothing would be admitted, and nothing learned."""
    assert taught((0.5, 0.1)).seconds == 0.0
    assert taught((0.5, 100.0)).seconds == 0.5


def test_waits_of_a_quarter_of_the_limit_teach_and_shorter_ones_do_not() -> None:
    """0.25 of a second, of one."""
    assert taught((0.24, 0.5)).seconds == 0.0
    assert taught((0.25, 0.5)).seconds == pytest.approx(0.25)


def test_a_batch_of_short_waits_leaves_the_margin() -> None:
    """It says nothing of long ones."""
    margin = taught((0.5, 0.7))
    margin.learn([(0.1, 0.1)] * 5000)
    assert margin.seconds == pytest.approx(0.2)
