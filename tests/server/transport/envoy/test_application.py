"""How the application of gRPC ends calls: by deadline, by callers who hang up or do not read, by refusals."""

import asyncio
import gzip
import logging
import queue
import time
from collections.abc import AsyncIterator, Callable, Container
from types import SimpleNamespace
from typing import Any

import pytest

from server.auth.clients import Authenticator
from server.errors import NotFound
from server.ledger import Account
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.envoy import application as envoy_application
from server.transport.envoy.messages import prefixed
from tests.server.transport.envoy.calling import Application, Caller

LARGE = bytes(300_000)
UNKNOWN, LONG = "grpc-encoding: 'identity' of a compressed message", "a message of 65536 bytes"
LIMIT = "; expected at most 10000 (the server's --max-message-bytes)"


async def echo(content: bytes, servicer: Any) -> bytes:
    """Answer with the question."""
    return content


async def stand_still(content: bytes, servicer: Any) -> bytes:
    """Never answer."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def watching(
    application: Application, hang_up: Callable[[Container[tuple[str, int]]], None] = lambda callers: None
) -> "asyncio.Task[None]":
    """Look at callers."""
    return asyncio.create_task(application.grpc.watch(hang_up))


async def until(task: "asyncio.Task[None]") -> None:
    """Wait for the end of a call, from which nothing escapes."""
    async with asyncio.timeout(30):
        await task
    await asyncio.sleep(0)  # who waits for that, too, is told


async def test_a_call_is_answered() -> None:
    """With headers, a message and a status behind it; its account is closed once the caller has it."""
    application, caller = Application(), Caller()
    application.add(unary_unary_Unary=echo)
    call = application.ask(caller)
    await caller.until(lambda: len(caller.sent) >= 3)
    assert [event["type"].rpartition(".")[2] for event in caller.sent] == ["start", "body", "trailers"]
    assert (caller.body, caller.status) == (prefixed(b"question"), ("OK", ""))
    assert application.ledger.held_bytes > 0
    caller.is_gone = True
    await until(call)
    assert application.ledger.held_bytes == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-type": "text/html"}, 415),
        ({"content-type": "application/json"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "application/grpc+proto"}, 200),
        ({"te": ""}, ("INTERNAL", "te: not trailers; expected te: trailers")),
    ],
)
async def test_what_is_no_call_is_told_so(headers: dict[str, str], expected: object) -> None:
    """As HTTP or in the headers; the method is not run."""
    application, caller = Application(), Caller(headers=headers)
    application.add(unary_unary_Unary=echo)
    call = application.ask(caller)
    await caller.until(lambda: bool(caller.sent) and not caller.sent[-1].get("more_body"))
    caller.is_gone = True
    await until(call)
    if isinstance(expected, int):
        assert caller.sent[0]["status"] == expected
    else:
        assert (caller.status, caller.sent[0]["trailers"]) == (expected, False)
    assert (prefixed(b"question") in caller.body) == (expected == 200)


@pytest.mark.parametrize(
    ("chunks", "headers", "status"),
    [
        ([b""], {}, ("INTERNAL", "the call has no message; expected one")),
        ([prefixed(b"1") + prefixed(b"2")], {}, ("INTERNAL", "the call has a second message; expected one")),
        ([prefixed(b"1"), prefixed(b"2")], {}, ("INTERNAL", "the call has a second message; expected one")),
        ([b"\0\0\0\0\5ab"], {}, ("INTERNAL", "the request ends inside a message, after 7 bytes of it")),
        ([b"\1\0\0\0\0"], {}, ("UNIMPLEMENTED", f"{UNKNOWN}; expected deflate or gzip")),
        ([b"\0\0\1\0\0"], {}, ("RESOURCE_EXHAUSTED", f"{LONG}{LIMIT}")),
        ([b"\1\0\0\0\x19" + gzip.compress(b"12345", mtime=0)], {"grpc-encoding": "gzip"}, ("OK", "")),
    ],
)  # fmt: skip
async def test_a_message_that_is_none_is_refused(
    chunks: list[bytes], headers: dict[str, str], status: tuple[str, str]
) -> None:
    """In one line, which is counted."""
    application, caller = Application(), Caller(chunks=chunks, headers=headers)
    application.add(unary_unary_Unary=echo)
    call = application.ask(caller)
    await caller.ended()
    caller.is_gone = True
    await until(call)
    assert caller.status == status
    refused = [one.value for family in application.metrics.messages_refused.collect() for one in family.samples]
    assert any(refused) == (status[0] != "OK")


async def test_a_method_that_is_not_there_is_told_so() -> None:
    """And nothing of its message is read."""
    application, caller = Application(), Caller("/test.Service/Invented")
    application.add(unary_unary_Unary=echo)
    caller.received = 0
    call = application.ask(caller)
    await caller.until(lambda: bool(caller.sent))
    assert (caller.status, caller.received) == (("UNIMPLEMENTED", "Method not found!"), 0)
    caller.is_gone = True
    await until(call)


async def test_a_method_that_fails_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    """Of which the log has the details, and the caller none."""

    async def fail(content: bytes, servicer: Any) -> bytes:
        raise KeyError("a secret")

    application, caller = Application(), Caller(is_gone=False)
    application.add(unary_unary_Unary=fail)
    call = application.ask(caller)
    await caller.until(lambda: bool(caller.sent))
    caller.is_gone = True
    await until(call)
    assert caller.status == ("INTERNAL", "internal error; the server's log has the details")
    assert "a secret" in caplog.text


async def test_what_a_method_is_refused_with_is_its_status() -> None:
    """With what goes with it."""

    async def refuse(content: bytes, servicer: Any) -> bytes:
        error = NotFound("x: ü; expected y")
        await servicer.abort(error.code, str(error), (("x-request-id", "7"), ("x-bin", b"\0")))
        raise AssertionError

    application, caller = Application(), Caller()
    application.add(unary_unary_Unary=refuse)
    call = application.ask(caller)
    await caller.until(lambda: bool(caller.sent))
    caller.is_gone = True
    await until(call)
    assert caller.status == ("NOT_FOUND", "x: %C3%BC; expected y")
    assert caller.sent[0]["headers"][-2:] == [(b"x-request-id", b"7"), (b"x-bin", b"AA")]


@pytest.mark.parametrize("begins", [False, True])
async def test_at_its_deadline_a_call_ends(begins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the headers, or behind what was written already; also where the loop's timer is early by another clock."""
    monkeypatch.setattr(envoy_application, "time", SimpleNamespace(monotonic=lambda: 0.0))

    async def write(content: bytes, servicer: Any) -> None:
        if begins:
            await servicer.write(b"first")
        await stand_still(content, servicer)

    called, caller = Application(), Caller(headers={"grpc-timeout": "1m"})
    called.add(unary_stream_Unary=write)
    await until(called.ask(caller))
    assert caller.status == ("DEADLINE_EXCEEDED", "Deadline Exceeded")
    assert caller.body == (prefixed(b"first") if begins else b"")
    assert called.ledger.held_bytes == 0


async def test_a_caller_that_hangs_up_is_found_by_looks() -> None:
    """While its method works, whose task is cancelled."""
    cancelled = asyncio.Event()

    async def work(content: bytes, servicer: Any) -> bytes:
        try:
            return await stand_still(content, servicer)
        finally:
            cancelled.set()

    application, caller = Application(), Caller()
    application.add(unary_unary_Unary=work)
    looking, call = watching(application), application.ask(caller)
    await caller.until(lambda: caller.received >= 4)
    assert not call.done()
    caller.is_gone = True
    await until(call)
    assert cancelled.is_set()
    assert not caller.sent
    looking.cancel()


async def test_a_caller_that_hangs_up_while_it_sends_ends_its_call() -> None:
    """And the method never runs."""
    application, caller = Application(), Caller(chunks=[b"\0\0"], ends=False)
    application.add(unary_unary_Unary=echo)
    call = application.ask(caller)
    await caller.arrived.wait()
    caller.is_gone = True
    application.grpc.end_calls([call])  # the stream's end, which a future of Envoy's would tell
    await until(call)
    assert application.ledger.held_bytes == 0


async def test_a_caller_that_hangs_up_while_it_is_answered_ends_its_call() -> None:
    """Nothing that the transport raises leaves the application."""

    async def write(content: bytes, servicer: Any) -> None:
        while True:
            await servicer.write(b"again")
            await asyncio.sleep(0)

    application, caller = Application(), Caller()
    application.add(unary_stream_Unary=write)
    call = application.ask(caller)
    await caller.until(lambda: len(caller.sent) >= 3)
    caller.is_gone = True
    await until(call)
    assert application.ledger.held_bytes == 0


@pytest.mark.parametrize("size", [10, 300_000])
async def test_an_answer_counts_until_it_is_read(size: int) -> None:
    """Though all of it is handed over, and what waits is a caller that reads."""

    async def answer(content: bytes, servicer: Any) -> bytes:
        application.calls.current().account.hold("answer", size)
        return bytes(size)

    application, caller = Application(), Caller()
    application.add(unary_unary_Unary=answer)
    call = application.ask(caller)
    await caller.ended()
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not call.done()
    assert application.ledger.held_bytes >= size
    known = application.calls.of(call)
    assert known
    assert known.waits_for == "answer"
    caller.is_gone = True
    await until(call)
    assert application.ledger.held_bytes == 0


async def test_what_is_written_counts_until_the_call_is_over() -> None:
    """As much of it as may be unread."""

    async def write(content: bytes, servicer: Any) -> None:
        for _ in range(10):
            await servicer.write(LARGE)
            held.append(application.ledger.held_bytes)

    held = list[int]()
    application, caller = Application(), Caller()
    application.add(unary_stream_Unary=write)
    call = application.ask(caller)
    await caller.ended()
    assert held[0] >= len(LARGE)
    assert max(held) < 3 * 2**18 + 2**16
    caller.is_gone = True
    await until(call)
    assert application.ledger.held_bytes == 0


@pytest.mark.parametrize("has_room", [False, True])
async def test_who_does_not_read_is_cut_off_and_hung_up_on(has_room: bool) -> None:
    """In the middle of an answer, or behind it; another caller is not."""

    async def answer(content: bytes, servicer: Any) -> bytes:
        application.calls.current().wait_for("answer")
        return LARGE

    application = Application(max_stall_seconds=0.01)
    caller, other = Caller(), Caller()
    application.add(unary_unary_Unary=answer)
    if not has_room:
        caller.room.clear()
    hung_up = queue.SimpleQueue[Container[tuple[str, int]]]()
    looking, cutting = watching(application, hung_up.put), asyncio.create_task(application.calls.watch())
    call = application.ask(caller)
    await until(call)
    assert application.ledger.held_bytes == 0
    assert await asyncio.to_thread(hung_up.get, timeout=30) == {("127.0.0.1", 1234)}
    other.is_gone = True
    await until(application.ask(other))
    assert hung_up.empty()
    looking.cancel()
    cutting.cancel()


async def test_who_sends_too_slowly_is_told_so() -> None:
    """Its message never comes whole."""
    application = Application(max_stall_seconds=0.01)
    caller = Caller(chunks=[b"\0\0\0\0\5ab"], ends=False)
    application.add(unary_unary_Unary=echo)
    cutting = asyncio.create_task(application.calls.watch())
    await until(application.ask(caller))
    assert caller.status == ("CANCELLED", "the server has ended the call")
    cutting.cancel()


async def test_who_is_slow_where_much_is_held_is_not_cut_off() -> None:
    """Its message's bytes count when they come; a server that is kept busy is slow to see them."""
    application = Application(max_held_bytes=1000)
    application.add(unary_unary_Unary=echo)
    filling = Account(application.ledger)
    filling.hold("request", 2000)
    caller = Caller(chunks=[], ends=False)
    call = application.ask(caller)
    await caller.arrived.wait()
    application.calls.look(time.monotonic() + 30)
    assert not call.cancelling()
    assert application.ledger.held_bytes == 2000
    call.cancel()
    await until(call)


async def test_messages_of_a_stream_come_one_by_one() -> None:
    """And each is answered before the next has come."""

    async def each(contents: AsyncIterator[bytes], servicer: Any) -> None:
        async for content in contents:
            await servicer.write(content.upper())

    application = Application()
    caller = Caller(chunks=[prefixed(b"one"), prefixed(b"two")], ends=False)
    application.add(stream_stream_Unary=each)
    call = application.ask(caller)
    await caller.arrived.wait()
    assert caller.body == prefixed(b"ONE") + prefixed(b"TWO")
    call.cancel()
    await until(call)
    assert caller.status == ("CANCELLED", "the server has ended the call")


async def test_what_is_coming_counts_and_is_refused_where_there_is_no_room() -> None:
    """Of a message that is not whole; another caller's bytes fill the server."""
    application = Application(max_held_bytes=1000)
    application.add(unary_unary_Unary=echo)
    first = Caller(chunks=[b"\0\0\0\x08\0" + bytes(1500)], ends=False)
    second = Caller(chunks=[b"\0\0\0\x08\0" + bytes(100)], ends=False)
    waiting = application.ask(first)
    await first.arrived.wait()
    assert application.ledger.held_bytes == 1505
    call = application.ask(second)
    await second.until(lambda: bool(second.sent))
    assert second.status[0] == "RESOURCE_EXHAUSTED"
    assert "the server holds 1610 bytes for its callers" in second.status[1]
    second.is_gone = True
    await until(call)
    waiting.cancel()
    await until(waiting)
    assert application.ledger.held_bytes == 0


async def test_an_unauthenticated_caller_is_refused_unread(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Its message is never asked for; the right token's is."""
    caplog.set_level(logging.INFO)
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.app]\ntokens = ["the-token-of-an-app"]\n')
    authenticator = Authenticator(clients, manage=False)
    application = Application(lambda refusals, calls: AuthInterceptor(authenticator, refusals, calls))
    application.add(unary_unary_Unary=echo)
    for token, name in (("wrong", "UNAUTHENTICATED"), ("the-token-of-an-app", "OK")):
        caller = Caller(headers={"authorization": f"Bearer {token}"})
        call = application.ask(caller)
        assert await caller.ended() == name
        assert len(caller.chunks) == (1 if name == "UNAUTHENTICATED" else 0)
        caller.is_gone = True
        await until(call)


async def grouped(contents: AsyncIterator[bytes], servicer: Any) -> None:
    """Answer messages in tasks of their own."""
    async with asyncio.TaskGroup() as group:
        async for content in contents:
            group.create_task(servicer.write(content))


async def test_a_bad_message_among_tasks_is_refused() -> None:
    """As one that is read by a method that has none."""
    application, caller = Application(), Caller(chunks=[prefixed(b"good"), b"\0\0\1\0\0"])
    application.add(stream_stream_Unary=grouped)
    call = application.ask(caller)
    assert await caller.ended() == "RESOURCE_EXHAUSTED"
    caller.is_gone = True
    await until(call)


async def test_who_aborts_among_tasks_has_ended_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """Which is no fault."""

    async def abort(contents: AsyncIterator[bytes], servicer: Any) -> None:
        async with asyncio.TaskGroup():
            await servicer.abort(NotFound.code, "not there")

    application, caller = Application(), Caller()
    application.add(stream_stream_Unary=abort)
    call = application.ask(caller)
    assert await caller.ended() == "NOT_FOUND"
    caller.is_gone = True
    await until(call)
    assert not caplog.records


async def test_a_caller_that_hangs_up_among_tasks_ends_its_call(caplog: pytest.LogCaptureFixture) -> None:
    """While it sends, and nothing escapes or is logged."""

    async def read(contents: AsyncIterator[bytes], servicer: Any) -> None:
        async with asyncio.TaskGroup():
            async for _ in contents:
                pass

    class Leaving(Caller):
        async def receive(self) -> dict[str, Any]:
            event = await super().receive()
            self.is_gone = not self.chunks
            return event

    application, caller = Application(), Leaving(chunks=[prefixed(b"one"), prefixed(b"two")], ends=False)
    application.add(stream_stream_Unary=read)
    await until(application.ask(caller))
    assert application.ledger.held_bytes == 0
    assert not caplog.records


async def test_who_hangs_up_ends_what_it_has_sent_already() -> None:
    """A thousand messages in a chunk, two at a time: the first that cannot be answered is the last that is read."""
    read = 0

    async def two_at_a_time(contents: AsyncIterator[bytes], servicer: Any) -> None:
        nonlocal read
        room = asyncio.Semaphore(2)

        async def answer(content: bytes) -> None:
            try:
                await servicer.write(content)
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            async for content in contents:
                read += 1
                await room.acquire()
                group.create_task(answer(content))

    application, caller = Application(), Caller(chunks=[prefixed(b"again") * 1000], ends=False)
    application.add(stream_stream_Unary=two_at_a_time)
    caller.room.clear()
    call = application.ask(caller)
    await caller.until(lambda: bool(caller.sent))
    caller.is_gone = True
    caller.room.set()
    await until(call)
    assert read < 10
    assert application.ledger.held_bytes == 0
