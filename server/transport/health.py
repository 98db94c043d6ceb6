"""Says what is served, to everyone who asks or watches (grpc.health.v1).

The library's own servicer shares one watch among all callers who ask for the same name: whoever ends theirs takes the
others' along, and these callers may be unauthenticated.
"""

import asyncio
from collections import Counter

from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.api.servicer import Servicer
from server.context import address_of
from server.errors import NotFound, TooBusy
from server.ledger import CLIENT_FACTOR
from server.telemetry.metrics import Metrics

_RETRY_SECONDS = 1.0


class Health(health_pb2_grpc.HealthServicer):
    """The state of the server, "", of its services and of its models, by name; lives in the event loop."""

    def __init__(self, max_watches: int, metrics: Metrics) -> None:
        """Know of nothing.

        Args:
            max_watches: Beyond which further ones are refused; an address may have four times what is free.
            metrics: Where they are counted.
        """
        self._states = dict[str, int]()
        self._max_watches = max_watches
        self._watches = dict[object, asyncio.Event]()
        self._watches_of = Counter[str]()
        self._stopping = False
        metrics.watches.set_function(lambda: float(len(self._watches)))

    async def set_status(self, name: str, *, serving: bool) -> None:
        """Change a state; a server that stops serves nothing any more, whatever is set later."""
        self._states[name] = _state(serving=serving and not self._stopping)
        for changed in self._watches.values():
            changed.set()

    async def stop(self) -> None:
        """Serve nothing from now on."""
        self._stopping = True
        for name in list(self._states):
            await self.set_status(name, serving=False)

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Servicer
    ) -> health_pb2.HealthCheckResponse:
        """Say a state once."""
        if request.service not in self._states:
            await context.abort(NotFound.code, f"service: {request.service[:100]!r} is neither a service nor a model")
        return health_pb2.HealthCheckResponse(status=self._states[request.service])

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Servicer) -> None:  # noqa: N802
        """Say a state, and again whenever it has changed, until the caller hangs up.

        Raises:
            TooBusy: Too many watch already.
        """
        address, told = address_of(context.peer()), None
        if self._is_full(address):
            found = f"{len(self._watches)} watches, {self._watches_of[address]} of them of this address"
            message = f"{found}; expected fewer (the server's --max-watches); retry later"
            raise TooBusy(message, _RETRY_SECONDS, "health")
        changed = self._watches[context] = asyncio.Event()
        self._watches_of[address] += 1
        try:
            while True:
                if (state := self._state_of(request.service)) == told:
                    await changed.wait()
                    changed.clear()
                    continue
                told = state
                await context.write(health_pb2.HealthCheckResponse(status=told))  # a slow reader holds nobody up
        finally:
            del self._watches[context]
            self._watches_of[address] -= 1
            if not self._watches_of[address]:
                del self._watches_of[address]

    def _is_full(self, address: str) -> bool:
        """Whether there are too many watches, or too many of one address beside them; see Ledger."""
        free = self._max_watches - len(self._watches)
        return free <= 0 or self._watches_of[address] > CLIENT_FACTOR * free

    def _state_of(self, name: str) -> int:
        return self._states.get(name, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)


def _state(*, serving: bool) -> int:
    return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
