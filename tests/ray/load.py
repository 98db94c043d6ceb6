"""Callers of a server on Ray who ask in a loop, and repeat what fails as docs/operations.md says."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from server.api.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub

CALLERS = 16
_WINDOW_SECONDS = 2.0
_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "5s",
                "backoffMultiplier": 4,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = [
    ("grpc.service_config", json.dumps(_RETRIES)),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # a connection each
]


class Load:
    """What callers were answered.

    Attributes:
        answers: The first number of each answer, in the order in which they came.
        times: When each came, on the event loop's clock.
        failures: Codes and messages.
    """

    def __init__(self) -> None:
        self.answers, self.times = list[float](), list[float]()
        self.failures = list[str]()
        self._changed = asyncio.Event()

    async def ask(self, address: str, request: ModelInferRequest) -> None:
        """Ask for ever, over a connection of one's own."""
        loop = asyncio.get_running_loop()
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            stub: Any = GRPCInferenceServiceStub(channel)
            while True:
                try:
                    answer: ModelInferResponse = await stub.ModelInfer(request, timeout=60)
                except grpc.aio.AioRpcError as error:
                    self.failures.append(f"{error.code().name}: {error.details()}")
                else:
                    self.answers.append(struct.unpack_from("<f", answer.raw_output_contents[0])[0])
                    self.times.append(loop.time())
                self._changed.set()

    async def until(self, happens: Callable[[], bool]) -> None:
        """Wait until something is so, which may be when an answer has come."""
        while not happens():
            self._changed.clear()
            await self._changed.wait()

    async def more(self, count: int) -> None:
        """Wait for so many answers from now on."""
        wanted = len(self.answers) + count
        await self.until(lambda: len(self.answers) >= wanted)

    def rate(self, since: float, until: float) -> float:
        """Answers a second between two times."""
        return sum(since <= one < until for one in self.times) / (until - since)

    def back(self, since: float, rate: float, now: float) -> float | None:
        """Say how many seconds behind `since` two begin that have such a rate; None where none have."""
        starts = (since + step / 10 for step in range(max(int((now - since - _WINDOW_SECONDS) * 10), 0)))
        return next((one - since for one in starts if self.rate(one, one + _WINDOW_SECONDS) >= rate), None)


@asynccontextmanager
async def loading(address: str, request: ModelInferRequest, callers: int = CALLERS) -> AsyncIterator[Load]:
    """Have callers ask while the block runs."""
    load = Load()
    tasks = [asyncio.create_task(load.ask(address, request)) for _ in range(callers)]
    try:
        yield load
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
