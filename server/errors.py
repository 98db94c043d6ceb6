"""Everything that can go wrong for a caller; the only module that names gRPC's status codes.

ServerError
├── InvalidInput     INVALID_ARGUMENT     a field that cannot be used
├── MalformedMessage INVALID_ARGUMENT     bytes that are no message of the method, or too much of one
├── NotFound         NOT_FOUND            no such model, version or region
├── NotPossible      FAILED_PRECONDITION  the model cannot do what was asked
├── TooBusy          RESOURCE_EXHAUSTED   the queue is full, or a client's quota used
├── Unauthenticated  UNAUTHENTICATED      nobody who is known
├── PermissionDenied PERMISSION_DENIED    somebody who may not
├── DeadlinePassed   DEADLINE_EXCEEDED    too late to be computed
├── ShuttingDown     UNAVAILABLE          starting or stopping
├── DeviceFailed     UNAVAILABLE          a device failed that computed it, and no other could
├── Unimplemented    UNIMPLEMENTED        what a protocol has and this server has not
└── InternalFault    INTERNAL             ours; the details are in the log only

Two are apart, with one clear line each: StartError stops the start of the server, EngineFault ends one that runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from artifact.errors import InputError

_MAX_MESSAGE_CHARACTERS = 2500  # gRPC carries a status in 8 KiB of metadata
Reason = Literal["requests", "bytes", "seconds", "model", "quota", "held", "health"]
MessageReason = Literal["malformed", "bytes", "fields", "integers", "text"]
Trailers = tuple[tuple[str, str | bytes], ...]


class StartError(Exception):
    """The server cannot start; the message says why."""


class EngineFault(Exception):
    """The engine hangs or has died: the process has to end, for its orchestrator to start it anew."""


class ServerError(Exception):
    """What a caller is told: a code and a message."""

    code: ClassVar[grpc.StatusCode]

    def __init__(self, message: str) -> None:
        """Take a message; what cannot be printed is escaped, so that no caller can write lines into the log."""
        super().__init__(_shorten("".join(map(_printable, message)), _MAX_MESSAGE_CHARACTERS))

    @property
    def trailers(self) -> Trailers:
        """Metadata that goes with the code and the message."""
        return ()


class InvalidInput(ServerError):
    """A field of the request cannot be used."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, field: str, value: object, expected: str) -> None:
        """Compose the message.

        Args:
            field: As the caller wrote it, e.g. "attention.layers".
            value: What came; long values are cut.
            expected: What would have been right.
        """
        super().__init__(f"{_shorten(field)}: {_shorten(str(value))}; expected {_shorten(expected, 2000)}")


@contextmanager
def refusing_inputs(field: str = "") -> Iterator[None]:
    """Refuse the request where a text, an image or a sound cannot be used.

    Args:
        field: As the caller wrote it; empty where the error names it so.

    Raises:
        InvalidInput: In place of the InputError that is raised within.
    """
    try:
        yield
    except InputError as error:
        raise InvalidInput(field or error.field, error.value, error.expected) from error


class MalformedMessage(ServerError):
    """The bytes are no message of the method, or one that is not parsed for what it would take."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self,
        message: str = "the bytes are no message of this method; expected what its .proto says",
        reason: MessageReason = "malformed",
    ) -> None:
        """Compose the error.

        Args:
            message: What is wrong with the bytes.
            reason: Likewise, for metrics.
        """
        super().__init__(message)
        self.reason = reason


class NotFound(ServerError):
    """No such model, version or region of shared memory."""

    code = grpc.StatusCode.NOT_FOUND


class NotPossible(ServerError):
    """The model cannot do what was asked, whatever the input."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class TooBusy(ServerError):
    """The queue is full; says when to come back."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, retry_seconds: float, reason: Reason) -> None:
        """Compose the error.

        Args:
            message: What is full.
            retry_seconds: When a retry has a chance, from now.
            reason: Likewise, for metrics: the queue's requests, bytes or seconds, a model's limits, a client's quota,
                bytes held for callers, or calls of health that wait to be read.
        """
        super().__init__(message)
        self.retry_seconds = retry_seconds
        self.reason = reason

    @property
    def trailers(self) -> Trailers:
        """When to retry: for gRPC's own retries (proposal A6), and as google.rpc.RetryInfo for everyone else."""
        delay = Duration()
        delay.FromNanoseconds(int(self.retry_seconds * 1e9))
        status = Status(code=self.code.value[0], message=str(self))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
        pushback_ms = str(round(self.retry_seconds * 1e3))
        return (("grpc-retry-pushback-ms", pushback_ms), ("grpc-status-details-bin", status.SerializeToString()))


class Unauthenticated(ServerError):
    """The caller is nobody who is known."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(ServerError):
    """The caller may not do that."""

    code = grpc.StatusCode.PERMISSION_DENIED


class DeadlinePassed(ServerError):
    """The caller's deadline passed before the request was computed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class ShuttingDown(ServerError):
    """The server is starting or stopping."""

    code = grpc.StatusCode.UNAVAILABLE


class DeviceFailed(ServerError):
    """The device that computed it has failed, and none is left, or the next has failed, too."""

    code = grpc.StatusCode.UNAVAILABLE


class Unimplemented(ServerError):
    """A part of a protocol that this server does not have."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Repeated(ServerError):
    """An error that a part of an answer has, told of the whole."""

    def __init__(self, number: int, message: str) -> None:
        """Compose the error.

        Args:
            number: Of google.rpc.Code.
            message: The part's.
        """
        super().__init__(message)
        codes = {code.value[0]: code for code in grpc.StatusCode}
        self.code = codes[number]  # type: ignore[misc]  # of this one, not of all


class InternalFault(ServerError):
    """A fault of the server's own; says nothing of its inside."""

    code = grpc.StatusCode.INTERNAL

    def __init__(self) -> None:
        super().__init__("internal error; the server's log has the details")


def first_line(error: Exception) -> str:
    """Say what a library's error says first; ONNX Runtime adds where in its own code."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()


def _shorten(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
