"""Two replicas, one of them slow, behind Envoy, where that is there, or before gRPC's own balancing."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from bench.envoy import FILE, PROGRAM, Envoy, envoy_before
from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub
from tests.faults.callers import Callers, wait_until
from tests.processes import ServerProcess, serving
from tests.refusing import METHODS, Refusing, ask_for_all, refusing
from tests.scale.calls import SERVER, SLOW_SERVER, answered_by, ask

needs_envoy = pytest.mark.skipif(not PROGRAM, reason="no envoy (the extra regard[envoy] has one)")


@contextmanager
def two_replicas() -> Iterator[list[ServerProcess]]:
    """Start a server, and one that is slowed to a third; both tell of their load."""
    with ExitStack() as started:
        yield [started.enter_context(serving("--load-reports", program=program)) for program in (SERVER, SLOW_SERVER)]


@contextmanager
def balanced() -> Iterator[tuple[Envoy, list[ServerProcess]]]:
    """Start Envoy before two replicas, the second of which is slow."""
    with two_replicas() as replicas, envoy_before([replica.address for replica in replicas]) as envoy:
        wait_until(lambda: envoy.healthy == 2)
        yield envoy, replicas


def wait_until_spread(replicas: list[ServerProcess]) -> None:
    """Wait until the slow one has had less than half of the other's calls, of two hundred in a row."""
    before = [0, 0]

    def is_spread() -> bool:
        nonlocal before
        now = [answered_by(replica) for replica in replicas]
        fast, slow = (count - then for count, then in zip(now, before, strict=True))
        if fast + slow < 200:
            return False
        before = now
        return slow < fast / 2

    wait_until(is_spread)


@needs_envoy
def test_envoy_takes_its_configuration() -> None:
    """Every field of it: one that it does not know is an error, one that it will not know for long a warning."""
    command = [PROGRAM, "--mode", "validate", "--config-path", str(FILE), "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_envoy
def test_behind_envoy_a_slow_replica_gets_less_and_one_that_goes_is_not_missed() -> None:
    """By the reports that come with answers; then the fast one is killed, and every call is answered."""
    with balanced() as (envoy, replicas):
        callers = Callers(envoy.address, 8, "{}", ask)
        try:
            wait_until_spread(replicas)
            answered = callers.codes["OK"]
            replicas[0].process.kill()
            wait_until(lambda: callers.codes["OK"] > answered + 100)
        finally:
            ended = callers.end()
        assert set(ended) == {"OK"}, callers.messages


@pytest.mark.parametrize("out_of_band", [False, True])
def test_grpcs_clients_send_less_to_a_slow_replica(out_of_band: bool) -> None:
    """By the reports that come with answers, or by the stream of them beside."""
    weighted = {"blackoutPeriod": "1s", "enableOobLoadReport": out_of_band, "oobReportingPeriod": "1s"}
    policy = json.dumps({"loadBalancingConfig": [{"weighted_round_robin": weighted}]})
    with two_replicas() as replicas:
        callers = Callers(f"ipv4:{','.join(replica.address for replica in replicas)}", 8, policy, ask)
        try:
            wait_until_spread(replicas)
        finally:
            ended = callers.end()
    assert set(ended) == {"OK"}, callers.messages


@needs_envoy
def test_what_a_caller_brings_about_is_not_repeated() -> None:
    """An image that is none is refused by the first replica that it was sent to."""
    with balanced() as (envoy, _):
        bad = api.ClassifyRequest(model="fashion", image=b"none")

        def ask_badly(stub: RegardServiceStub) -> None:
            stub.Classify(bad, timeout=60)

        callers = Callers(envoy.address, 1, "{}", ask_badly)
        wait_until(lambda: callers.codes["INVALID_ARGUMENT"] > 4)
        assert set(callers.end()) == {"INVALID_ARGUMENT"}
        statistics = envoy.page("stats?filter=cluster.regard.(upstream_rq_retry$|outlier.*ejections_active)")
        assert re.findall(r": (\d+)", statistics) == ["0", "0"]


ONCE = re.compile(
    r"/(Load|Unload|Attend$|Generate$|RepositoryModel|ModelStreamInfer$|TraceS|LogS|.*Memory(Unr|R)egister)"
)


@contextmanager
def refusing_behind_envoy(code: grpc.StatusCode) -> Iterator[tuple[Refusing, Envoy]]:
    """Start Envoy before a server that refuses."""
    with refusing(code) as (replica, address), envoy_before([address]) as envoy:
        wait_until(lambda: envoy.healthy == 1)
        yield replica, envoy


@needs_envoy
def test_what_can_be_repeated_is_and_nothing_else() -> None:
    """Where a replica says UNAVAILABLE: once and three times more, but not what changes it, nor streams."""
    code = grpc.StatusCode.UNAVAILABLE
    with refusing_behind_envoy(code) as (replica, envoy):
        assert ask_for_all(envoy.address) == {code}
    assert replica.arrived == {method: 1 if ONCE.search(method) else 4 for method in METHODS}


@needs_envoy
def test_who_is_told_to_come_back_later_hears_it_at_once() -> None:
    """A refusal for load says when: other replicas would refuse as well."""
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    with refusing_behind_envoy(code) as (replica, envoy):
        assert ask_for_all(envoy.address) == {code}
    assert replica.arrived == dict.fromkeys(METHODS, 1)


@needs_envoy
@pytest.mark.parametrize(("mib", "times"), [(15, 4), (17, 1)])
def test_a_request_is_repeated_up_to_a_size(mib: int, times: int) -> None:
    """Envoy keeps it until it is answered, up to 16 MiB, its window of a stream."""
    predict = "/regard.v1.RegardService/Predict"
    with ExitStack() as stack:
        replica, envoy = stack.enter_context(refusing_behind_envoy(grpc.StatusCode.UNAVAILABLE))
        channel = stack.enter_context(grpc.insecure_channel(envoy.address))
        call = channel.unary_unary(predict, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError):
            call(bytes(mib * 2**20), timeout=60)
    assert replica.arrived == {predict: times}
