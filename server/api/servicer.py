"""What a transport gives a method: the interface behind which calls are carried, by grpcio or by another.

A transport runs a coroutine, or a generator of answers, in a task of its own for each call, with the bytes of its one
message, or a stream of them, each read when the next is asked for, and sends the bytes that it gives. A method itself
gets a message and gives one, but where it `handles_bytes`: then it may get MalformedMessage instead, and gives bytes.
The task is cancelled when the caller hangs up or its deadline passes, and lasts until the last answer is read: what is
held for a call is held so long. A transport also begins each call before its message is read, so that a caller may be
refused unread, and ends calls when it is told to (`EndCalls`).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import grpc

from server.errors import Trailers

Task = asyncio.Task[Any]
EndCalls = Callable[[Sequence[Task]], None]
"""Ends calls by their tasks, whatever they wait for: callers see CANCELLED, and what is held for them is freed."""


class Servicer(Protocol):
    """The transport's side of a call."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What the caller says beside the message; keys are in lower case."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""

    def peer(self) -> str:
        """Where the call comes from: ipv4:ADDRESS:PORT, ipv6:[ADDRESS]:PORT or unix:PATH."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Who the connection says it is: the names on its certificate; see auth.clients.certificate_names."""

    async def write(self, message: Any) -> None:
        """Send a message, and wait until there is room for the next.

        Raises:
            asyncio.CancelledError: The caller has hung up.
            grpc.aio.InternalError: Likewise.
        """

    def set_trailing_metadata(self, trailing_metadata: Trailers) -> None:
        """Say what goes with the end of a call that ends well."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Trailers = ()) -> NoReturn:
        """End the call with a code, a message and what goes with them; always raises."""
