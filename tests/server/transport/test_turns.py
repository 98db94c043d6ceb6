"""Messages of unauthenticated callers are read one at a time, and no address keeps others from being read."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from server.errors import MalformedMessage, TooBusy
from server.transport import turns as module
from server.transport.turns import Turns
from tests.server.fakes import Clock


async def parse(content: bytes) -> str:
    """Make a request of a message."""
    return content.decode()


async def messages() -> AsyncIterator[bytes]:
    """A message that is there."""
    yield b"message"


class Caller:
    """A caller whose message comes when the test says so; gRPC ends its reading with its call."""

    def __init__(self, turns: Turns, address: str, *, ends: bool = True) -> None:
        self.is_read = False
        self._comes = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(turns.read(address, self._messages(), parse))
        if ends:
            self.task.add_done_callback(lambda _: self.end())

    async def _messages(self) -> AsyncIterator[bytes]:
        self.is_read = True
        if await self._comes:
            yield b"message"

    def send(self) -> None:
        """Let it come."""
        self.end(comes=True)

    def end(self, *, comes: bool = False) -> None:
        """Let none come, unless it has."""
        if not self._comes.done():
            self._comes.set_result(comes)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes nobody late."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 30.0)


async def settle() -> None:
    """Let tasks go as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def hear(callers: dict[str, Caller]) -> str:
    """Say who is being read now, and let the message come."""
    await settle()
    now = [name for name, caller in callers.items() if caller.is_read and not caller.task.done()]
    assert len(now) == 1
    callers[now[0]].send()
    assert await callers[now[0]].task == "message"
    return now[0]


async def test_addresses_take_turns_and_one_message_is_read_at_a_time() -> None:
    """However many calls an address has waiting, the next address's first goes before its second."""
    turns = Turns()
    callers = {name: Caller(turns, name[0]) for name in ("a1", "a2", "a3", "b1", "b2", "c1")}
    assert [await hear(callers) for _ in callers] == ["a1", "a2", "b1", "c1", "a3", "b2"]
    later = {"d1": Caller(turns, "d")}
    assert await hear(later) == "d1"


async def test_a_message_that_does_not_come_makes_way_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its turn, and not while nobody waits."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.001)
    turns = Turns()
    silent = Caller(turns, "a")
    assert not (await asyncio.wait([silent.task], timeout=0.1))[0]
    other = Caller(turns, "b")
    other.send()
    with pytest.raises(TooBusy, match="the message has not come; retry later") as refused:
        await asyncio.wait_for(silent.task, 10)
    assert (refused.value.reason, refused.value.retry_seconds) == ("health", 1.0)
    assert await asyncio.wait_for(other.task, 10) == "message"


async def test_a_message_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where nobody else waits, or those alone who rest."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.001)
    turns = Turns()
    turns._resting["resting"] = time.monotonic() + 60
    silent, resting = Caller(turns, "a"), Caller(turns, "resting")
    assert not (await asyncio.wait([silent.task], timeout=0.05))[0]
    with pytest.raises(TooBusy, match="the message has not come"):
        await asyncio.wait_for(silent.task, 10)
    resting.task.cancel()
    await asyncio.wait([resting.task])


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_what_grpc_still_inflates_is_waited_for(hangs_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled it would never be freed, and the next message must not be inflated beside it."""
    clock, turns = Clock(), Turns()
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    large, other = Caller(turns, "a", ends=False), Caller(turns, "b")
    await settle()
    if hangs_up:
        large.task.cancel()
    await asyncio.wait([large.task])
    await asyncio.sleep(0.05)
    assert large.is_read
    assert not other.is_read
    assert not large._comes.cancelled()
    clock.now += 0.5
    large.send()
    other.send()
    assert await asyncio.wait_for(other.task, 10) == "message"
    assert turns._resting["a"] == clock.now + 4.5, "it took long for nothing"
    assert turns._giving_back is not None
    await asyncio.wait_for(turns._giving_back, 10)


async def test_a_reading_that_does_not_end_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should gRPC ever forget to end it with its call."""
    monkeypatch.setattr(module, "_MAX_END_SECONDS", 0.01)
    turns = Turns()
    forgotten, other = Caller(turns, "a", ends=False), Caller(turns, "b")
    await settle()
    forgotten.task.cancel()
    other.send()
    assert await asyncio.wait_for(other.task, 10) == "message"
    assert not turns._resting
    forgotten.end()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ConnectionError("gone")])
async def test_a_reading_that_fails_passes_the_turn_on(error: BaseException) -> None:
    """However it ends."""
    turns = Turns()
    failing, other = Caller(turns, "a", ends=False), Caller(turns, "b")
    await settle()
    failing.task.cancel()
    await settle()
    failing._comes.set_exception(error)
    other.send()
    assert await asyncio.wait_for(other.task, 10) == "message"
    assert not turns._resting


async def test_an_address_whose_message_took_long_for_nothing_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine times as long, while others are read: a message that is inflated holds the event loop."""
    clock, turns, heard = Clock(), Turns(), list[str]()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))

    async def refuse(content: bytes) -> MalformedMessage:
        clock.now += 0.06
        return MalformedMessage(f"{len(content)} bytes")

    async def hold(content: bytes) -> str:
        clock.now += 0.06
        return content.decode()

    async def call(address: str, parse: Callable[[bytes], Awaitable[object]]) -> None:
        await turns.read(address, messages(), parse)
        heard.append(address)

    async def later(seconds: float) -> list[str]:
        clock.now += seconds
        turns._wake()
        await settle()
        return heard

    asked = (("greedy", refuse), ("greedy", parse), ("modest", hold), ("modest", parse))
    calls = [asyncio.create_task(call(*one)) for one in asked]
    await asyncio.wait_for(asyncio.gather(calls[0], *calls[2:]), 10)
    assert await later(7 * 0.06) == ["greedy", "modest", "modest"]
    assert await later(2 * 0.06) == ["greedy", "modest", "modest", "greedy"]
    for _ in range(2):  # what is read does not let its address rest
        await asyncio.wait_for(call("greedy", hold), 10)
    await asyncio.wait_for(call("greedy", refuse), 10)
    resting = asyncio.create_task(call("greedy", parse))
    await settle()
    assert await later(8 * 0.06) == ["greedy", "modest", "modest", *["greedy"] * 4], "nobody else is there"
    assert await later(2 * 0.06) == ["greedy", "modest", "modest", *["greedy"] * 5]
    await resting


async def test_memory_is_given_back_once_for_many_messages_and_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are read all the same."""
    tries, tried = list[int](), asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail() -> None:
        tries.append(1)
        loop.call_soon_threadsafe(tried.set)
        raise RuntimeError("can't start new thread")

    async def refuse(content: bytes) -> MalformedMessage:
        return MalformedMessage(f"{len(content)} bytes")

    monkeypatch.setattr(module, "give_back_memory", fail)
    monkeypatch.setattr(module, "_LONG_SECONDS", 0.0)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)
    turns = Turns()
    for address in ("a", "b", "c"):
        assert isinstance(await turns.read(address, messages(), refuse), MalformedMessage)
    assert await turns.read("d", messages(), parse) == "message"
    assert not tries
    await asyncio.wait_for(tried.wait(), 10)
    assert turns._giving_back is not None
    await asyncio.wait_for(turns._giving_back, 10)
    assert tries == [1]


async def test_so_many_calls_of_an_address_wait_and_no_more() -> None:
    """Others' may."""
    turns = Turns()
    first = Caller(turns, "a")
    waiting = [Caller(turns, "a") for _ in range(256)]
    await settle()
    with pytest.raises(TooBusy, match="256 calls of this address wait"):
        await Caller(turns, "a").task
    all_of_them = [first, *waiting, Caller(turns, "b")]
    for caller in all_of_them:
        caller.send()
    assert await asyncio.gather(*(caller.task for caller in all_of_them)) == ["message"] * 258


class Passing(Turns):
    """Cancels a caller in the moment in which the turn is given to it."""

    victim: asyncio.Task[Any] | None = None

    def _pass_on(self) -> None:
        super()._pass_on()
        if self.victim:
            self.victim.cancel()
            self.victim = None


@pytest.mark.parametrize("gone", [0, 1, "in the moment"])
async def test_who_hangs_up_leaves_the_turn_to_others(gone: int | str) -> None:
    """Whether read, waiting, or told at this very moment that it is its turn."""
    turns = Passing()
    callers = [Caller(turns, "a") for _ in range(3)]
    await settle()
    if gone == "in the moment":
        turns.victim = callers[1].task
        callers[0].send()
        await asyncio.wait([callers[0].task, callers[1].task])
        gone = 1
    assert isinstance(gone, int)
    callers[gone].task.cancel()
    left = [caller for caller in callers if caller is not callers[gone]]
    for caller in left:
        caller.send()
        assert await asyncio.wait_for(caller.task, 10) == "message"
    assert callers[gone].task.cancelled()
    assert not turns._waiting
    last = Caller(turns, "b")
    last.send()
    assert await asyncio.wait_for(last.task, 10) == "message"


async def test_a_caller_without_a_message_has_none() -> None:
    """It hung up for writing at once."""

    async def nothing() -> AsyncIterator[bytes]:
        for content in list[bytes]():
            yield content

    assert await Turns().read("a", nothing(), parse) is None
