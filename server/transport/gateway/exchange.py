"""A request's way to read and to answer, over ASGI."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from server.api.rest.exchange import HttpAnswer, Refusal, Route
from server.transport.gateway.body import Body, Receive
from server.transport.gateway.call import HttpCall

_CHUNK_BYTES = 2**18  # sent at a time; the next when there is room
Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Exchange:
    """One request and its answer; lives in the event loop.

    Attributes:
        names: What the path names, by the names of its parts.
        body: The request's.
        has_begun: Whether a part of the answer is sent.
        is_whole: Whether another part may follow: the last one was sent whole, and is not the end.
    """

    def __init__(self, scope: Scope, body: Body, receive: Receive, send: Send) -> None:
        """Read and send nothing yet."""
        self.names: Mapping[str, str] = scope.get("path_params", {})
        self.body = body
        self._receive, self._send = receive, send
        self._watching: asyncio.Task[None] | None = None
        self.has_begun, self.is_whole = False, True

    async def send(self, answer: HttpAnswer) -> None:
        """Send an answer, and wait until there is room for all of it; the connection ends where the body is unread."""
        length = (b"content-length", str(len(answer.content)).encode())
        others = ((name.lower().encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items())
        await self._begin(answer.status, [(b"content-type", answer.content_type.encode()), length, *others])
        await self._send_body(answer.content, is_last=True)

    async def send_part(self, content_type: str, content: bytes, *, is_last: bool = False) -> None:
        """Send a part of an answer, and wait until there is room for the next."""
        if not self.has_begun:
            await self._begin(200, [(b"content-type", content_type.encode())])
        await self._send_body(content, is_last=is_last)

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if not self.body.is_read:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self.has_begun = True

    async def _send_body(self, content: bytes, *, is_last: bool) -> None:
        for begin in range(0, len(content), _CHUNK_BYTES):
            piece = content[begin : begin + _CHUNK_BYTES]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self.is_whole = not is_last and begin + _CHUNK_BYTES >= len(content)
        if is_last:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def watch(self, call: HttpCall) -> None:
        """Cancel a call when its caller hangs up."""

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            if not call.task.done():
                call.is_gone = True
                call.task.cancel()

        self._watching = asyncio.create_task(watch())

    def stop_watching(self) -> None:
        """Watch no more."""
        if self._watching:
            self._watching.cancel()


def refuse(route: Route, refusal: Refusal) -> HttpAnswer:
    """Say why there is no answer, in the words of the path's protocol."""
    answer = route.write_error(refusal)
    headers = {**answer.headers, **headers_of(refusal.trailers)}
    return HttpAnswer(answer.content, answer.content_type, answer.status, headers)


def headers_of(trailers: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Return what goes with an end as headers; when to retry as HTTP says it, in whole seconds."""
    headers = dict[str, str]()
    for name, value in trailers:
        if name == "grpc-retry-pushback-ms":
            headers["retry-after"] = str(math.ceil(int(value) / 1e3))
        elif isinstance(value, str):
            headers[name] = value
    return headers
