"""The gateway's life, beside that of the transport of gRPC."""

from collections.abc import Iterable, Sequence

import grpc

from server.api.calls import Calls
from server.api.rest.routes import all_routes
from server.api.servicer import Task
from server.auth.clients import Authenticator
from server.config import Config
from server.inference.workers import Workers
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.gateway.application import Gateway
from server.transport.gateway.connections import Connections, Listener
from server.transport.grpc_server import read_certificates
from server.transport.refusals import Refusals


class HttpTransport:
    """HTTP on a port of its own; like transport.Transport, which it stands beside."""

    def __init__(
        self, config: Config, authenticator: Authenticator, refusals: Refusals, calls: Calls, workers: Workers
    ) -> None:
        """Take services from now on."""
        self._config, self._connections = config, Connections(config.max_connections)
        interceptor = None if authenticator.is_open else AuthInterceptor(authenticator, refusals, calls)
        routes = all_routes(config.max_message_integers)
        self._gateway = Gateway(config, interceptor, calls, refusals, workers, self._connections, routes)
        self._listener = Listener(config, self._gateway, self._connections)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._gateway.add_generic_rpc_handlers(handlers)

    def end_calls(self, tasks: Sequence[Task]) -> list[Task]:
        """End calls that came this way; returns the others."""
        return self._gateway.end_calls(tasks)

    def bind(self) -> str:
        """Bind the port; returns the address with the real one.

        Raises:
            StartError: The address cannot be had, or the certificate cannot be used.
        """
        return self._listener.bind(read_certificates(self._config))

    async def start(self) -> None:
        """Answer requests; returns when the port does."""
        await self._listener.start()

    async def stop(self, seconds: float) -> None:
        """Hang up on all callers, who are told as far as they still can be; may come twice."""
        await self._listener.stop(seconds, self._gateway.end_all)
