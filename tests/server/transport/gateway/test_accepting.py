"""Connections for TLS from their coming to the end of the handshake."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from server.transport.gateway import connections
from server.transport.gateway.connections import Connections, _TlsServer

MANY_SECONDS = 600.0


@pytest.fixture
async def listening() -> AsyncIterator[socket.socket]:
    """A port that nobody is answered on yet."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        one.setblocking(False)
        yield one


def serve(listening: socket.socket) -> _TlsServer:
    """Answer on it."""
    return _TlsServer(listening, asyncio.Protocol, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Connections(3))


async def test_a_caller_who_is_gone_at_once_holds_nobody_up(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where no descriptor is left there is a wait."""
    monkeypatch.setattr(connections, "_NO_DESCRIPTOR_SECONDS", MANY_SECONDS)
    loop, again = asyncio.get_running_loop(), asyncio.Event()
    errors = [ConnectionAbortedError()]

    async def accept(_: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
        if errors:
            raise errors.pop()
        again.set()
        never: asyncio.Future[tuple[socket.socket, tuple[str, int]]] = loop.create_future()
        return await never

    monkeypatch.setattr(loop, "sock_accept", accept)
    server = serve(listening)
    await asyncio.wait_for(again.wait(), 60)
    server.close()
    await server.wait_closed()


async def test_a_handshake_that_has_not_begun_is_not_waited_for(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a stop comes right behind a caller."""
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", MANY_SECONDS)
    server = serve(listening)
    with socket.create_connection(listening.getsockname()) as caller:
        caller.setblocking(False)
        while not server._handshakes:  # noqa: ASYNC110 -- before the handshake's task begins, an event would be too late
            await asyncio.sleep(0)
        server.close()
        await asyncio.wait_for(server.wait_closed(), 60)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.get_running_loop().sock_recv(caller, 1) == b""
