"""Says what is served, to everyone who asks or watches (grpc.health.v1).

The library's own servicer shares one watch among all callers who ask for the same name: whoever ends theirs takes the
others' along, and these callers may be unauthenticated.
"""

import asyncio

from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.api.handler import Servicer
from server.errors import NotFound


class Health(health_pb2_grpc.HealthServicer):
    """The state of the server, "", of its services and of its models, by name; lives in the event loop."""

    def __init__(self) -> None:
        self._states = dict[str, int]()
        self._changed = asyncio.Condition()
        self._stopping = False

    async def set_status(self, name: str, *, serving: bool) -> None:
        """Change a state; a server that stops serves nothing any more, whatever is set later."""
        async with self._changed:
            self._states[name] = _state(serving=serving and not self._stopping)
            self._changed.notify_all()

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
        """Say a state, and again whenever it has changed, until the caller hangs up."""
        told: int | None = None
        while True:
            async with self._changed:
                while (state := self._state_of(request.service)) == told:
                    await self._changed.wait()
                told = state
            await context.write(health_pb2.HealthCheckResponse(status=told))  # a slow reader holds nobody up

    def _state_of(self, name: str) -> int:
        return self._states.get(name, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)


def _state(*, serving: bool) -> int:
    return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
