"""Replicas behind Envoy under load from 16 callers: one is slow, one is killed, some are added, all are renewed."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bench.envoy import PROGRAM, ROUND_ROBIN, Envoy, envoy_before
from tests.faults.callers import wait_until
from tests.processes import ServerProcess, serving
from tests.scale.calls import (
    SERVER,
    SLOW_SERVER,
    answered_by,
    calling,
    start_together,
    wait_for_calls,
    wait_until_each_answers,
)
from tests.scale.names import Names, serving_names

pytestmark = [
    pytest.mark.scale,
    pytest.mark.skipif(not PROGRAM, reason="no envoy (the extra regard[envoy] has one)"),
]


class Replicas:
    """Servers whose addresses are those of one name: each on another of this machine's, all on one port."""

    def __init__(self, names: Names, stack: ExitStack) -> None:
        self._names, self._stack = names, stack
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def start(self, *numbers: int) -> list[ServerProcess]:
        """Start some at once; when all are ready, their addresses have the name."""
        listens = [("--listen", f"127.0.0.{number}:{self.port}") for number in numbers]
        started = start_together(self._stack, *(serving("--load-reports", *listen) for listen in listens))
        for number in numbers:
            self.name(number)
        return started

    def name(self, number: int) -> None:
        """Let an address have the name, whether anybody listens there or not."""
        self._names.addresses = tuple({*self._names.addresses, f"127.0.0.{number}"})

    def stop(self, replica: ServerProcess) -> None:
        """Take its name away, as a cluster does, and tell it to end."""
        host = replica.address.partition(":")[0]
        self._names.addresses = tuple(one for one in self._names.addresses if one != host)
        assert replica.stop() == 0


@contextmanager
def replicas_by_name(count: int) -> Iterator[tuple[Replicas, list[ServerProcess], Envoy]]:
    """Start replicas, and Envoy, which finds them by their name."""
    with ExitStack() as stack:
        names = stack.enter_context(serving_names(()))
        replicas = Replicas(names, stack)
        started = replicas.start(*range(1, count + 1))
        envoy = stack.enter_context(envoy_before([f"replica:{replicas.port}"], names.place))
        wait_until(lambda: envoy.healthy == count)
        yield replicas, started, envoy


def test_a_replica_slowed_to_a_third_gets_as_many_calls_by_turns() -> None:
    """So that it is the weights that spare it, where there are some (tests/deploy/test_balancing.py).

    Whether it is healthy Envoy does not ask: on a busy machine the slow one would not always say so within a second.
    """
    with ExitStack() as stack:
        replicas = start_together(stack, *(serving("--load-reports", program=one) for one in (SERVER, SLOW_SERVER)))
        addresses = [replica.address for replica in replicas]
        envoy = stack.enter_context(envoy_before(addresses, health_checks=[], **ROUND_ROBIN))
        before = [answered_by(replica) for replica in replicas]
        with calling(envoy.address) as callers:
            wait_for_calls(callers, 400)
        fast, slow = (answered_by(one) - count for one, count in zip(replicas, before, strict=True))
        assert slow > 0.8 * fast


def test_one_of_three_is_killed_and_no_call_fails() -> None:
    """Its calls are repeated on the others; then it comes back."""
    with replicas_by_name(3) as (replicas, (first, *others), envoy), calling(envoy.address) as callers:
        wait_until_each_answers(first, *others)
        first.stop(signal.SIGKILL)
        wait_until(lambda: envoy.healthy == 2)
        wait_for_calls(callers)
        wait_until_each_answers(*replicas.start(1))


def test_from_one_to_three_and_back_no_call_fails() -> None:
    """New addresses of the name get calls; those that end are not missed."""
    with replicas_by_name(1) as (replicas, (first,), envoy), calling(envoy.address) as callers:
        wait_until_each_answers(first)
        second, third = replicas.start(2, 3)
        wait_until_each_answers(first, second, third)
        for replica in (first, second):
            replicas.stop(replica)
            wait_for_calls(callers)
        wait_until(lambda: envoy.healthy == 1)
        wait_until_each_answers(third)


def test_all_are_restarted_one_after_the_other_and_no_call_fails() -> None:
    """Each on its own address, which keeps its name: it says that it ends to the health check alone."""
    with replicas_by_name(2) as (replicas, started, envoy), calling(envoy.address):
        for number, replica in enumerate(started, start=1):
            assert replica.stop() == 0
            wait_until_each_answers(*replicas.start(number))


def test_one_that_comes_late_is_noticed_before_anybody_calls() -> None:
    """Which Envoy looks for once a minute by itself."""
    with replicas_by_name(1) as (replicas, _, envoy):
        replicas.name(2)
        wait_until(lambda: envoy.page("clusters").count("health_flags::/failed_active_hc") == 1)
        replicas.start(2)
        wait_until(lambda: envoy.healthy == 2, seconds=30)
