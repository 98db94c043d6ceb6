"""The load: callers in a closed loop against a server; run by bench in a process of its own."""

import argparse
import asyncio
import itertools
import json
import time
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub


async def main() -> None:
    """Print throughput, latencies and errors as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", required=True, help="16 tokens, 4-128 tokens, or 224px")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--attention", choices=("none", "cls", "all"), default="none")
    args = parser.parse_args()
    requests = itertools.cycle(make_requests(args.model, args.size, args.attention))
    latencies_ms: list[float] = []
    errors = 0
    ends = time.perf_counter() + args.seconds

    async def call_until_the_end(stub: RegardServiceStub) -> None:
        nonlocal errors
        while (started := time.perf_counter()) < ends:
            try:
                await stub.Predict(next(requests))
                latencies_ms.append((time.perf_counter() - started) * 1e3)
            except grpc.aio.AioRpcError:
                errors += 1

    async with grpc.aio.insecure_channel(args.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub = RegardServiceStub(channel)
        await stub.Predict(next(requests))
        started = time.perf_counter()
        ends = started + args.seconds
        await asyncio.gather(*(call_until_the_end(stub) for _ in range(args.callers)))
        seconds = time.perf_counter() - started
    p50, p95, p99 = np.percentile(latencies_ms, [50, 95, 99])
    report = {"per_second": len(latencies_ms) / seconds, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": errors}
    print(json.dumps(report))


def make_inputs(size: str, rows: int = 1) -> list[dict[str, NDArray[Any]]]:
    """Random inputs: one batch of "16" tokens, 32 of "4-128" in random order, one of "224px" or of grey "1x28px"."""
    random = np.random.default_rng(0)
    if size.endswith("px"):
        channels, _, edge = size.removesuffix("px").rpartition("x")
        shape = (rows, int(channels or 3), int(edge), int(edge))
        return [{"pixel_values": random.standard_normal(shape, dtype=np.float32)}]
    shortest, _, longest = size.partition("-")
    lengths = np.linspace(int(shortest), int(longest or shortest), 32 if longest else 1).astype(int)
    batches = [random.integers(1000, 20000, (rows, length)) for length in random.permutation(lengths)]
    return [{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in batches]


def make_requests(model: str, size: str, attention: str) -> list[api.PredictRequest]:
    """Requests of one row with no attention, the last layer's class token's, or all of it."""
    wanted = {"none": None, "cls": pb.AttentionRequest(layers=[-1], cls_only=True), "all": pb.AttentionRequest()}
    return [
        api.PredictRequest(
            model=model,
            inputs={name: _write_tensor(array) for name, array in inputs.items()},
            outputs=["embedding"],
            attention=wanted[attention],
        )
        for inputs in make_inputs(size)
    ]


def _write_tensor(array: NDArray[Any]) -> pb.Tensor:
    dtype = pb.DATA_TYPE_FLOAT32 if array.dtype == np.float32 else pb.DATA_TYPE_INT64
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())


if __name__ == "__main__":
    asyncio.run(main())
