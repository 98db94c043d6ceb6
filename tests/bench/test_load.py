"""Callers in Python: when requests are due, from when they count, and what becomes of them."""

import asyncio
import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from bench.load import Tally, arrivals, ask_at_a_rate, pick
from bench.senders import Outcome
from regard.v1 import regard_pb2 as api

REQUESTS = [(b"plain", False)]


@dataclass
class FakeTime:
    """Goes on when somebody sleeps, or when a server stalls everything."""

    seconds: float = 100.0

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        until = self.seconds + seconds
        await asyncio.sleep(0)
        self.seconds = max(self.seconds, until)


def test_arrivals_are_the_same_for_the_same_seed() -> None:
    """And others for another one."""
    first, again, other = (list(arrivals(100.0, 50.0, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first[:3] != other[:3]
    assert sorted(first) == first
    assert first[-1] < 50


def test_arrivals_are_a_poisson_process() -> None:
    """As many as asked for, and intervals whose deviation is their mean."""
    intervals = np.diff(list(arrivals(100.0, 100.0)))
    assert len(intervals) == pytest.approx(10_000, rel=0.03)
    assert intervals.std() == pytest.approx(intervals.mean(), rel=0.05)


async def test_a_stall_is_not_hidden() -> None:
    """What was due while nothing could be sent counts from when it was due, and is told to be late."""
    time = FakeTime()

    async def stall_once(_: bytes) -> Outcome:
        if time.seconds < 101:
            time.seconds += 4.0
        return "answered"

    tally = Tally(time.now)
    due = [0.5, 1.5, 2.5, 5.5]
    await ask_at_a_rate(stall_once, itertools.cycle(REQUESTS), tally, due, time.now, time.sleep)
    assert tally.plain == pytest.approx([4000, 3000, 2000, 0])
    assert tally.late == pytest.approx([0, 3000, 2000, 0])
    assert tally.report(6.0)["late_p50_ms"] == pytest.approx(1000)


async def test_what_becomes_of_requests_is_told_apart() -> None:
    """Answers with attention from those without, refusals from failures."""
    outcomes: dict[bytes, Outcome] = {b"1": "answered", b"2": "answered", b"3": "refused", b"4": "failed"}

    async def send(body: bytes) -> Outcome:
        return outcomes[body]

    tally, time = Tally(), FakeTime()
    for body in outcomes:
        await tally.ask(send, (body, body == b"2"), time.now())
    found = tally.report(2.0)
    assert (len(tally.plain), len(tally.attentive), found["refused"], found["errors"]) == (1, 1, 1, 1)
    assert found["per_second"] == 1.0


def test_a_share_of_requests_asks_for_attention() -> None:
    """The same ones each time, and marked."""
    first, again = (list(itertools.islice(pick("16", 0.5), 40)) for _ in range(2))
    assert first == again
    assert 10 < sum(attentive for _, attentive in first) < 30
    for body, attentive in first:
        assert api.PredictRequest.FromString(body).HasField("attention") == attentive
