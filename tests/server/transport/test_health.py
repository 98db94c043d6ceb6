"""How many may watch health, and that they are told."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from server.errors import TooBusy
from server.telemetry.metrics import Metrics
from server.transport.health import Health

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Watcher:
    """Somebody who watches a name; stands for gRPC's side of it."""

    def __init__(self, health: Health, address: str = "10.0.0.1", name: str = "model") -> None:
        self._address, self.told = address, list[int]()
        self.refused: TooBusy | None = None
        context: Any = self
        self.task = asyncio.create_task(self._watch(health.Watch(health_pb2.HealthCheckRequest(service=name), context)))

    async def _watch(self, watching: Coroutine[Any, Any, None]) -> None:
        try:
            await watching
        except TooBusy as error:
            self.refused = error

    def peer(self) -> str:
        """As gRPC names it."""
        return f"ipv4:{self._address}:50000"

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        """Hear of a state."""
        self.told.append(response.status)

    async def end(self) -> None:
        """Hang up."""
        self.task.cancel()
        await asyncio.wait([self.task])


async def settle() -> None:
    """Let tasks go as far as they can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_watch_are_told_of_changes() -> None:
    """Each once, of its own name."""
    health = Health(10, Metrics())
    await health.set_status("model", serving=True)
    crowd, other = [Watcher(health) for _ in range(3)], Watcher(health, name="other")
    await settle()
    await health.set_status("model", serving=True)
    await settle()
    await health.set_status("model", serving=False)
    await settle()
    assert [one.told for one in crowd] == [[SERVING, NOT_SERVING]] * 3
    assert len(other.told) == 1
    await crowd[0].end()
    await health.set_status("model", serving=True)
    await settle()
    assert [len(one.told) for one in crowd] == [2, 3, 3]
    for one in (*crowd, other):
        await one.end()


async def test_one_address_leaves_others_room_to_watch() -> None:
    """Alone it has four fifths; when it hangs up all of it is free."""
    metrics = Metrics()
    health = Health(10, metrics)
    greedy = [Watcher(health) for _ in range(12)]
    await settle()
    assert [one.refused is None for one in greedy] == [True] * 9 + [False] * 3
    assert greedy[-1].refused is not None
    assert greedy[-1].refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(greedy[-1].refused) == (
        "9 watches, 9 of them of this address; expected fewer (the server's --max-watches); retry later"
    )
    modest, late = Watcher(health, "10.0.0.2"), Watcher(health, "10.0.0.3")
    await settle()
    assert (modest.refused, late.refused is None) == (None, False)
    value = metrics.registry.get_sample_value
    assert value("regard_watches") == 10
    refused = [one.refused.reason for one in (*greedy, modest, late) if one.refused]
    assert refused == ["health"] * 4
    for one in (*greedy, modest, late):
        await one.end()
    assert value("regard_watches") == 0
    assert not health._watches_of
    again = Watcher(health)
    await settle()
    assert again.told
    await again.end()
