"""Counts what the server holds for its callers: requests until their RPC is over, and bytes."""

import asyncio
import math
from typing import Literal

from server.errors import TooBusy

_RETRY_SECONDS = 1.0
# What is held of a message: gRPC's bytes, and what is made of them; of an answer, ours and gRPC's copy.
COPIES = 2

Part = Literal["request", "result", "answer"]


class Ledger:
    """Everything that is held; lives in the event loop."""

    def __init__(self, max_bytes: float = math.inf) -> None:
        """Count from nothing.

        Args:
            max_bytes: Beyond which requests are refused; one alone may always be as large as it is.
        """
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self.requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no request is in the server."""
        await self._idle.wait()

    def accept(self) -> None:
        """Count a request."""
        self.requests += 1
        self._idle.clear()

    def leave(self) -> None:
        """Count it no more."""
        self.requests -= 1
        if not self.requests:
            self._idle.set()

    def check(self, own_bytes: int = 0) -> None:
        """Refuse where too much is held for others and for one who holds so much.

        Raises:
            TooBusy: It is.
        """
        if self.held_bytes > self.max_bytes and self.held_bytes > own_bytes:
            message = f"the server holds {self.held_bytes} bytes for its callers (--max-held-bytes); retry later"
            raise TooBusy(message, _RETRY_SECONDS, "held")


class Account:
    """What is held for one request; all of it is given back when it is closed, which may happen twice."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        """Open an account.

        Args:
            ledger: Where it is; None for one of its own, without a limit.
        """
        self._ledger = ledger or Ledger()
        self._parts = dict[Part, int]()
        self._is_accepted = False

    def accept(self) -> None:
        """Count the request as one that is in the server."""
        if not self._is_accepted:
            self._is_accepted = True
            self._ledger.accept()

    def hold(self, part: Part, size_bytes: int) -> None:
        """Say how much is held of a part now."""
        self._ledger.held_bytes += size_bytes - self._parts.get(part, 0)
        self._parts[part] = size_bytes

    def reserve(self, part: Part, size_bytes: int) -> None:
        """Say how much will be held of a part.

        Raises:
            TooBusy: With what is held for others it is too much.
        """
        self.hold(part, size_bytes)
        self.check()

    def check(self) -> None:
        """Refuse a request for which there is no room beside others.

        Raises:
            TooBusy: There is none.
        """
        self._ledger.check(sum(self._parts.values()))

    def close(self, task: object = None) -> None:
        """Give everything back; may be the done callback of a task."""
        self._ledger.held_bytes -= sum(self._parts.values())
        self._parts.clear()
        if self._is_accepted:
            self._is_accepted = False
            self._ledger.leave()
