"""A small honest caller, in a process of its own: how long it waits, and how long the server's event loop stands.

`python -m tests.hostile.honest ADDRESS PID TOKEN` answers each line with what was seen since the last one, as JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub
from tests.hostile.memory import forget_highest, resident_bytes
from tests.processes import CLOTHING

_PULSE_SECONDS, _ASK_SECONDS, _LOOK_SECONDS = 0.005, 0.02, 0.02
_PATIENCE_SECONDS = 120.0


@dataclass
class Seen:
    """What was seen in a while.

    Attributes:
        start_bytes: Resident memory of the server and its children when the while began.
        peak_bytes: The most there was.
        end_bytes: What there was at its end.
        hold_ms: The longest that health took to answer, which only the event loop has a part in.
        p50_ms: Of the honest caller's answers; those still missing count as long as they have taken.
        p99_ms: Likewise.
        codes: How the honest caller's calls ended.
    """

    start_bytes: int
    peak_bytes: int = 0
    end_bytes: int = 0
    hold_ms: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)


class Observer:
    """Asks, and looks at the server's memory, until it is cancelled."""

    def __init__(self, address: str, pid: int, token: str) -> None:
        """Begin."""
        self._pid = pid
        self._began: dict[str, float] = {}
        channel, other = (grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in "12")
        health: Any = health_pb2_grpc.HealthStub(other)
        image = sorted(CLOTHING.glob("*.png"))[0].read_bytes()
        request = api.ClassifyRequest(model="fashion", image=image)
        metadata, classify = (("authorization", f"Bearer {token}"),), RegardServiceStub(channel).Classify
        self._tasks = [
            asyncio.create_task(
                self._ask(
                    "pulse", _PULSE_SECONDS, lambda wait: health.Check(health_pb2.HealthCheckRequest(), timeout=wait)
                )
            ),
            asyncio.create_task(
                self._ask("ask", _ASK_SECONDS, lambda wait: classify(request, metadata=metadata, timeout=wait))
            ),
            asyncio.create_task(self._look()),
        ]
        self._reset()

    def report(self) -> Seen:
        """Say what was seen since the last report."""
        now, seen = time.perf_counter(), self._seen
        waits = {name: [*self._waits[name], now - self._began.get(name, now)] for name in self._waits}
        seen.hold_ms = max(waits["pulse"]) * 1e3
        seen.p50_ms, seen.p99_ms = (float(np.percentile(waits["ask"], share)) * 1e3 for share in (50, 99))
        seen.end_bytes = resident_bytes(self._pid)
        seen.peak_bytes = max(seen.peak_bytes, seen.end_bytes, resident_bytes(self._pid, "VmHWM"))
        self._reset()
        return seen

    def _reset(self) -> None:
        forget_highest(self._pid)
        self._seen = Seen(resident_bytes(self._pid))
        self._waits: dict[str, list[float]] = {"pulse": [], "ask": []}

    async def _ask(self, name: str, pause: float, call: Callable[[float], Awaitable[Any]]) -> None:
        while True:
            began = self._began[name] = time.perf_counter()
            code = "OK"
            try:
                await call(_PATIENCE_SECONDS)
            except grpc.aio.AioRpcError as error:
                code = error.code().name
            self._waits[name].append(time.perf_counter() - began)
            del self._began[name]
            if name == "ask":
                self._seen.codes[code] = self._seen.codes.get(code, 0) + 1
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        while True:
            self._seen.peak_bytes = max(self._seen.peak_bytes, resident_bytes(self._pid))
            await asyncio.sleep(_LOOK_SECONDS)


async def main() -> None:
    """Answer lines until there are no more."""
    address, pid, token = sys.argv[1:]
    observer = Observer(address, int(pid), token)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(asdict(observer.report())), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
