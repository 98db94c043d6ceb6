"""How bulk work treats a server: inputs a call, what is waited for, and what a call that failed means."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from regard.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    RegardError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

CALLS = 4
"""Calls at a time. Of 64 texts each they keep a server's batches full (`python -m bench.many`)."""
MOST_INPUTS, MOST_BYTES = 64, 4 * 2**20
"""Of a call: more make no input cheaper. A single input may have more bytes."""
_FIRST_INPUTS = 8  # four calls of so few fill a batch still
_SHORT_SECONDS, _LONG_SECONDS = 1.0, 5.0  # calls in between keep their size; deadlines are 30 s unless said otherwise
_LEAST_WAIT_SECONDS = 0.01  # a hint of 0 ms is no reason to ask as fast as one can
_MOST_WAIT_SECONDS = 600.0
UNAVAILABLE_WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
SILENT_CALLS = 4  # as long as so many calls may take one after the other, then a server hangs
_OF_ALL = (NotFound, FailedPrecondition, Unauthenticated, PermissionDenied, Unavailable)
_OF_ALL_CODES = frozenset({"CANCELLED", "UNIMPLEMENTED"})


class Pace:
    """How many inputs a call has: more while calls are short, fewer when they are long or too large.

    Args:
        most: Inputs of a call that the server takes.
    """

    def __init__(self, most: int) -> None:
        self._most = max(1, min(most, MOST_INPUTS))
        self.inputs = min(_FIRST_INPUTS, self._most)

    def answered(self, count: int, seconds: float) -> None:
        """Learn of a call of so many inputs."""
        if seconds > _LONG_SECONDS:
            self.inputs = max(min(_FIRST_INPUTS, self._most), min(self.inputs, count // 2))
        elif seconds < _SHORT_SECONDS and count >= self.inputs:
            self.inputs = min(2 * self.inputs, self._most)

    def busy(self, count: int) -> None:
        """Learn that a full server refused so many inputs twice; it may have room for them later."""
        self.inputs = max(1, min(self.inputs, count // 2))

    def too_large(self, count: int) -> None:
        """Learn that so many inputs of a call were too many."""
        self._most = max(1, min(self._most, count // 2))
        self.inputs = min(self.inputs, self._most)


@dataclass
class Patience:
    """What is still tried for one call.

    Attributes:
        unavailable: How often nobody answered.
        refused: How often the server was full.
        waited_seconds: For a full server, in all.
    """

    unavailable: int = 0
    refused: int = 0
    waited_seconds: float = 0.0

    def wait_seconds(self, error: RegardError) -> float | None:
        """Return how long to wait before the same call is made again; None where that will not help."""
        if isinstance(error, Unavailable) and self.unavailable < len(UNAVAILABLE_WAITS_SECONDS):
            self.unavailable += 1
            return UNAVAILABLE_WAITS_SECONDS[self.unavailable - 1]
        if isinstance(error, ResourceExhausted) and error.retry_seconds is not None:
            self.refused += 1
            seconds = max(error.retry_seconds, _LEAST_WAIT_SECONDS)
            self.waited_seconds += seconds
            return seconds if self.waited_seconds <= _MOST_WAIT_SECONDS else None
        return None


class Gate:
    """Holds all calls back while the server said that it is full."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._until = now, 0.0

    def close(self, seconds: float) -> None:
        """Let no call begin for so long."""
        self._until = max(self._until, self._now() + seconds)

    @property
    def seconds(self) -> float:
        """How long it stays closed."""
        return max(0.0, self._until - self._now())


class Silence:
    """Tells a server that hangs from inputs that take long: how long calls were made and none came back.

    Args:
        call_seconds: How long a call may take; None for no limit, and then nothing is given up.
        now: The time, in seconds.
    """

    def __init__(self, call_seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.most_seconds = None if call_seconds is None else SILENT_CALLS * call_seconds
        self._now = now
        self._since: float | None = None

    def asked(self) -> None:
        """Learn that a call begins."""
        if self._since is None:
            self._since = self._now()

    def answered(self) -> None:
        """Learn that one has come back, with whatever."""
        self._since = None

    @property
    def is_over(self) -> bool:
        """Whether it has lasted too long."""
        if self._since is None or self.most_seconds is None:
            return False
        return self._now() - self._since >= self.most_seconds


def is_of_all(error: RegardError) -> bool:
    """Tell whether every input would have this error: no such model, no permission, nobody there."""
    return isinstance(error, _OF_ALL) or error.code.name in _OF_ALL_CODES
