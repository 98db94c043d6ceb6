"""Sends bytes to a server of any kind, over gRPC or HTTP/1.1, and says what became of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Literal
from urllib.parse import urlsplit

import grpc

Outcome = Literal["answered", "refused", "failed"]
Send = Callable[[bytes], Awaitable[Outcome]]

_REFUSALS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_HEAD_END, _LINE_END = b"\r\n\r\n", b"\r\n"
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def sending(url: str, content_type: str = "") -> AsyncIterator[Send]:
    """Send to a URL: over gRPC, or as HTTP/1.1 where a content type is given."""
    if not content_type:
        async with _sending_grpc(url) as send:
            yield send
        return
    sender = _HttpSender(url, content_type)
    try:
        yield sender.send
    finally:
        await sender.close()


@asynccontextmanager
async def _sending_grpc(url: str) -> AsyncIterator[Send]:
    place = urlsplit(url)
    async with grpc.aio.insecure_channel(place.netloc, options=[("grpc.max_receive_message_length", -1)]) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(place.path)  # no serialisers

        async def send(body: bytes) -> Outcome:
            try:
                await call(body)
            except grpc.aio.AioRpcError as error:
                return "refused" if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED else "failed"
            return "answered"

        yield send


class _HttpSender:
    """As many connections as requests wait for an answer at a time; each is used again."""

    def __init__(self, url: str, content_type: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname, place.port
        self._head = f"POST {place.path} HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: {content_type}\r\n"
        self._idle: list[_Connection] = []

    async def send(self, body: bytes) -> Outcome:
        """Post one body and read the answer."""
        try:
            reader, writer = await self._connect()
        except OSError:
            return "failed"
        try:
            writer.write(f"{self._head}content-length: {len(body)}\r\n\r\n".encode() + body)
            status, stays = await _read_answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return "failed"
        if stays:
            self._idle.append((reader, writer))
        else:
            writer.close()
        if status in _REFUSALS:
            return "refused"
        return "answered" if status == HTTPStatus.OK else "failed"

    async def _connect(self) -> _Connection:
        """Take one that waits and that the server has not closed, else a new one."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    async def close(self) -> None:
        """Hang up."""
        for _, writer in self._idle:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self._idle), return_exceptions=True)


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Read an answer whole; returns its status, and whether the connection stays open."""
    lines = (await reader.readuntil(_HEAD_END)).lower().split(_LINE_END)
    headers = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
    if headers.get(b"transfer-encoding") == b"chunked":
        while size := int((await reader.readuntil(_LINE_END)).split(b";")[0], 16):
            await reader.readexactly(size + len(_LINE_END))
        await reader.readuntil(_LINE_END)
    else:
        await reader.readexactly(int(headers.get(b"content-length", 0)))
    return int(lines[0].split()[1]), headers.get(b"connection") != b"close"
