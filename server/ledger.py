"""Counts what the server holds for its callers: requests until their RPC is over, and bytes, also by client."""

import asyncio
import math
from collections.abc import Callable, Hashable

from server.errors import TooBusy

_RETRY_SECONDS = 1.0
# What is held of a message: gRPC's bytes, and what is made of them; of an answer, ours and gRPC's copy.
COPIES = 2
CALL_BYTES = 16 * 2**10  # of gRPC's objects and ours, however small the messages
# How many times what is free one client may hold: alone 4/5 of all, two 4/9 each, so that there is room for others.
CLIENT_FACTOR = 4


def has_room(own: int, of_all: int, limit: int) -> bool:
    """Whether a client may have so many of something where all have so many, its own included.

    One alone may have as many as the limit says; then there still is room for others, as Ledger shares bytes: of five
    fourths of the limit each may have CLIENT_FACTOR times what is free, and all together have no more than these.
    """
    return own + CLIENT_FACTOR * of_all <= (CLIENT_FACTOR + 1) * limit


class _Own:
    """What is held for one client, and its requests that are not yet computed."""

    __slots__ = ("accounts", "computing", "held_bytes")

    def __init__(self) -> None:
        self.accounts = self.computing = self.held_bytes = 0


class Ledger:
    """Everything that is held; lives in the event loop.

    Clients share the bytes as the ports of a switch do their buffer: each may hold so many times what is free, which
    bounds one as well as many, and leaves room for whoever comes next (Choudhury and Hahne 1998, dynamic thresholds).
    """

    def __init__(self, max_bytes: float = math.inf) -> None:
        """Count from nothing.

        Args:
            max_bytes: Beyond which requests are refused; one alone may always be as large as it is.
        """
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self.requests = 0
        self.unread = 0  # of these, those that are computed, and whose answers wait to be read
        self.nobody = _Own()  # who is not known yet
        self._clients = dict[Hashable, _Own]()
        self.idle = asyncio.Event()  # set while no request is in the server
        self.idle.set()

    async def wait_idle(self) -> None:
        """Wait until no request is in the server."""
        await self.idle.wait()

    def own_of(self, client: Hashable) -> _Own:
        """Return what is held for a client, who is known from here on; for nobody, what is held for all of them."""
        if client is None:
            return self.nobody
        own = self._clients.get(client)
        if own is None:
            own = self._clients[client] = _Own()
        return own

    def forget(self, client: Hashable) -> None:
        """Forget a client, who has no account any more."""
        del self._clients[client]

    def check_requests(self, client: Hashable, limit: int, suggest_retry: Callable[[], float]) -> None:
        """Refuse a client's newest request, counted already, where there are too many that are to be computed.

        Args:
            client: Whose it is.
            limit: How many one client may have, alone: so many that wait, and those of a batch.
            suggest_retry: In how many seconds who is refused has a chance.

        Raises:
            TooBusy: There are.
        """
        own, of_all = self._clients.get(client, self.nobody).computing, self.requests - self.unread
        if of_all > limit and not has_room(own, of_all, limit):
            which = f"{of_all} requests are in it, {own} of them this client's"
            most = f"one alone may have {limit} (--max-queue-size and --max-batch-size)"
            raise TooBusy(f"the server is full: {which}; {most}; retry later", suggest_retry(), "requests")

    def check(self) -> None:
        """Refuse where too much is held, whoever comes.

        Raises:
            TooBusy: It is.
        """
        if self.held_bytes > self.max_bytes:
            self._refuse(f"the server holds {self.held_bytes} bytes for its callers")

    def check_client(self, client: Hashable, own_bytes: int) -> None:
        """Refuse a request for which there is no room beside others, or beside its client's other ones.

        Args:
            client: Whose it is; None for nobody who is known yet, of whom there are many.
            own_bytes: What is held for it.

        Raises:
            TooBusy: There is none.
        """
        if self.held_bytes > own_bytes:
            self.check()
        own = self._clients.get(client)
        held_bytes = own.held_bytes if own else 0
        most_bytes = CLIENT_FACTOR * (self.max_bytes - self.held_bytes)
        if held_bytes > own_bytes and held_bytes > most_bytes:
            expected = f"expected at most {most_bytes} while {self.held_bytes}"
            self._refuse(f"the server holds {held_bytes} bytes for this client; {expected} are held for all")

    def _refuse(self, what: str) -> None:
        message = f"{what}, of {self.max_bytes} at most (--max-held-bytes); retry later"
        raise TooBusy(message, _RETRY_SECONDS, "held")


class Account:
    """What is held for one request; all of it is given back when it is closed, which may happen twice."""

    __slots__ = ("_client", "_held_bytes", "_is_accepted", "_is_answered", "_ledger", "_own", "_parts")

    def __init__(self, ledger: Ledger | None = None) -> None:
        """Open an account of nobody who is known yet.

        Args:
            ledger: Where it is; None for one of its own, without a limit.
        """
        self._ledger = ledger or Ledger()
        self._parts: dict[str, int] = {}
        self._held_bytes = 0  # of all parts
        self._client: Hashable = None
        self._own = self._ledger.nobody
        self._is_accepted = self._is_answered = False

    def belong_to(self, client: Hashable) -> None:
        """Say whose request it is."""
        if client == self._client:
            return
        held_bytes, computing = self._held_bytes, self._is_accepted and not self._is_answered
        before, own = self._own, self._ledger.own_of(client)
        own.held_bytes += held_bytes
        own.computing += computing
        own.accounts += 1
        before.held_bytes -= held_bytes
        before.computing -= computing
        if self._client is not None:
            before.accounts -= 1
            if not before.accounts:  # whoever has none has nothing
                self._ledger.forget(self._client)
        self._client, self._own = client, own

    def accept(self) -> None:
        """Count the request as one that is in the server."""
        if not self._is_accepted:
            self._is_accepted = True
            if not self._ledger.requests:
                self._ledger.idle.clear()
            self._ledger.requests += 1
            self._own.computing += 1
            self.hold("call", CALL_BYTES)

    def answer(self) -> None:
        """Say that it is computed: what is left is that its caller reads."""
        if self._is_accepted and not self._is_answered:
            self._is_answered = True
            self._ledger.unread += 1
            self._own.computing -= 1

    def hold(self, part: str, size_bytes: int) -> None:
        """Say how much is held of a part now: the call, the request, the result or the answer."""
        if more_bytes := size_bytes - self._parts.get(part, 0):
            self._parts[part] = size_bytes
            self._held_bytes += more_bytes
            self._ledger.held_bytes += more_bytes
            self._own.held_bytes += more_bytes

    def reserve(self, **parts: int) -> None:
        """Say how much will be held of parts, in bytes; who needs no more than before is not refused.

        Raises:
            TooBusy: There is no room for it; what was held before still is.
        """
        before = {part: self._parts.get(part, 0) for part in parts}
        for part, size_bytes in parts.items():
            self.hold(part, size_bytes)
        if 0 < sum(parts.values()) <= sum(before.values()):
            return
        try:
            self.check()
        except TooBusy:  # who is told so may take long to read it
            for part, size_bytes in before.items():
                self.hold(part, size_bytes)
            raise

    def check(self) -> None:
        """Refuse a request for which there is no room; see Ledger.check_client."""
        ledger = self._ledger
        if (CLIENT_FACTOR + 1) * ledger.held_bytes > CLIENT_FACTOR * ledger.max_bytes:  # else even one may have it all
            ledger.check_client(self._client, self._held_bytes)

    def close(self, task: object = None) -> None:
        """Give everything back; may be the done callback of a task."""
        ledger, own, held_bytes = self._ledger, self._own, self._held_bytes
        ledger.held_bytes -= held_bytes
        own.held_bytes -= held_bytes
        self._parts.clear()
        self._held_bytes = 0
        if self._is_answered:
            self._is_answered = False
            ledger.unread -= 1
        elif self._is_accepted:
            own.computing -= 1
        if self._is_accepted:
            self._is_accepted = False
            ledger.requests -= 1
            if not ledger.requests:
                ledger.idle.set()
        if self._client is not None:  # what may still be counted is nobody's
            own.accounts -= 1
            if not own.accounts:
                ledger.forget(self._client)
            self._client, self._own = None, ledger.nobody
