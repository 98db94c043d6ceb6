"""Reads messages that unauthenticated callers may send one at a time.

gRPC receives and inflates a message whole before it says how large it is, in the event loop: together they could have
any size, and take all of its time.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from server.errors import MalformedMessage, TooBusy
from server.memory import give_back_memory

_LOOK_SECONDS, _MAX_LOOKS = 0.02, 5  # after so many a message that has not come makes way for others
_MAX_WAITING = 256  # calls of one address
_LONG_SECONDS, _REST_FACTOR = 0.01, 9  # an address whose message was refused after so long rests that much longer
_MAX_REST_SECONDS = 5.0
_ALL_LOOKS = 250  # after which it makes way in any case
_RETRY_SECONDS = 1.0
_MAX_END_SECONDS = 5.0  # in which a reading ends with its call

Request = TypeVar("Request")


class Turns:
    """Whose turn it is: addresses have theirs one after the other; lives in the event loop."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting = dict[str, deque[asyncio.Future[None]]]()
        self._resting = dict[str, float]()  # until when
        self._waking: asyncio.TimerHandle | None = None
        self._giving_back: asyncio.Task[None] | None = None
        self._ending = set[asyncio.Task[None]]()  # of readings that nobody waits for

    async def read(
        self, address: str, contents: AsyncIterator[bytes], parse: Callable[[bytes], Awaitable[Request]]
    ) -> Request | None:
        """Wait for a turn, and read a message in it; its bytes are gone when the turn ends.

        Args:
            address: Of the caller.
            contents: Its only message.
            parse: Makes a request of it, or says that it is malformed.

        Returns:
            The request, None where there is none.

        Raises:
            TooBusy: Too many calls of this address wait, or this one took longer than its turn.
        """
        if self._taken or address in self._resting:
            await self._wait(address)
        self._taken, began = True, time.monotonic()
        reading = asyncio.create_task(_first(contents))
        try:
            await self._look_for(reading)
            content = reading.result()
            request = None if content is None else await parse(content)
            if isinstance(request, MalformedMessage):
                self._let_rest(address, time.monotonic() - began)
            return request
        finally:
            content = None
            if reading.done():
                self._pass_on()
            else:
                self._ending.add(ending := asyncio.create_task(self._end(reading, address, began)))
                ending.add_done_callback(self._ending.discard)

    async def _end(self, reading: asyncio.Task[bytes | None], address: str, began: float) -> None:
        """Keep the turn until gRPC is done with a message that nobody waits for any more.

        The call has ended, and with it ends the reading. Cancelled, it would leave what gRPC inflates for good: its
        batch of operations frees a message when somebody takes it.
        """
        reading.add_done_callback(_forget)
        await asyncio.wait([reading], timeout=_MAX_END_SECONDS)
        if reading.done() and not reading.cancelled() and not reading.exception() and reading.result():
            self._let_rest(address, time.monotonic() - began)
        self._pass_on()

    def _let_rest(self, address: str, seconds: float) -> None:
        """An address whose message took long for nothing makes way for others."""
        if seconds > _LONG_SECONDS:
            self._resting[address] = time.monotonic() + min(seconds * _REST_FACTOR, _MAX_REST_SECONDS)
            self._give_back_soon()

    def _give_back_soon(self) -> None:
        """Give back what a large message took, once gRPC has let go of its call; its address rests meanwhile."""
        if self._giving_back is None or self._giving_back.done():
            self._giving_back = asyncio.create_task(_give_back())

    async def _look_for(self, reading: asyncio.Task[bytes | None]) -> None:
        """Look whether a message has come, until it has or others have waited for long enough."""
        looks = 0  # not seconds: the event loop may be late itself
        while not (await asyncio.wait([reading], timeout=_LOOK_SECONDS))[0]:
            looks += 1
            if (looks >= _MAX_LOOKS and self._others_wait()) or looks >= _ALL_LOOKS:
                raise TooBusy("the message has not come; retry later", _RETRY_SECONDS, "health")

    async def _wait(self, address: str) -> None:
        waiting = self._waiting.setdefault(address, deque())
        if len(waiting) >= _MAX_WAITING:
            raise TooBusy(f"{_MAX_WAITING} calls of this address wait; retry later", _RETRY_SECONDS, "health")
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        if not self._taken:
            self._pass_on()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(address, turn)
            else:  # it has come at this moment
                self._pass_on()
            raise

    def _leave(self, address: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(address, deque())
        if turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[address]

    def _others_wait(self) -> bool:
        """Whether an address waits that does not rest."""
        now = time.monotonic()
        return any(self._resting.get(address, 0.0) <= now for address in self._waiting)

    def _pass_on(self) -> None:
        """Give the turn to the next address that does not rest; its further calls wait behind all others."""
        self._taken, now = False, time.monotonic()
        self._resting = {address: until for address, until in self._resting.items() if until > now}
        for address in [address for address in self._waiting if address not in self._resting]:
            waiting = deque(turn for turn in self._waiting.pop(address) if not turn.done())  # others have hung up
            if waiting:
                waiting.popleft().set_result(None)
                self._taken = True
            if waiting:
                self._waiting[address] = waiting
            if self._taken:
                return
        if self._waiting:
            self._wake_in(min(self._resting.values()) - now)

    def _wake_in(self, seconds: float) -> None:
        if self._waking:
            self._waking.cancel()
        self._waking = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        """Those who have rested may go on."""
        self._waking = None
        if not self._taken:
            self._pass_on()


def _forget(reading: asyncio.Task[bytes | None]) -> None:
    """Nobody asks any more why it failed."""
    if not reading.cancelled():
        reading.exception()


async def _first(contents: AsyncIterator[bytes]) -> bytes | None:
    messages: Any = aiter(contents)
    async with aclosing(messages):  # gRPC's generator holds what it gave last
        return await anext(messages, None)


async def _give_back() -> None:
    await asyncio.sleep(_LOOK_SECONDS)
    with suppress(RuntimeError):  # no thread can be had, or the server ends
        await asyncio.to_thread(give_back_memory)
