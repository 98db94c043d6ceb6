"""Callers in Python: in a closed loop, or as requests that come at a rate whatever happens. A program of its own.

Its cost, about 0.3 ms of a CPU a request, is taken from the server where both share the cores.
"""

import argparse
import asyncio
import gc
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from bench.workloads import TEXT, make_requests
from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub

_SEED = 1


class Tally:
    """What came of requests: latencies in milliseconds of plain answers, those with attention, refusals; errors."""

    def __init__(self) -> None:
        self.plain: list[float] = []
        self.attentive: list[float] = []
        self.refused: list[float] = []
        self.errors = 0

    async def ask(self, stub: RegardServiceStub, request: api.PredictRequest) -> None:
        """Send one request and note what becomes of it."""
        started = time.perf_counter()
        answered = self.attentive if request.HasField("attention") else self.plain
        try:
            await stub.Predict(request)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.errors += 1
                return
            answered = self.refused
        answered.append((time.perf_counter() - started) * 1e3)

    def report(self, seconds: float) -> dict[str, Any]:
        """Sum up what happened in so many seconds."""
        report: dict[str, Any] = {"per_second": (len(self.plain) + len(self.attentive)) / seconds}
        report |= {"errors": self.errors, "refused": len(self.refused), "generator_cpus": time.process_time() / seconds}
        for name, values in (("", self.plain), ("refused_", self.refused), ("attentive_", self.attentive)):
            for share in (50, 95, 99):
                report[f"{name}p{share}_ms"] = float(np.percentile(values, share)) if values else None
        return report


async def main() -> None:
    """Print throughput, latencies, refusals and errors as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--callers", type=int, default=0, help="in a closed loop")
    parser.add_argument("--rate", type=float, default=0, help="requests a second, Poisson")
    parser.add_argument("--attention", type=float, default=0, help="share of requests that ask for all of it")
    parser.add_argument("--size", default=TEXT.size, help="as bench.workloads takes it")
    args = parser.parse_args()
    requests, tally = pick_requests(args.size, args.attention), Tally()
    async with grpc.aio.insecure_channel(args.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub = RegardServiceStub(channel)
        await stub.Predict(next(requests))
        gc.freeze()  # the collector's pauses would count as the server's
        gc.set_threshold(10_000)
        started = time.perf_counter()
        if args.callers:
            await ask_in_turn(stub, requests, tally, args.callers, started + args.seconds)
        else:
            await ask_at_a_rate(stub, requests, tally, args.rate, started + args.seconds)
        print(json.dumps(tally.report(time.perf_counter() - started)))


def pick_requests(size: str, attention_share: float) -> Iterator[api.PredictRequest]:
    """Yield requests without end, some of them asking for all attention."""
    random = np.random.default_rng(_SEED)
    plain, attentive = (itertools.cycle(make_requests(TEXT.model, size, asked)) for asked in ("none", "all"))
    return (next(attentive if random.random() < attention_share else plain) for _ in itertools.count())


async def ask_in_turn(
    stub: RegardServiceStub, requests: Iterator[api.PredictRequest], tally: Tally, callers: int, ends: float
) -> None:
    """Let so many callers ask again as soon as they are answered."""

    async def call() -> None:
        while time.perf_counter() < ends:
            await tally.ask(stub, next(requests))

    await asyncio.gather(*(call() for _ in range(callers)))


async def ask_at_a_rate(
    stub: RegardServiceStub, requests: Iterator[api.PredictRequest], tally: Tally, rate: float, ends: float
) -> None:
    """Ask at exponentially distributed intervals, answered or not."""
    random, due = np.random.default_rng(_SEED), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while (due := due + random.exponential(1 / rate)) < ends:
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            group.create_task(tally.ask(stub, next(requests)))


if __name__ == "__main__":
    asyncio.run(main())
