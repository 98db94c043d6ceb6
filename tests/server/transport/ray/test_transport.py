import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from server.app import Server
from server.config import Config
from server.errors import TooBusy
from server.transport.ray.call import Ended
from server.transport.ray.methods import PROCESS, THIS_PROCESS
from server.transport.ray.transport import RayTransport
from tests.server.transport.ray.calling import PATH, Around, ray_context


async def test_it_has_what_a_server_asks_of_a_transport() -> None:
    """Which is made with it, and ends before it has started."""
    async with Server(Config.from_values({"metrics": "127.0.0.1:0"}), RayTransport()):
        pass


async def test_a_call_is_answered_with_bytes_and_trailers() -> None:
    """The code stays unset, which is OK."""

    async def run(content: bytes, servicer: Any) -> bytes:
        servicer.set_trailing_metadata((("x-request-id", "mine"),))
        return b" ".join([content, servicer.peer().encode()])

    context = ray_context()
    assert await Around("unary_unary", run).ask(b"question", context) == b"question ipv4:192.0.2.1:5"
    assert context.code() is None
    assert context.trailers == [("x-request-id", "mine")]


async def test_the_deadline_comes_with_the_metadata() -> None:
    """None where the caller has none."""

    async def run(content: bytes, servicer: Any) -> bytes:
        return str(servicer.time_remaining()).encode()

    around = Around("unary_unary", run)
    assert await around.ask(b"", ray_context()) == b"None"
    assert 1.0 < float(await around.ask(b"", ray_context({"grpc-timeout": "300S"}))) <= 300.0


async def test_an_abort_is_a_code_a_message_and_trailers_of_a_call_that_returns() -> None:
    """Trailers of what raises Ray does not send."""

    async def run(content: bytes, servicer: Any) -> bytes:
        error = TooBusy("full", 0.5, "requests")
        await servicer.abort(error.code, str(error), error.trailers)
        raise AssertionError("abort always raises")

    context = ray_context()
    assert await Around("unary_unary", run).ask(b"", context) == b""
    assert (context.code(), context.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert [name for name, _ in context.trailers] == ["grpc-retry-pushback-ms", "grpc-status-details-bin"]


async def test_a_fault_is_internal_and_says_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    """The log has it."""

    async def run(content: bytes, servicer: Any) -> bytes:
        raise ValueError("secret")

    context = ray_context()
    with caplog.at_level(logging.ERROR):
        assert await Around("unary_unary", run).ask(b"", context) == b""
    assert (context.code(), "secret" in context.message) == (grpc.StatusCode.INTERNAL, False)
    assert "secret" in caplog.text


async def test_an_unknown_method_is_unimplemented() -> None:
    """As on grpcio."""

    async def run(content: bytes, servicer: Any) -> bytes:
        return content

    context = ray_context()
    assert await Around("unary_unary", run).transport.answer("/test.Service/Other", b"", context) == b""
    assert context.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_that_is_too_large_is_refused_as_elsewhere() -> None:
    """Ray itself takes two gigabytes."""

    async def run(content: bytes, servicer: Any) -> bytes:
        return content

    context = ray_context()
    assert await Around("unary_unary", run).ask(bytes(2**20 + 1), context) == b""
    assert context.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (
        context.message
        == f"a message of {2**20 + 1} bytes; expected at most {2**20} (the server's --max-message-bytes)"
    )


async def test_who_hangs_up_cancels_the_method() -> None:
    """Ray cancels the task."""
    begun, cancelled = asyncio.Event(), list[bool]()

    async def run(content: bytes, servicer: Any) -> bytes:
        begun.set()
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    asking = Around("unary_unary", run).ask(b"", ray_context())
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert cancelled == [True]


async def test_a_call_that_the_server_ends_is_cancelled_for_its_caller() -> None:
    """Its task goes on to tell Ray so."""
    begun = asyncio.Event()

    async def run(content: bytes, servicer: Any) -> bytes:
        begun.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    around, context = Around("unary_unary", run), ray_context()
    asking = around.ask(b"", context)
    await begun.wait()
    around.transport.end_calls([asking])
    assert await asking == b""
    assert context.code() is grpc.StatusCode.CANCELLED
    assert asking.cancelling() == 0


async def test_a_stream_waits_for_its_reader_and_holds_its_account_so_long() -> None:
    """Nothing is written ahead of what was read."""
    written = list[int]()

    async def run(content: bytes, servicer: Any) -> None:
        for number in range(3):
            written.append(number)
            await servicer.write(b"%d" % number)

    around, context = Around("unary_stream", run), ray_context()
    answers = around.transport.stream(PATH, b"", context)
    assert await anext(answers) == b"0"
    for _ in range(5):
        await asyncio.sleep(0)
    assert written == [0]
    assert [answer async for answer in answers] == [b"1", b"2"]
    assert context.code() is None


async def test_a_stream_of_messages_is_read_as_it_comes() -> None:
    """One after the other."""

    async def run(contents: AsyncIterator[bytes], servicer: Any) -> None:
        async for content in contents:
            await servicer.write(content.upper())

    async def requests() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    answers = Around("stream_stream", run).transport.stream(PATH, requests(), ray_context())
    assert [answer async for answer in answers] == [b"A", b"B"]


async def test_one_message_is_a_stream_for_a_method_that_reads_one() -> None:
    """As health's, whose messages are read in turn."""

    async def run(contents: AsyncIterator[bytes], servicer: Any) -> None:
        async for content in contents:
            await servicer.write(content)

    assert await Around("stream_stream", run).ask(b"only", ray_context()) == b"only"


@pytest.mark.parametrize("process", [THIS_PROCESS, "that of Ray's proxy"], ids=["own", "proxy"])
async def test_a_stream_that_fails_says_so_and_raises_where_ray_needs_that(process: str) -> None:
    """Behind Ray's own proxy, whatever other calls come by. What was written before is read."""

    async def run(content: bytes, servicer: Any) -> None:
        await servicer.write(b"first")
        await servicer.abort(grpc.StatusCode.NOT_FOUND, "no such thing", (("a", "b"),))

    context, found = ray_context({PROCESS: process}), list[bytes]()

    async def read() -> None:
        async for answer in Around("unary_stream", run).transport.stream(PATH, b"", context):
            found.append(answer)

    if process != THIS_PROCESS:
        with pytest.raises(Ended):
            await read()
    else:
        await read()
    assert found == [b"first"]
    assert (context.code(), context.message, context.trailers) == (
        grpc.StatusCode.NOT_FOUND,
        "no such thing",
        [("a", "b")],
    )


async def test_a_stream_that_nobody_reads_any_more_ends_its_method() -> None:
    """As where a caller hangs up."""
    cancelled = list[bool]()

    async def run(content: bytes, servicer: Any) -> None:
        try:
            while True:
                await servicer.write(b"more")
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    answers = Around("unary_stream", run).transport.stream(PATH, b"", ray_context())
    assert await anext(answers) == b"more"
    await answers.aclose()
    assert cancelled == [True]


async def test_a_stream_that_the_server_ends_ends_for_its_reader() -> None:
    """And does not wait for ever."""
    begun = asyncio.Event()
    tasks = list[Any]()

    async def run(content: bytes, servicer: Any) -> None:
        tasks.append(asyncio.current_task())
        begun.set()
        await asyncio.get_running_loop().create_future()

    around, context = Around("unary_stream", run), ray_context()

    async def read() -> list[bytes]:
        return [answer async for answer in around.transport.stream(PATH, b"", context)]

    reading = asyncio.ensure_future(read())
    await begun.wait()
    around.transport.end_calls(tasks)
    assert await reading == []
    assert context.code() is grpc.StatusCode.CANCELLED
