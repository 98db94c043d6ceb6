"""The latency quantile's steps and bounds, written out by hand."""

import pytest

from server.scheduling.estimate import LatencyQuantile

LIMIT = 1.0


def test_an_answer_that_took_longer_moves_the_factor_up_by_99_hundredths_of_a_step() -> None:
    """A step is 0.05; one that did not moves it down by a hundredth of that."""
    quantile = LatencyQuantile(LIMIT)
    quantile.learn(0.5, 0.6)
    assert quantile.factor == pytest.approx(1 + 0.05 * 0.99)
    quantile.learn(0.5, 0.5)
    assert quantile.factor == pytest.approx(1 + 0.05 * 0.98)


def test_the_factor_stays_between_1_and_3() -> None:
    """However early or late the answers come."""
    quantile = LatencyQuantile(LIMIT)
    quantile.learn(0.5, 0.1)
    assert quantile.factor == 1.0
    for _ in range(100):
        quantile.learn(0.5, 100.0)
    assert quantile.factor == 3.0


def test_an_answer_as_late_as_foretold_was_in_time() -> None:
    """Exactly the estimate times the factor does not move it up."""
    quantile = LatencyQuantile(LIMIT)
    quantile.learn(0.5, 0.5)
    assert quantile.factor == 1.0


def test_waits_of_a_quarter_of_the_limit_teach_and_shorter_ones_do_not() -> None:
    """0.25 of a second, of one."""
    quantile = LatencyQuantile(LIMIT)
    quantile.learn(0.24, 1.0)
    assert quantile.factor == 1.0
    quantile.learn(0.25, 1.0)
    assert quantile.factor > 1.0
