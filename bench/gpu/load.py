"""A server on the device and callers in a closed loop, whatever the model takes."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from artifact.contract import Contract
from artifact.dtypes import name_of
from bench.gpu.inputs import longest, make_inputs
from bench.gpu.setting import Part, Setting
from bench.servers import Serving, only, serving_regard
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub
from server.config import Config

_CHANNEL = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_CALL_SECONDS = 60.0
_OUTPUT_BYTES = 2**20  # more than an output of one row takes


@dataclass(frozen=True)
class Seen:
    """What callers saw of some seconds, and what the server took meanwhile."""

    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    first_error: str
    server_cpus: float
    caller_cpus: float

    def __str__(self) -> str:
        told = f"{self.per_second:.0f} calls/s, p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"
        return f"{told}, CPUs: server {self.server_cpus:.2f}, callers {self.caller_cpus:.2f}"


@contextmanager
def serving(setting: Setting, parts: Sequence[Part], *flags: str) -> Iterator[Serving]:
    """Start a server on the device with the models of these artifacts alone."""
    names = {part.model for part in parts}
    with (
        only(setting.models, *names) as models,
        serving_regard(models, "--device", setting.device, "--no-trial-load", *flags) as one,
    ):
        yield one


def make_request(part: Part, rows: int, length: int, asked: pb.AttentionRequest | None = None) -> api.PredictRequest:
    """Ask for the first output of some rows."""
    inputs = make_inputs(part.contract, rows, length)
    tensors = {
        name: pb.Tensor(dtype=_dtype(name_of(array.dtype)), shape=array.shape, data=array.tobytes())
        for name, array in inputs.items()
    }
    return api.PredictRequest(
        model=part.model, inputs=tensors, outputs=[part.contract.outputs[0].name], attention=asked
    )


def _dtype(name: str) -> Any:
    return pb.DataType.Value(f"DATA_TYPE_{name.upper()}")


def served(parts: Sequence[Part]) -> list[Part]:
    """Those that callers can ask for tensors of: no towers, and no sound, whose inputs are large."""
    return [part for part in parts if not part.is_tower and not part.contract.audio]


def asked_of(contract: Contract, length: int, callers: int) -> dict[str, pb.AttentionRequest | None]:
    """What callers ask of a row, by name: no attention, a row of it, and as much as the server's bounds allow.

    Args:
        contract: Of the artifact.
        length: Tokens of a row.
        callers: How many ask at a time: all their answers have room in what the server holds.
    """
    config, positions = Config.from_command_line([]), min(length, longest(contract))
    most_bytes = min(config.max_answer_bytes, config.held_bytes // (2 * callers)) - _OUTPUT_BYTES
    layers_bytes = [layer.row_bytes({}, positions) for layer in contract.attention]
    asked: dict[str, pb.AttentionRequest | None] = {"plain": None}
    if layers_bytes:
        asked["a row of the last layer"] = pb.AttentionRequest(layers=[-1], rows=[0])
        if sum(layers_bytes) <= most_bytes:
            asked["all attention"] = pb.AttentionRequest()
        elif layers_bytes[-1] <= most_bytes:
            asked["attention of the last layer"] = pb.AttentionRequest(layers=[-1])
    return asked


def ask(serving: Serving, requests: Sequence[api.PredictRequest], callers: int, seconds: float) -> Seen:
    """Let so many callers ask again as soon as they are answered; not where already the first call fails."""
    return asyncio.run(_ask(serving, requests, callers, seconds))


async def _ask(serving: Serving, requests: Sequence[api.PredictRequest], callers: int, seconds: float) -> Seen:
    took, errors, turn = list[float](), list[str](), itertools.cycle(requests)
    async with grpc.aio.insecure_channel(serving.address, options=_CHANNEL) as channel:
        stub = RegardServiceStub(channel)

        async def call_once() -> None:
            sent = time.perf_counter()
            try:
                await stub.Predict(next(turn), timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                errors.append(f"{error.code().name}: {error.details()}")
                await asyncio.sleep(0)
            else:
                took.append((time.perf_counter() - sent) * 1e3)

        async def call() -> None:
            while time.perf_counter() < ends:
                await call_once()

        await call_once()  # of a new shape, which does not count
        took.clear()
        began, ends = time.perf_counter(), time.perf_counter() + (0 if errors else seconds)
        cpu_began, own_began = serving.cpu_seconds, time.process_time()
        await asyncio.gather(*(call() for _ in range(callers)))
        passed = time.perf_counter() - began
    p50, p99 = np.percentile(took, [50, 99]) if took else (float("nan"),) * 2
    used, own = serving.cpu_seconds - cpu_began, time.process_time() - own_began
    first = errors[0] if errors else ""
    return Seen(len(took) / passed, float(p50), float(p99), len(errors), first, used / passed, own / passed)


@contextmanager
def calling(serving: Serving) -> Iterator[Callable[[api.PredictRequest], api.PredictResponse]]:
    """Give what asks once, and waits for the answer."""
    with grpc.insecure_channel(serving.address, options=_CHANNEL) as channel:
        stub = RegardServiceStub(channel)
        yield lambda request: stub.Predict(request, timeout=_CALL_SECONDS)
