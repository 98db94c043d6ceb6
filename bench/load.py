"""The load: callers in a closed loop against a server; run by bench in a process of its own."""

import argparse
import asyncio
import json
import time

import grpc
import numpy as np

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub


async def main() -> None:
    """Print throughput, latencies and errors as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--attention", choices=("none", "cls", "all"), default="none")
    args = parser.parse_args()
    request = make_request(args.tokens, args.attention)
    latencies_ms: list[float] = []
    errors = 0
    ends = time.perf_counter() + args.seconds

    async def call_until_the_end(stub: RegardServiceStub) -> None:
        nonlocal errors
        while (started := time.perf_counter()) < ends:
            try:
                await stub.Predict(request)
                latencies_ms.append((time.perf_counter() - started) * 1e3)
            except grpc.aio.AioRpcError:
                errors += 1

    async with grpc.aio.insecure_channel(args.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub = RegardServiceStub(channel)
        await stub.Predict(request)
        started = time.perf_counter()
        ends = started + args.seconds
        await asyncio.gather(*(call_until_the_end(stub) for _ in range(args.callers)))
        seconds = time.perf_counter() - started
    p50, p95, p99 = np.percentile(latencies_ms, [50, 95, 99])
    report = {"per_second": len(latencies_ms) / seconds, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": errors}
    print(json.dumps(report))


def make_request(tokens: int, attention: str) -> api.PredictRequest:
    """One row of random tokens, with no attention, the last layer's class token's, or all of it."""
    ids = np.random.default_rng(0).integers(1000, 20000, (1, tokens))
    inputs = {
        name: pb.Tensor(dtype=pb.DATA_TYPE_INT64, shape=array.shape, data=array.tobytes())
        for name, array in (("input_ids", ids), ("attention_mask", np.ones_like(ids)))
    }
    wanted = {"none": None, "cls": pb.AttentionRequest(layers=[-1], cls_only=True), "all": pb.AttentionRequest()}
    return api.PredictRequest(model="minilm", inputs=inputs, outputs=["embedding"], attention=wanted[attention])


if __name__ == "__main__":
    asyncio.run(main())
