"""When throughput is back, where arithmetic tells what must come out."""

import math

import pytest

from bench.balancing import seconds_until_back


def every(interval: float, first: float, last: float) -> list[float]:
    """Answers at regular intervals."""
    return [first + number * interval for number in range(round((last - first) / interval))]


def test_throughput_is_back_where_half_a_second_has_nine_tenths_of_the_answers() -> None:
    """A hundred a second before; none for a second; then as many again."""
    answered = [*every(0.01, 0, 10), *every(0.01, 11, 20)]
    assert seconds_until_back(answered, killed=10, before=100) == pytest.approx(1, abs=0.011)


def test_where_nothing_stops_it_is_back_at_once() -> None:
    """From the moment of the kill."""
    assert seconds_until_back(every(0.01, 0, 20), killed=10, before=100) == 0


def test_what_stays_slower_never_comes_back() -> None:
    """Eighty of a hundred."""
    assert seconds_until_back([*every(0.01, 0, 10), *every(0.0125, 10, 20)], killed=10, before=100) == math.inf
