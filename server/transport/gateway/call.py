"""A call of a method as it sees it, made by an HTTP request."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn
from urllib.parse import quote

import grpc

from server.api.rest.exchange import Headers, Refusal
from server.api.servicer import Task
from server.errors import Trailers

WriteOne = Callable[[bytes], Awaitable[None]]


class Ended(Exception):
    """The method has ended the call with a code."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class HttpCall:
    """One call; see server.api.servicer.Servicer. Lives in the event loop.

    Attributes:
        path: /SERVICE/METHOD.
        headers: The request's.
        task: Which the call has to itself.
        address: The caller's IP address and port.
        deadline: On time.monotonic(), in seconds; None where there is none.
        is_cut_off: Whether the server itself has cancelled it.
        has_expired: Whether its task was cancelled for its deadline.
        is_gone: Whether its caller has hung up.
        status: HTTP's, of a refusal of which gRPC's code does not say enough; else 0.
        serialize: Makes bytes of a message; None where methods give bytes.
        answer: The bytes of the only answer; None before it is there.
        trailers: What goes with the end of a call that ends well.
    """

    def __init__(self, path: str, headers: Headers, address: tuple[str, int], names: Iterable[str], task: Task) -> None:
        """Begin a call.

        Args:
            path: /SERVICE/METHOD.
            headers: The request's.
            address: The caller's IP address and port.
            names: On its certificate.
            task: Which the call has to itself.
        """
        self.path, self.task, self.address = path, task, address
        self.headers, self._names = headers, names
        self.deadline: float | None = None
        self.is_cut_off = self.has_expired = self.is_gone = False
        self.status = 0
        self.serialize: Callable[[Any], bytes] | None = None
        self.write_one: WriteOne | None = None
        self.answer: bytes | None = None
        self.trailers: Trailers = ()

    @property
    def method(self) -> str:
        """The method's name."""
        return self.path.rpartition("/")[2]

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """What the caller says beside the message."""
        return self.headers.items()

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    def expire(self) -> None:
        """End the call for its deadline."""
        self.has_expired = True
        self.task.cancel()

    def peer(self) -> str:
        """Where the call comes from, as gRPC names it."""
        host, port = self.address
        return f"ipv6:{quote(f'[{host}]', safe=':')}:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Who the connection says it is: the names on its certificate."""
        return {"x509_subject_alternative_name": [name.encode() for name in self._names]}

    def bytes_of(self, message: Any) -> bytes:
        """Return an answer as it is sent."""
        return message if self.serialize is None else self.serialize(message)

    async def write(self, message: Any) -> None:
        """Send a message of a stream, or keep the only one, which `serialize` makes bytes of."""
        content = self.bytes_of(message)
        if self.write_one:
            await self.write_one(content)
        else:
            self.answer = content

    def set_trailing_metadata(self, trailing_metadata: Trailers) -> None:
        """Say what goes with the end of a call that ends well."""
        self.trailers = trailing_metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Trailers = ()) -> NoReturn:
        """End the call with a code, a message and what goes with them; always raises."""
        raise Ended(Refusal(code, details, trailing_metadata, self.status))
