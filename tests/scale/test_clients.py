"""Replicas without a proxy: the client's own options under load from 16 callers, while one is killed and comes back."""

import signal
from contextlib import ExitStack

import pytest

from regard import replica_options
from tests.processes import serving
from tests.scale.calls import calling, start_together, wait_for_calls, wait_until_each_answers

pytestmark = pytest.mark.scale


def test_one_of_three_is_killed_and_comes_back_and_no_call_fails() -> None:
    """Each has its turn before; its calls are repeated on the others; then it has its turn again."""
    config = dict(replica_options())["grpc.service_config"]
    with ExitStack() as stack:
        replicas = start_together(stack, *(serving() for _ in range(3)))
        target = f"ipv4:{','.join(replica.address for replica in replicas)}"
        with calling(target, config) as callers:
            wait_until_each_answers(*replicas)
            replicas[0].stop(signal.SIGKILL)
            wait_for_calls(callers)
            wait_until_each_answers(stack.enter_context(serving("--listen", replicas[0].address)))


def test_one_that_ends_is_left_out_by_its_health_and_no_call_fails() -> None:
    """As in a rolling update."""
    config = dict(replica_options())["grpc.service_config"]
    with ExitStack() as stack:
        replicas = start_together(stack, *(serving() for _ in range(2)))
        with calling(f"ipv4:{','.join(replica.address for replica in replicas)}", config) as callers:
            for number in range(2):
                wait_until_each_answers(*replicas)
                assert replicas[number].stop() == 0
                wait_for_calls(callers)
                replicas[number] = stack.enter_context(serving("--listen", replicas[number].address))
