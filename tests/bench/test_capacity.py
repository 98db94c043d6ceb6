"""How many replicas a load needs, where arithmetic tells it."""

import pytest

from bench.capacity import burst, gpus, rate_within, replicas_for
from bench.load import in_turn
from bench.senders import Outcome
from bench.sizing import Comparison, configurations


def test_rates_are_read_off_between_those_that_were_simulated() -> None:
    """By a straight line; beyond them there is the last, and before them none."""
    p99_seconds = {100.0: 0.020, 200.0: 0.060}
    assert rate_within(p99_seconds, 0.030) == pytest.approx(125.0)
    assert rate_within(p99_seconds, 0.070) == 200.0
    assert rate_within(p99_seconds, 0.010) == 0.0


def test_one_replica_more_than_the_load_needs() -> None:
    """For the one that is being replaced."""
    assert replicas_for(1000, 250.0) == 5
    assert replicas_for(1001, 250.0) == 6


def test_a_burst_comes_when_it_is_said_to() -> None:
    """20 s at 50 a second, then 220 s at 150, in order."""
    times = burst(50.0, 150.0)
    assert times == sorted(times)
    assert sum(at < 20 for at in times) == pytest.approx(1000, rel=0.1)
    assert sum(at >= 20 for at in times) == pytest.approx(33_000, rel=0.03)


def test_gpus_are_as_many_as_their_fronts_can_feed() -> None:
    """5,000 calls a second of one row are less than 20,000 rows; of 64 they are more."""
    cells = [line.split(" | ") for line in gpus(1000, 20_000, 5_000, 0.5)][2:]
    assert [(row[1], row[2], row[3].rstrip(" |")) for row in cells] == [
        ("the front", "2,500", "2,500,000"),
        ("the GPU", "10,000", "10,000,000"),
        ("the GPU", "10,000", "10,000,000"),
    ]


def test_two_replicas_have_half_of_the_cores_each() -> None:
    """Of a single core there is one replica alone."""
    assert list(configurations([0, 1]).values()) == [[[0, 1]], [[0], [1]]]
    assert list(configurations([0, 2, 4]).values()) == [[[0, 2, 4]], [[0], [2]]]
    assert list(configurations([3]).values()) == [[[3]]]


def test_a_comparison_is_as_wrong_as_its_worst_percentile() -> None:
    """As a share of what was measured."""
    measured, simulated = (
        {"p50_ms": 10.0, "p95_ms": 20.0, "p99_ms": 40.0},
        {"p50_ms": 11.0, "p95_ms": 15.0, "p99_ms": 41.0},
    )
    assert Comparison(0.5, 100.0, 1.0, measured, simulated).error == pytest.approx(0.25)


async def test_callers_ask_several_servers_in_turn() -> None:
    """Each has every second request."""
    asked: list[str] = []

    async def first(body: bytes) -> Outcome:
        asked.append("first")
        return "answered"

    async def second(body: bytes) -> Outcome:
        asked.append("second")
        return "refused"

    send = in_turn([first, second])
    assert [await send(b"") for _ in range(3)] == ["answered", "refused", "answered"]
    assert asked == ["first", "second", "first"]
