"""The server inside Envoy, which calls `app` for its life and for each call; transport/envoy/launcher.py starts both."""

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc

from server.__main__ import announce, explain
from server.address import split_address
from server.api.calls import Calls
from server.api.servicer import Task
from server.app import serve
from server.auth.clients import Authenticator
from server.config import Config
from server.errors import EngineFault, StartError
from server.telemetry.logs import set_up
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.connections import hang_up, stop_listening
from server.transport.envoy.application import GrpcApplication
from server.transport.envoy.call import Receive, Send
from server.transport.envoy.launcher import Start
from server.transport.refusals import Refusals

_TRY_SECONDS = 0.01


class EnvoyTransport:
    """Envoy around this process; see transport.Transport."""

    def __init__(self, address: str, send: Send) -> None:
        """Begin a life.

        Args:
            address: HOST:PORT that Envoy will listen on.
            send: Tells Envoy that the application has started.
        """
        self._address, self._send = address, send
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
        self._watching = asyncio.create_task(self.application.watch())
        await self._send({"type": "lifespan.startup.complete"})
        host, port = split_address(self._address)
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


class Inside:
    """The application that Envoy is given."""

    def __init__(self) -> None:
        self._application: GrpcApplication | None = None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a call, or live."""
        if scope["type"] == "lifespan":
            await receive()
            await self._live(Start.from_environment(), send)
        elif self._application:
            await self._application(scope, receive, send)

    async def _live(self, start: Start, send: Send) -> None:
        """Serve until the launcher closes its pipe or has died, and end the process."""
        sys.executable = start.executable
        config = Config.from_command_line(start.arguments, start.program).model_copy(update={"listen": start.address})
        set_up(config.log_level, config.log_format)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(start.pipe, stop.set)
        transport = EnvoyTransport(start.address, send)
        code = 0
        try:
            serving = asyncio.create_task(serve(config, stop, announce, transport))
            await asyncio.sleep(0)
            self._application = transport.application
            await serving
        except (StartError, EngineFault) as error:
            code = explain(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Envoy's own end would wait for what it holds


app = Inside()
