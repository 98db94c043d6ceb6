"""A server on the device and callers in a closed loop, whatever the model takes."""

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from artifact.contract import Contract
from artifact.dtypes import name_of
from bench.gpu.inputs import make_inputs
from bench.gpu.setting import Part, Setting
from bench.peers import process_tree
from bench.servers import Serving, serving_regard
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub

_CHANNEL = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_ALL = pb.AttentionRequest()
_ROW = pb.AttentionRequest(layers=[-1], rows=[0])
ASKED = {"plain": None, "a row of the last layer": _ROW, "all attention": _ALL}


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


def serving(setting: Setting, *flags: str) -> AbstractContextManager[Serving]:
    """Start a server on the device with all models."""
    return serving_regard(setting.models, "--device", setting.device, "--no-trial-load", *flags)


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


def can_attend(contract: Contract) -> bool:
    """Whether it has attention."""
    return bool(contract.attention)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and those that it started."""
    total, ticks = 0, os.sysconf("SC_CLK_TCK")
    for one in process_tree(pid):
        try:
            # proc(5): the name in brackets may hold blanks; after it utime and stime are fields 14 and 15.
            fields = Path("/proc", str(one), "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        total += int(fields[11]) + int(fields[12])
    return total / ticks


def ask(serving: Serving, requests: Sequence[api.PredictRequest], callers: int, seconds: float) -> Seen:
    """Let so many callers ask again as soon as they are answered."""
    return asyncio.run(_ask(serving, requests, callers, seconds))


async def _ask(serving: Serving, requests: Sequence[api.PredictRequest], callers: int, seconds: float) -> Seen:
    took, errors, turn = list[float](), list[str](), itertools.cycle(requests)
    async with grpc.aio.insecure_channel(serving.address, options=_CHANNEL) as channel:
        stub = RegardServiceStub(channel)
        await stub.Predict(requests[0])
        began, ends = time.perf_counter(), time.perf_counter() + seconds
        cpu_began, own_began = cpu_seconds(serving.pid), time.process_time()

        async def call() -> None:
            while (sent := time.perf_counter()) < ends:
                try:
                    await stub.Predict(next(turn))
                except grpc.aio.AioRpcError as error:
                    errors.append(f"{error.code().name}: {error.details()}")
                    await asyncio.sleep(0)
                else:
                    took.append((time.perf_counter() - sent) * 1e3)

        await asyncio.gather(*(call() for _ in range(callers)))
        passed = time.perf_counter() - began
    p50, p99 = np.percentile(took, [50, 99]) if took else (float("nan"),) * 2
    used, own = cpu_seconds(serving.pid) - cpu_began, time.process_time() - own_began
    first = errors[0] if errors else ""
    return Seen(len(took) / passed, float(p50), float(p99), len(errors), first, used / passed, own / passed)


@contextmanager
def calling(serving: Serving) -> Iterator[Callable[[api.PredictRequest], api.PredictResponse]]:
    """Give what asks once, and waits for the answer."""
    with grpc.insecure_channel(serving.address, options=_CHANNEL) as channel:
        stub = RegardServiceStub(channel)
        yield lambda request: stub.Predict(request, timeout=60)
