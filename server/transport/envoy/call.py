"""A call as the methods see it, over an ASGI server's way to receive and to send."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn
from urllib.parse import quote

import grpc

from server.api.servicer import Task
from server.errors import Trailers
from server.transport.envoy.messages import (
    ENCODINGS,
    only_message,
    prefixed,
    read_messages,
)
from server.transport.metadata import headers_of, metadata_of, percent_encoded
from server.transport.wire import BadMessage, MaxBytes, seconds_of

Arriving = Callable[[Task, int], None]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_CHUNK_BYTES = 2**18  # that are handed over at a time; the next when Envoy has room
_MAX_UNREAD_BYTES = 3 * _CHUNK_BYTES  # of answers written in a call: Envoy's buffer, a chunk beyond it, and the next
_FIRST_SECONDS, _MAX_SECONDS = 0.002, 4.0  # between two looks at whether an answer is read
_START = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())]
_OK = [(b"grpc-status", b"0")]


class Ended(Exception):
    """The method has ended the call with a code."""


class EnvoyCall:
    """One call; see server.api.servicer.Servicer.

    Attributes:
        method: Its path, /SERVICE/METHOD.
        deadline: On time.monotonic(), in seconds; None where there is none.
        task: Which the call has to itself.
        began: On time.monotonic(), in seconds.
        has_expired: Whether its task was cancelled for its deadline.
        serialize: Makes bytes of a message; None where methods give bytes.
        hold: Told how much may be unread of what is written; None where nobody counts it.
        is_read: Whether the caller's part is over: then nothing but its hanging up can come.
        sent_bytes: That were handed over; whether the caller has read them is not known.
    """

    __slots__ = (
        "_client",
        "_encoding",
        "_is_over",
        "_is_started",
        "_looking",
        "_metadata",
        "_receive",
        "_send",
        "_trailers",
        "began",
        "deadline",
        "has_expired",
        "hold",
        "is_read",
        "method",
        "sent_bytes",
        "serialize",
        "task",
    )

    def __init__(self, scope: Mapping[str, Any], receive: Receive, send: Send, task: Task) -> None:
        self.method: str = scope["path"]
        self.task, self.began = task, time.monotonic()
        self._client = scope["client"]
        self._receive, self._send = receive, send
        self._metadata = metadata = metadata_of(scope["headers"])
        self.serialize: Callable[[Any], bytes] | None = None
        self.hold: Callable[[int], None] | None = None
        self._trailers: Trailers = ()
        self._looking: asyncio.Future[dict[str, Any]] | None = None
        self._is_started = self._is_over = self.is_read = self.has_expired = False
        self.sent_bytes = 0
        timeout = metadata.get("grpc-timeout")
        seconds = seconds_of(str(timeout)) if timeout is not None else None
        self.deadline = None if seconds is None else self.began + seconds
        self._encoding = str(metadata.get("grpc-encoding", "identity"))

    @property
    def is_grpc(self) -> bool:
        """Whether it says that it is a call of gRPC."""
        return str(self._metadata.get("content-type", "")).startswith("application/grpc")

    @property
    def takes_trailers(self) -> bool:
        """Whether it says that it reads a status behind an answer; to one that does not Envoy gives none."""
        return self._metadata.get("te") == "trailers"

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """What the caller says beside the message."""
        return self._metadata.items()

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    @property
    def address(self) -> tuple[str, int]:
        """The caller's IP address and port."""
        host, port = self._client
        return host, port

    def expire(self) -> None:
        """End the call for its deadline."""
        self.has_expired = True
        self.task.cancel()

    def peer(self) -> str:
        """Where the call comes from, as gRPC names it."""
        host, port = self._client
        return f"ipv6:{quote(f'[{host}]', safe=':')}:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Who the connection says it is: nobody, since it is not encrypted."""
        return {}

    async def message(self, most: MaxBytes, arriving: Arriving) -> bytes:
        """Read the only message of a call; for arguments and errors see `messages`."""
        first = await self._next_chunk()
        if self.is_read and (content := only_message(first, most)) is not None:
            return content
        found = [message async for message in self.messages(most, arriving, first, count=1)]
        if not found:
            raise BadMessage("the call has no message; expected one")
        return found[0]

    async def messages(
        self, most: MaxBytes, arriving: Arriving, first: bytes = b"", count: float = math.inf
    ) -> AsyncGenerator[bytes]:
        """Yield the messages of a call as they come.

        Args:
            most: Of a message, as it is sent and inflated.
            arriving: Told how many bytes have come of one that is not whole, by the call's task; may raise.
            first: What has come already.
            count: How many there may be.

        Raises:
            asyncio.CancelledError: The caller has hung up.
            BadMessage: What comes is none, too large, or one too many.
        """
        number, told = 0, partial(arriving, self.task)
        async for message in read_messages(self._chunks(first), most, self._encoding, told):
            number += 1
            if number > count:
                raise BadMessage("the call has a second message; expected one")
            yield message

    async def _chunks(self, first: bytes) -> AsyncGenerator[bytes]:
        yield first
        while not self.is_read:
            yield await self._next_chunk()

    async def _next_chunk(self) -> bytes:
        event = await self._receive()
        if event["type"] != "http.request":
            raise asyncio.CancelledError  # none of ours: a group of tasks knows no other
        self.is_read = not event.get("more_body")
        content: bytes = event["body"]
        return content

    def look(self) -> None:
        """See soon whether the caller has hung up, once its request is read; the call's task is cancelled then."""
        if self.is_read and (self._looking is None or self._looking.done()):
            self._looking = asyncio.ensure_future(self._receive())
            self._looking.add_done_callback(self._looked)

    def _looked(self, looking: "asyncio.Future[dict[str, Any]]") -> None:
        if not looking.cancelled() and looking.result()["type"] == "http.disconnect":
            self.task.cancel()

    def stop_looking(self) -> None:
        """Wait no more for it: an ASGI server may tell nothing before the call is over."""
        if isinstance(self._looking, asyncio.Task):  # a future of Envoy's is about to be told
            self._looking.cancel()

    async def write(self, message: Any) -> None:
        """Send a message, which `serialize` makes bytes of, and wait until there is room for the next.

        Raises:
            asyncio.CancelledError: The caller has hung up.
        """
        content = prefixed(message if self.serialize is None else self.serialize(message))
        self.sent_bytes += len(content)
        if self.hold:
            self.hold(min(self.sent_bytes, _MAX_UNREAD_BYTES))
        if not self._is_started:
            self._is_started = True
            await self._send(_start(_START, trailers=True))
        try:
            for begin in range(0, len(content), _CHUNK_BYTES):
                await self._send(_body(content[begin : begin + _CHUNK_BYTES], more=True))
        except OSError as error:  # what ASGI says of it
            if asyncio.current_task() is not self.task:  # which may be busy with what has come before
                self.task.cancel()
            raise asyncio.CancelledError from error

    async def answer(self, message: Any) -> None:
        """Send the only message of a call, and its end; a small one is not waited for.

        Raises:
            asyncio.CancelledError: The caller has hung up.
        """
        if self.serialize is not None or len(message) > _CHUNK_BYTES:
            await self.write(message)
            await self.end()
            return
        self._is_started = self._is_over = True
        self.sent_bytes += len(message)
        try:
            await self._send(_start(_START, trailers=True))
            await self._send(_body(prefixed(message), more=False))
            await self._send(_trailers([*_OK, *headers_of(self._trailers)] if self._trailers else _OK))
        except OSError as error:
            raise asyncio.CancelledError from error

    def set_trailing_metadata(self, trailing_metadata: Trailers) -> None:
        """Say what goes with the end of a call that ends well."""
        self._trailers = trailing_metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Trailers = ()) -> NoReturn:
        """End the call with a code, a message and what goes with them; always raises."""
        await self.end(code, details, trailing_metadata)
        raise Ended

    async def end(
        self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "", trailing_metadata: Trailers = ()
    ) -> None:
        """Say how the call ends, unless it has ended; to a caller who has hung up nothing is said."""
        if self._is_over:
            return
        self._is_over = True
        status = [(b"grpc-status", str(code.value[0]).encode())]
        if details:
            status.append((b"grpc-message", percent_encoded(details)))
        status += headers_of(trailing_metadata or self._trailers)
        with suppress(OSError):  # there is nobody to tell
            if self._is_started:
                await self._send(_body(b"", more=False))
                await self._send(_trailers(status))
            else:
                await self._send(_start([*_START, *status], trailers=False))
                await self._send(_body(b"", more=False))

    async def wait_until_read(self) -> None:
        """Wait until the caller has all that was sent, or has hung up; Envoy only says so when asked."""
        seconds = _FIRST_SECONDS
        while (await self._receive())["type"] != "http.disconnect":
            await asyncio.sleep(seconds)
            seconds = min(2 * seconds, _MAX_SECONDS)

    async def refuse_http(self, status: int, message: str) -> None:
        """Answer what is no call of gRPC, as HTTP does."""
        self._is_over = True
        event = _start([(b"content-type", b"text/plain; charset=utf-8")], trailers=False)
        await self._send(event | {"status": status})
        await self._send(_body(message.encode(), more=False))


def _start(headers: list[tuple[bytes, bytes]], *, trailers: bool) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers, "trailers": trailers}


def _body(content: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def _trailers(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": headers, "more_trailers": False}
