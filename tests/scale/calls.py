"""16 callers of the small model that the server embeds, none of whose calls may fail; and which replica answers."""

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np

from bench.envoy import fetch
from regard import encoding
from regard.v1.regard_pb2_grpc import RegardServiceStub
from tests.faults.callers import Callers, wait_until
from tests.processes import ServerProcess

SERVER, SLOW_SERVER = ((sys.executable, "-m", module) for module in ("server", "bench.slowed"))
CALLERS = 16
IMAGES = np.zeros((8, 1, 28, 28), np.float32)
REQUEST = encoding.predict_request({"pixel_values": IMAGES}, "fashion", "", ("logits",), None, 0)


def ask(stub: RegardServiceStub) -> None:
    """Let the small model that the server embeds run."""
    stub.Predict(REQUEST, timeout=60)


def answered_by(replica: ServerProcess) -> int:
    """How many calls it has answered."""
    counted = re.findall(r'^regard_requests_total{code="OK",method="Predict".*} (.+)$',
                         fetch(replica.metrics_address, "metrics"), re.MULTILINE)  # fmt: skip
    return int(float(counted[0])) if counted else 0


def start_together(stack: ExitStack, *servers: AbstractContextManager[ServerProcess]) -> list[ServerProcess]:
    """Start servers at once, each of which takes a core for seconds."""
    with ThreadPoolExecutor(len(servers)) as threads:
        return list(threads.map(stack.enter_context, servers))


@contextmanager
def calling(address: str, service_config: str = "{}") -> Iterator[Callers]:
    """Let callers call, all of whose calls have to be answered."""
    callers = Callers(address, CALLERS, service_config, ask)
    try:
        yield callers
    finally:
        ended = callers.end()
    assert set(ended) == {"OK"}, callers.messages


def wait_for_calls(callers: Callers, count: int = 200) -> None:
    """Wait until so many more are answered."""
    enough = callers.codes["OK"] + count
    wait_until(lambda: callers.codes["OK"] >= enough)


def wait_until_each_answers(*replicas: ServerProcess) -> None:
    """Wait until each has answered a call that it had not before."""
    before = [answered_by(replica) for replica in replicas]
    wait_until(lambda: all(answered_by(one) > count for one, count in zip(replicas, before, strict=True)))
