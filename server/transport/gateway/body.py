"""The body of an HTTP request, bounded as it comes: by its bytes, by what is inflated, by what JSON it is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from server.api.rest.exchange import Headers
from server.api.rest.json_bounds import JsonBounds
from server.errors import MalformedMessage
from server.transport.inflating import COMPRESSIONS, inflate
from server.transport.wire import BadMessage, MaxBytes

Receive = Callable[[], Awaitable[dict[str, Any]]]
_STEP_BYTES = 2**18
_MAX_DIGITS = 15


class HungUp(Exception):
    """The caller has."""


class Body:
    """Reads one."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        """Read nothing yet.

        Args:
            receive: ASGI's.
            headers: The request's.
        """
        self._receive = receive
        self._encoding = str(headers.get("content-encoding", "identity")).lower()
        self._said = str(headers.get("content-length", ""))
        self.is_read = False  # whole; what else comes is that the caller hangs up

    async def read(
        self, most: MaxBytes, arriving: Callable[[int], None], bounds: JsonBounds | None, json_bytes: int | None = None
    ) -> bytes:
        """Read all of it.

        Args:
            most: Of it, as it is sent and inflated.
            arriving: Told how many bytes have come; may raise.
            bounds: Looks at what is JSON of it; None where nothing is.
            json_bytes: How many bytes of it are JSON; None for all.

        Raises:
            BadMessage: It is too large, or compressed in a way that is not read.
            MalformedMessage: The JSON is too large.
            HungUp: The caller has.
        """
        if self._encoding not in ("identity", *COMPRESSIONS):
            what = f"content-encoding: {self._encoding[:100]!r}; expected {' or '.join(COMPRESSIONS)}, or none"
            raise BadMessage(what, grpc.StatusCode.INVALID_ARGUMENT)
        if len(self._said) > _MAX_DIGITS or (self._said and int(self._said) > most.value):
            raise most.exceeded_by(f"{self._said[:40]} bytes")
        parts, found, looks = list[bytes](), 0, bounds is not None and self._encoding == "identity"
        while not self.is_read:
            piece = await self._next()
            if looks and bounds and (json_bytes is None or found < json_bytes):
                bounds.look(piece if json_bytes is None else piece[: json_bytes - found])
            parts.append(piece)
            found += len(piece)
            if found > most.value:
                raise most.exceeded_by(f"more than {most.value} bytes")
            arriving(found)
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        del parts
        if self._encoding != "identity":
            content = await self._inflate(content, most)
            arriving(found + len(content))
            if bounds:
                end = len(content) if json_bytes is None else min(json_bytes, len(content))
                for begin in range(0, end, _STEP_BYTES):
                    bounds.look(content[begin : min(begin + _STEP_BYTES, end)])
                    await asyncio.sleep(0)
        return content

    async def _next(self) -> bytes:
        event = await self._receive()
        if event["type"] != "http.request":
            raise HungUp
        self.is_read = not event.get("more_body")
        content: bytes = event["body"]
        return content

    async def _inflate(self, content: bytes, most: MaxBytes) -> bytes:
        try:
            return await inflate(content, most, self._encoding)
        except BadMessage as error:
            if error.reason == "bytes":
                raise
            raise MalformedMessage(str(error)) from None
