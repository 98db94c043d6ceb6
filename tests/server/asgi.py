"""The server's ASGI application in a test's own process, where Envoy cannot be: Hypercorn carries HTTP/2 to it."""

import asyncio
import socket
from typing import Any, Self

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config as HypercornConfig

from server.transport.envoy.transport import EnvoyTransport


class HypercornTransport(EnvoyTransport):
    """Hypercorn in Envoy's place."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        super().__init__(f"127.0.0.1:{self._socket.getsockname()[1]}", self._listen)
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def _listen(self) -> None:
        config = HypercornConfig()
        config.bind = [f"fd://{self._socket.detach()}"]
        config.errorlog = None
        config.graceful_timeout = 0.1
        config.keep_alive_max_requests = 10**9
        config.keep_alive_timeout = 10**6  # seconds; else it hangs up on a module's channel while a call begins
        config.max_app_queue_size = 1000
        self._serving = asyncio.create_task(serve(self._answer, config, shutdown_trigger=self._stop.wait))

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            async with _Stream(receive, send) as stream:
                await self.application(scope, stream.receive, stream.send)

    async def stop(self, seconds: float) -> None:
        """Hang up."""
        self._stop.set()
        if self._serving:
            await self._serving

    async def close(self) -> None:
        """End whatever is left."""
        await super().close()
        await self.stop(0)
        self._socket.close()


BOTH = pytest.mark.parametrize("transport", [None, HypercornTransport], ids=["grpcio", "asgi"])
"""A test of a server that each transport carries calls to."""


class _Stream:
    """What Hypercorn's way to receive and to send has to differ in to be as Envoy's."""

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive, self._send = receive, send
        self._chunks = asyncio.Queue[dict[str, Any]]()
        self._is_gone = False
        self._status = list[Any]()

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()

    async def _read(self) -> None:
        while not self._is_gone:
            event = await self._receive()
            self._is_gone = event["type"] == "http.disconnect"
            self._chunks.put_nowait(event)

    async def receive(self) -> dict[str, Any]:
        """Return the next chunk; behind the last nothing at once, where Hypercorn would wait until the call is over."""
        event = await self._chunks.get()
        if event["type"] == "http.request" and not event["more_body"] and self._chunks.empty():
            self._chunks.put_nowait(event | {"body": b""})
        return event

    async def send(self, event: dict[str, Any]) -> None:
        """Send; a status that would go with the headers goes behind them: Hypercorn cannot end a stream with headers.

        Raises:
            OSError: The caller has hung up.
        """
        if self._is_gone:
            raise OSError
        if event["type"] == "http.response.start" and not event["trailers"]:
            begins = next((n for n, (name, _) in enumerate(event["headers"]) if name == b"grpc-status"), None)
            if begins is not None:
                self._status = event["headers"][begins:]
                event = event | {"headers": event["headers"][:begins], "trailers": True}
        await self._send(event)
        if self._status and event["type"] == "http.response.body":
            await self._send({"type": "http.response.trailers", "headers": self._status})
