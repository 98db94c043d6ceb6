"""Envoy around this process, which hands calls over by ASGI."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import grpc

from server.address import split_address
from server.api.calls import Calls
from server.api.servicer import Task
from server.auth.clients import Authenticator
from server.config import Config
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.connections import hang_up, stop_listening
from server.transport.envoy.application import GrpcApplication
from server.transport.refusals import Refusals

_TRY_SECONDS = 0.01


class EnvoyTransport:
    """Envoy around this process; see transport.Transport."""

    counts_arriving = True

    def __init__(self, address: str, let_listen: Callable[[], Awaitable[None]]) -> None:
        """Begin a life.

        Args:
            address: HOST:PORT that Envoy will listen on.
            let_listen: Tells Envoy to.
        """
        self._address, self._let_listen = address, let_listen
        self._watching: asyncio.Task[None] | None = None

    def open(self, config: Config, authenticator: Authenticator, refusals: Refusals, calls: Calls) -> None:
        """Take services from now on."""
        interceptor = None if authenticator.is_open else AuthInterceptor(authenticator, refusals, calls)
        self.application = GrpcApplication(interceptor, calls, refusals, config.max_message_bytes)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self.application.add_generic_rpc_handlers(handlers)

    def end_calls(self, tasks: Sequence[Task]) -> None:
        """End calls; see servicer.EndCalls."""
        self.application.end_calls(tasks)

    def bind(self) -> str:
        """Return the address, which the launcher keeps for Envoy."""
        return self._address

    async def start(self) -> None:
        """Let Envoy listen, and wait until it does."""
        host, port = split_address(self._address)
        self._watching = asyncio.create_task(self.application.watch(partial(hang_up, port)))
        await self._let_listen()
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(_TRY_SECONDS)
            else:
                writer.close()
                return

    async def stop(self, seconds: float) -> None:
        """Hang up on all callers."""
        _, port = split_address(self._address)
        stop_listening(port)
        hang_up(port)
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """End whatever is left."""
        if self._watching:
            self._watching.cancel()
