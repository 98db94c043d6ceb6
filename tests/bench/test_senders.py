"""Bytes are sent over gRPC and HTTP/1.1, and what becomes of them is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from bench.senders import _HttpSender, sending

ANSWERS = {
    b"fine": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nyes!",
    b"pieces": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n1;x=y\r\n!\r\n0\r\n\r\n",
    b"last": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nyes!",
    b"silent": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nyes!",
    b"full": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    b"many": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
    b"wrong": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    b"cut": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nye",
}
CODES = {b"full": grpc.StatusCode.RESOURCE_EXHAUSTED, b"wrong": grpc.StatusCode.INTERNAL}


@asynccontextmanager
async def http_server(seen: list[int]) -> AsyncIterator[str]:
    """Answers a body as ANSWERS has it; notes the number of the connection of each request."""
    handlers = list[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler
        handlers.append(handler)
        number = len(handlers)
        while head := await _read_head(reader):
            assert b"content-type: text/x" in head
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            seen.append(number)
            writer.write(ANSWERS[body])
            if body in (b"last", b"silent", b"cut"):
                break
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ask"
    await asyncio.gather(*handlers)


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def test_http_connections_are_used_again_until_a_server_ends_them() -> None:
    """One after the other they need one; an answer in pieces is read to its end."""
    seen = list[int]()
    async with http_server(seen) as url, sending(url, "text/x") as send:
        for body in (b"fine", b"pieces", b"fine", b"last", b"fine"):
            assert await send(body) == "answered"
        assert seen == [1, 1, 1, 1, 2]


async def test_an_idle_connection_that_the_server_ended_is_not_used() -> None:
    """As servers do after a while: the next request takes a new one instead of failing."""
    seen = list[int]()
    async with http_server(seen) as url:
        sender = _HttpSender(url, "text/x")
        assert await sender.send(b"silent") == "answered"
        ((reader, _),) = sender._idle
        assert await reader.read() == b""  # the end has come
        assert await sender.send(b"fine") == "answered"
        await sender.close()
    assert seen == [1, 2]


async def test_http_requests_at_a_time_have_connections_of_their_own() -> None:
    """None waits for another's answer."""
    seen = list[int]()
    async with http_server(seen) as url, sending(url, "text/x") as send:
        assert list(await asyncio.gather(*(send(b"fine") for _ in range(3)))) == ["answered"] * 3
        assert sorted(seen) == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "outcome"), [(b"full", "refused"), (b"many", "refused"), (b"wrong", "failed"), (b"cut", "failed")]
)
async def test_http_refusals_are_told_from_failures(body: bytes, outcome: str) -> None:
    """By their status; an answer that is cut off is a failure."""
    async with http_server([]) as url, sending(url, "text/x") as send:
        assert await send(body) == outcome
        assert await send(b"fine") == "answered"


async def test_nobody_there_is_a_failure() -> None:
    """Not an exception, which would end the other requests."""
    async with http_server([]) as url:
        pass
    async with sending(url, "text/x") as send:
        assert await send(b"fine") == "failed"


async def test_grpc_refusals_are_told_from_failures() -> None:
    """By their code."""

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if request in CODES:
            await context.abort(CODES[request], "no")
        return request

    server = grpc.aio.server()
    method: Callable[..., grpc.RpcMethodHandler[bytes, bytes]] = grpc.unary_unary_rpc_method_handler
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", {"Ask": method(answer)})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with sending(f"http://127.0.0.1:{port}/test.Echo/Ask") as send:
            assert [await send(body) for body in (b"fine", b"full", b"wrong")] == ["answered", "refused", "failed"]
    finally:
        await server.stop(None)
