"""Authenticated callers who ask much, or name the same again and again: others get their share."""

import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from regard.v1 import regard_pb2 as api
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.faults.callers import Callers
from tests.hostile.asking import channel_of, ends
from tests.hostile.measure import IS_FULL, Attack, Target, Withstand, cases
from tests.processes import CLOTHING

SECONDS = 15.0 if IS_FULL else 1.0
CALLERS = 48
REGION_BYTES = 64 * 2**20 if IS_FULL else 16 * 2**20
MAX_GROWTH_MB = 512.0 if IS_FULL else 160.0
TEXT = "the cat sat on the mat and looked at the dog " * 20


def flood(priority: int) -> Attack:
    """Make an attack of callers who ask for more as soon as they are answered."""

    def attack(target: Target) -> "Counter[str]":
        model = "minilm" if IS_FULL else "tiny-text"
        request = api.EmbedRequest(model=model, text=TEXT, truncate=True, priority=priority)
        callers = Callers(
            target.address, CALLERS, "{}", lambda stub: stub.Embed(request, metadata=target.metadata, timeout=60)
        )
        threading.Event().wait(SECONDS)
        return callers.end()

    attack.__name__ = f"{CALLERS}_callers_at_priority_{priority or 'default'}"
    return attack


def one_region_in_many_inputs(target: Target) -> "Counter[str]":
    """The same shared memory, 40 times in a request."""
    name = f"regard-hostile-{os.getpid()}"
    file = Path("/dev/shm", name)  # noqa: S108 -- where shared memory is
    file.touch()
    try:
        os.truncate(file, REGION_BYTES)
        with channel_of(target) as channel:
            stub = GRPCInferenceServiceStub(channel)
            region = pb.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", byte_size=REGION_BYTES)
            stub.SystemSharedMemoryRegister(region, metadata=target.metadata, timeout=60)
            request = pb.ModelInferRequest(model_name="fashion")
            for number in range(40):
                tensor = request.inputs.add(name=f"x{number}", datatype="UINT8", shape=[REGION_BYTES])
                tensor.parameters["shared_memory_region"].string_param = name
                tensor.parameters["shared_memory_byte_size"].int64_param = REGION_BYTES
            codes = ends(stub.ModelInfer.future(request, metadata=target.metadata, timeout=60) for _ in range(4))
            unregister = pb.SystemSharedMemoryUnregisterRequest(name=name)
            stub.SystemSharedMemoryUnregister(unregister, metadata=target.metadata, timeout=60)
            return codes
    finally:
        file.unlink()


def calls_that_are_given_up(target: Target) -> "Counter[str]":
    """Thousands of them, each begun and cancelled, by a caller who is known."""
    image, codes = (CLOTHING / "bag.png").read_bytes(), Counter[str]()
    over = time.monotonic() + SECONDS
    with channel_of(target) as channel:
        method: Any = channel.unary_unary("/regard.v1.RegardService/Classify")
        request = api.ClassifyRequest(model="fashion", image=image).SerializeToString()
        while time.monotonic() < over:
            calls = [method.future(request, metadata=target.metadata, timeout=60) for _ in range(64)]
            for call in calls:
                call.cancel()
            codes["CANCELLED"] += len(calls)
    return codes


ATTACKS: tuple[Attack, ...] = (flood(1), flood(0), one_region_in_many_inputs, calls_that_are_given_up)
CODES = ("OK", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "CANCELLED")


@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_a_crowd_leaves_others_their_share(attack: Attack, withstand: Withstand) -> None:
    """Of the engine, and of memory."""
    withstand(attack, CODES, MAX_GROWTH_MB, max_left_mb=256)  # the engine keeps what it has used
