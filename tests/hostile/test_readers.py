"""Callers who ask for much and do not read it."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from regard.v1 import regard_pb2 as api
from server.api.open_inference import open_inference_pb2 as pb
from tests.hostile.conftest import folder_of
from tests.hostile.http2 import call, connected, greeting
from tests.hostile.measure import IS_FULL, Attack, Target, attacked, cases, withstanding
from tests.processes import CLOTHING

CALLERS = 60 if IS_FULL else 12
SECONDS = 20.0 if IS_FULL else 1.0
MAX_HELD_MB = 256 if IS_FULL else 64
MAX_GROWTH_MB = 2.0 * MAX_HELD_MB + 96  # beside what waits to be read requests are computed; the engine's own
IMAGES = [path.read_bytes() for path in sorted(CLOTHING.glob("*.png"))]


def leave_unread(target: Target, path: str, request: bytes, *, window: int) -> "Counter[str]":
    """Ask on many connections and read none of them for a while."""
    authorization = f"Bearer {target.token}"
    with ExitStack() as all_of_them:
        for _ in range(CALLERS):
            connection = all_of_them.enter_context(connected(target.address))
            connection.sendall(greeting(window) + call(path, request, authorization=authorization))
        threading.Event().wait(SECONDS)
    return Counter({"not read": CALLERS})


def much_attention() -> bytes:
    """Ask for all attention of a full batch of images."""
    request = pb.ModelInferRequest(model_name="fashion")
    request.parameters["attention"].bool_param = True
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[32])
    tensor.contents.bytes_contents.extend((IMAGES * 4)[:32])
    return request.SerializeToString()


def unread_answers(target: Target) -> "Counter[str]":
    """All attention of a full batch of images, in one message, for which the caller has no room."""
    return leave_unread(target, "/inference.GRPCInferenceService/ModelInfer", much_attention(), window=0)


def unread_layers(target: Target) -> "Counter[str]":
    """A stream of layers, of which no message fits."""
    request = api.AttendRequest(model="fashion", image=IMAGES[0])
    return leave_unread(target, "/regard.v1.RegardService/Attend", request.SerializeToString(), window=0)


def unread_streams(target: Target) -> "Counter[str]":
    """Answers of a stream of requests."""
    return leave_unread(target, "/inference.GRPCInferenceService/ModelStreamInfer", much_attention(), window=0)


ATTACKS: tuple[Attack, ...] = (unread_answers, unread_layers, unread_streams)


@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_what_is_not_read_is_bounded(
    attack: Attack, transport: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Its bytes count until the caller has them or is cut off; other clients have room meanwhile."""
    held = ("--max-held-bytes", str(MAX_HELD_MB * 2**20))
    with attacked(transport, folder_of(tmp_path / "models"), tmp_path / "clients.toml", *held) as hostile:
        withstanding(hostile, record_property)(attack, ("not read",), MAX_GROWTH_MB)
