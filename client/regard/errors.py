"""What a failed call raises, one class for each gRPC status that callers tell apart.

RegardError
├── InvalidArgument     the request is wrong: the message names the field, its value and what was expected
│   └── InvalidCall     the client itself refused it, and sent nothing; a ValueError and a TypeError too
│       └── UnreadableFile  an image's path that cannot be read; an OSError too
├── NotFound            no such model or version
├── FailedPrecondition  this model cannot do it: no labels, or no attention exported
├── Unauthenticated     the server does not know who calls: no token, or not one of a client
├── PermissionDenied    the client may not do that, or nobody may on this address
├── ResourceExhausted   the queue is full, a quota used, or a message larger than allowed
├── Unavailable         nobody answers there, or the server is starting or stopping
└── DeadlineExceeded    no answer came within the timeout

Any other status is a plain `RegardError`, to be told apart by its `code`. The gRPC error is the `__cause__`.
"""

from typing import Any, Self

import grpc


class RegardError(Exception):
    """A call that failed.

    Attributes:
        code: The gRPC status.
        message: What the server said, or gRPC where no server was reached.
        retry_seconds: When a full server expects to have room again, in seconds from now; None where it did not say.
    """

    def __init__(self, code: grpc.StatusCode, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class InvalidArgument(RegardError):
    """The request is wrong; the message names the field, its value and what was expected."""


class InvalidCall(InvalidArgument, ValueError, TypeError):
    """The client itself refused an argument, and sent nothing.

    It is a ValueError and a TypeError too, as Python's own functions raise for such arguments.
    """

    @classmethod
    def of(cls, message: str) -> Self:
        """Return one with the status of an invalid argument."""
        return cls(grpc.StatusCode.INVALID_ARGUMENT, message)


class UnreadableFile(InvalidCall, OSError):
    """The image is a path that cannot be read: no such file, a folder, or no permission."""


class NotFound(RegardError):
    """No such model or version is served."""


class FailedPrecondition(RegardError):
    """The model cannot do what was asked: it has no labels, or its attention was not exported."""


class Unauthenticated(RegardError):
    """The server does not know who calls: there was no token or certificate, or not one of a client."""


class PermissionDenied(RegardError):
    """The client may not do that, or nobody may on this address."""


class ResourceExhausted(RegardError):
    """The server's queue is full, the client's quota is used, or a message is larger than one side allows."""


class Unavailable(RegardError):
    """Nobody answers at this address, or the server is starting or stopping; trying again later may help."""


class DeadlineExceeded(RegardError):
    """No answer came within the timeout."""


_ERRORS: dict[grpc.StatusCode, type[RegardError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_rpc_error(error: grpc.RpcError) -> RegardError:
    """Return the exception for what a stub, blocking or asyncio, has raised."""
    code = error.code()
    return _ERRORS.get(code, RegardError)(code, error.details() or "", _retry_seconds(error))


def from_input_error(code: int, message: str) -> RegardError:
    """Return the exception for one of several inputs that has no answer; `code` is google.rpc.Code's."""
    status = next((one for one in grpc.StatusCode if one.value[0] == code), grpc.StatusCode.UNKNOWN)
    return _ERRORS.get(status, RegardError)(status, message)


def _retry_seconds(error: grpc.RpcError) -> float | None:
    """Read the hint of a server that is full (gRPC proposal A6)."""
    metadata: Any = error.trailing_metadata() or ()  # pairs, whatever the annotation says
    for key, value in metadata:
        if key == "grpc-retry-pushback-ms" and str(value).isdecimal():  # anything else: do not retry, says A6
            return int(value) / 1e3
    return None
