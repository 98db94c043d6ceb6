"""What a transport that is not grpcio's server checks itself: how large messages are, and the timeout of a call."""

from typing import NamedTuple

import grpc

from server.errors import MalformedMessage, MessageReason

_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MAX_DIGITS = 8


class BadMessage(MalformedMessage):
    """What a caller sends is no message, too large, or compressed in a way that is not read."""

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode = grpc.StatusCode.INTERNAL,
        reason: MessageReason = "malformed",
    ) -> None:
        """Compose the error.

        Args:
            message: What is wrong.
            code: What gRPC has for it.
            reason: Likewise, for metrics.
        """
        super().__init__(message, reason)
        self.code = code  # type: ignore[misc]  # of this one, not of all


class MaxBytes(NamedTuple):
    """What a message may have, as it is sent and inflated, and who says so."""

    value: int
    whose: str

    def exceeded_by(self, found: str) -> BadMessage:
        """Say that a message is larger."""
        message = f"a message of {found}; expected at most {self.value} ({self.whose})"
        return BadMessage(message, grpc.StatusCode.RESOURCE_EXHAUSTED, "bytes")


def seconds_of(timeout: str) -> float | None:
    """Read grpc-timeout, at most eight digits and a unit; None for what is none."""
    digits, unit = timeout[:-1], timeout[-1:]
    if unit in _SECONDS and 0 < len(digits) <= _MAX_DIGITS and digits.isascii() and digits.isdecimal():
        return int(digits) * _SECONDS[unit]
    return None
