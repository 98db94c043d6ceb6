"""An HTTP request and its answer, between what carries them and the protocols that are spoken in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from server.errors import Trailers

JSON, BINARY = "application/json", "application/octet-stream"
# As the Connect protocol has it, https://connectrpc.com/docs/protocol#error-codes, which follows google/rpc/code.proto.
STATUSES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
_FAULT = 500
Headers = Mapping[str, str | bytes]
"""By names in lower case; of a name that comes twice, the last."""


def content_type_of(headers: Headers) -> str:
    """Return the type of a body, in lower case and without parameters; empty where nobody says."""
    return str(headers.get("content-type", "")).partition(";")[0].strip().lower()


@dataclass(frozen=True)
class HttpRequest:
    """What came.

    Attributes:
        names: What the path names, by the names of its parts.
        headers: See Headers.
        body: Inflated.
    """

    names: Mapping[str, str]
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class HttpAnswer:
    """What is sent."""

    content: bytes
    content_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """How a call ended that did not end well.

    Attributes:
        code: gRPC's.
        message: What is wrong.
        trailers: What goes with it.
        status: HTTP's, where gRPC's code does not say enough; 0 for what STATUSES has.
    """

    code: grpc.StatusCode
    message: str
    trailers: Trailers = ()
    status: int = 0

    @property
    def http_status(self) -> int:
        """HTTP's status."""
        return self.status or STATUSES.get(self.code, _FAULT)


@dataclass(frozen=True)
class Asked:
    """A request as a method of gRPC takes it.

    Attributes:
        message: The method's.
        write: Makes the answer of the bytes of the method's; raises ServerError where it cannot be written.
        max_numbers: How many numbers of the answer may become text, each as large as a dozen bytes; 0 for a few.
    """

    message: Any
    write: Callable[[bytes], HttpAnswer]


@dataclass(frozen=True)
class Route:
    """A way to ask one method.

    Attributes:
        verb: GET or POST.
        path: With the names of its parts in braces.
        method: gRPC's, /SERVICE/METHOD.
        read: Reads a request; raises ServerError.
        write_error: Says why there is no answer.
        json_bytes: Says by a request's headers how many bytes of its body, from its beginning, are read as JSON; None
            for all.
    """

    verb: str
    path: str
    method: str
    read: Callable[[HttpRequest], Asked]
    write_error: Callable[[Refusal], HttpAnswer]
    json_bytes: Callable[[Headers], int | None] = lambda headers: None
