"""Servers in simulated time, where arithmetic tells what must come out."""

from dataclasses import replace

import numpy as np
import pytest

from bench.capacity import burst
from bench.simulation.autoscaler import Autoscaler
from bench.simulation.machine import Machine, Residuals
from bench.simulation.service import Choice, Simulation, least_requests, round_robin
from server.engine.cost import CostModel
from tests.server.fakes import CONTRACT

SECONDS = 0.010  # of a run, whatever is in it
COST = CostModel(run_seconds=SECONDS)
# One instance, no batches, no front.
PLAIN = Machine(
    cost=COST,
    all_threads_cost=COST,
    all_threads=False,
    instances=1,
    loop_seconds=0.0,
    caller_seconds=0.0,
    noise=0.0,
    max_rows=1,
)
EXPONENTIAL = replace(
    PLAIN, residuals=(Residuals((1,) * 1000, tuple(-np.log(1 - (np.arange(1000) + 0.5) / 1000))), None)
)


def mean_seconds(machine: Machine, load: float, requests: int = 5_000) -> float:
    """The mean latency at a share of what one instance can do."""
    simulation = Simulation(machine, (10,), CONTRACT)
    simulation.open_loop(load / SECONDS, requests)
    return float(np.mean([seconds for _, seconds in simulation.latencies]))


def test_equal_runs_one_by_one_are_the_queue_of_the_textbook() -> None:
    """M/D/1 at 0.7: the mean wait is 0.7 / (2 x 0.3) runs (Pollaczek and Khinchine)."""
    assert mean_seconds(PLAIN, 0.7) == pytest.approx(SECONDS * (1 + 0.7 / 0.6), rel=0.05)


def test_runs_of_measured_lengths_are_too() -> None:
    """M/M/1 at half load: the mean is two runs."""
    assert mean_seconds(EXPONENTIAL, 0.5) == pytest.approx(SECONDS * 2, rel=0.05)


def test_batches_take_what_one_by_one_would_pile_up() -> None:
    """At three times what runs of one could do; a run of eight takes as long as one of one."""
    assert mean_seconds(replace(PLAIN, max_rows=8), 3.0) < 4 * SECONDS


def test_a_request_alone_takes_its_way_its_front_and_its_run() -> None:
    """On a machine that is half as fast, all but the way twice as long."""
    machine = replace(PLAIN, loop_seconds=0.002, caller_seconds=0.001, way_seconds=0.003, slow=2.0)
    figures = Simulation(machine, (10,), CONTRACT).closed_loop(1, requests=50)
    assert figures.p50_ms == pytest.approx(2 * (10 + 2 + 1) + 3)


def test_the_same_seed_makes_the_same_figures() -> None:
    """And another one others."""
    first, again, other = (Simulation(Machine(), (16,), CONTRACT, seed).open_loop(400, 500) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_run_is_as_uneven_as_those_that_were_measured_with_about_as_many_rows() -> None:
    """Nobody draws a residual of small batches for a large one."""
    residuals = Residuals((1,) * 100 + (32,) * 100, (1.0,) * 100 + (2.0,) * 100)
    random = np.random.default_rng(1)
    assert {residuals.draw(32, random) for _ in range(300)} == {1.0, 2.0}  # 25 neighbours on either side
    assert np.mean([residuals.draw(32, random) for _ in range(300)]) > 1.7
    assert np.mean([residuals.draw(1, random) for _ in range(300)]) < 1.3


def p99_of_four(choose: Choice) -> float:
    """With uneven runs, at 0.8 of what four replicas can do."""
    simulation = Simulation(EXPONENTIAL, (10,), CONTRACT, replicas=4, choose=choose)
    return simulation.open_loop(0.8 * 4 / SECONDS).p99_ms


def test_who_chooses_the_less_busy_replica_waits_less_than_who_goes_in_turn() -> None:
    """Where runs are uneven; in turn is not at random, so that equal runs show no difference."""
    assert p99_of_four(least_requests) < 0.8 * p99_of_four(round_robin)


def test_two_replicas_answer_twice_as_many() -> None:
    """In turn, each has every second request."""
    simulation = Simulation(PLAIN, (10,), CONTRACT, replicas=2)
    assert simulation.closed_loop(8, 1000).per_second == pytest.approx(2 / SECONDS, rel=0.02)


def burst_with(start_seconds: float) -> Simulation:
    """A load that goes from half of what one replica can do, two runs a second, to one and a half."""
    rows = CostModel(
        run_seconds=0.0, token_seconds=0.05
    )  # half a second for a row: what a queue's seconds are counted by
    simulation = Simulation(
        replace(PLAIN, cost=rows, all_threads_cost=rows),
        (10,),
        CONTRACT,
        autoscaler=Autoscaler(start_seconds),
        choose=least_requests,
    )
    simulation.open_loop_at(burst(1.0, 3.0))
    return simulation


def test_the_autoscalers_lag_is_backlog() -> None:
    """A second of it for every two seconds until a replica is there: look, decide, start."""
    soon, late = burst_with(10.0), burst_with(60.0)
    longest = [max(moment.queue_seconds for moment in one.moments) for one in (soon, late)]
    assert longest[1] - longest[0] == pytest.approx((60 - 10) / 2, rel=0.3)


def test_no_replica_answers_before_it_has_started() -> None:
    """The burst begins at 20 s; it is seen at 30 s at the soonest."""
    more = [moment.at for moment in burst_with(60.0).moments if moment.replicas > 1]
    assert more[0] >= 30 + 60


def test_the_autoscaler_asks_for_as_many_as_the_queue_is_targets_long() -> None:
    """No more than twice as many in a minute, and none for a tenth above the target."""
    assert Autoscaler(10.0).wanted(15.0, (0.54, 0.54), 0) == 2
    assert Autoscaler(10.0).wanted(15.0, (0.8, 0.6), 0) == 3
    assert Autoscaler(10.0).wanted(15.0, (5.0, 5.0), 0) == 4
    assert Autoscaler(10.0, max_replicas=3).wanted(15.0, (5.0, 5.0), 0) == 3


def test_the_autoscaler_counts_what_is_starting() -> None:
    """As replicas without a queue; and a minute later it may ask for more."""
    autoscaler = Autoscaler(10.0)
    assert autoscaler.wanted(15.0, (5.0,), 0) == 2
    assert autoscaler.wanted(30.0, (5.0,), 1) == 2
    assert autoscaler.wanted(90.0, (5.0,), 1) == 4


def test_the_autoscalers_metric_is_a_mean_over_a_minute() -> None:
    """One long queue among four looks is a quarter of it."""
    autoscaler = Autoscaler(10.0)
    for at in (15.0, 30.0, 45.0):
        assert autoscaler.wanted(at, (0.0,), 0) == 1
    assert autoscaler.wanted(60.0, (2.0,), 0) == 1
    assert autoscaler.wanted(75.0, (2.0,), 0) == 2
