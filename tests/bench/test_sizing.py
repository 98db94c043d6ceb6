"""The simulation of a replica, where arithmetic tells what must come out."""

import dataclasses

import numpy as np
import pytest

from artifact.contract import CONTRACT_FILE, read_contract
from bench.sizing import Point, Replica, Simulation, fit_peak, fit_replica, rate_measured, rate_within
from server.engine.cost import CostModel
from tests.golden import GOLDEN_MODELS

CONTRACT = read_contract(GOLDEN_MODELS / "tiny-text" / "1" / CONTRACT_FILE)
FEW = 2000  # requests
# A run takes 4 ms and 1 ms for each row of 10 tokens; the event loop 1 ms a request.
REPLICA = Replica(CostModel(run_seconds=0.004, token_seconds=0.0001), 0.001, 0.0, 2, 10, CONTRACT)


def test_alone_a_request_takes_its_run_and_the_loop() -> None:
    """Once a second, nobody waits."""
    latencies = Simulation(REPLICA, FEW).open_loop(1.0)
    assert np.median(latencies) == pytest.approx(0.006)
    assert latencies.min() == pytest.approx(0.006)


def test_a_caller_in_a_closed_loop_asks_as_often_as_it_is_answered() -> None:
    """One caller: 1 / 6 ms. Many: batches, until the event loop is full."""
    assert Simulation(REPLICA, FEW).closed_loop(1) == pytest.approx(1 / 0.006, rel=0.01)
    assert Simulation(REPLICA, FEW).closed_loop(64) == pytest.approx(1000, rel=0.02)


def test_without_batching_it_is_the_queue_of_the_textbook() -> None:
    """M/D/1 at half load: the mean wait is half a service time (Pollaczek and Khinchine)."""
    slow = dataclasses.replace(
        REPLICA, cost=CostModel(run_seconds=0.0, token_seconds=0.001), instances=1, loop_seconds=0.0
    )
    latencies = Simulation(slow, FEW).open_loop(50.0)  # 10 ms each, alone or together
    assert latencies.mean() == pytest.approx(0.010 + 0.005, rel=0.25)


def test_a_replica_is_read_off_its_service_time_curve() -> None:
    """The line goes through the points; what one caller waits beyond its run and the loop is the way."""
    curve = [Point(rows, 0.004 + 0.001 * rows, 0.001, 0.008 + rows, 100.0) for rows in (1.0, 3.5, 12.0)]
    curve[0] = curve[0]._replace(latency_seconds=0.008)
    replica = fit_replica(curve, 2, 10, CONTRACT)
    assert replica.cost.seconds(7, 10) == pytest.approx(0.011)
    assert replica.way_seconds == pytest.approx(0.002)
    assert np.median(Simulation(replica, FEW).open_loop(1.0)) == pytest.approx(0.008)


def test_the_costs_that_make_a_peak_are_found() -> None:
    """From the peak that they make."""
    slow = dataclasses.replace(REPLICA, cost=CostModel(run_seconds=0.010, token_seconds=0.00025))
    peak = Simulation(slow, FEW).closed_loop(128)
    assert fit_peak(REPLICA, peak, FEW).cost.run_seconds == pytest.approx(0.010, rel=0.05)


def test_rates_are_read_off_between_those_measured() -> None:
    """And outside of them only a bound is known."""
    p99 = {100.0: 0.020, 200.0: 0.060}
    rate, bound = rate_measured(p99, 0.030)
    assert rate == pytest.approx(125.0)
    assert bound == ""
    assert rate_measured(p99, 0.010) == (100.0, "<")
    assert rate_measured(p99, 0.070) == (200.0, ">")


def test_a_shorter_time_allows_fewer_requests() -> None:
    """And a time that nobody can keep allows next to none."""
    rates = [rate_within(REPLICA, 1000, seconds, FEW) for seconds in (0.003, 0.010, 0.050)]
    assert rates == sorted(rates)
    assert rates[0] < 20
    assert 50 < rates[1] < rates[2] < 1000
