"""Framed answers that a deadline or a stop cuts off: they have an end where one can still be written."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from regard.v1 import regard_pb2 as api
from server.api.regard_v1 import service
from server.api.regard_v1.messages import write_next
from server.transport.gateway import application
from server.transport.gateway.call import HttpCall
from server.transport.gateway.exchange import Exchange
from tests.server.conftest import Running, Serve
from tests.server.transport.gateway.conftest import Raw, head

HTTP = "127.0.0.1:0"
ATTEND = "/regard.v1.RegardService/Attend"
WEB, STREAM = "application/grpc-web", "application/connect+proto"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> "asyncio.Queue[HttpCall]":
    """Those that have begun, in order."""
    begun = asyncio.Queue[HttpCall]()

    class Kept(HttpCall):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            begun.put_nowait(self)

    monkeypatch.setattr(application, "HttpCall", Kept)
    return begun


@contextmanager
def hanging(layers: int) -> Iterator[None]:
    """Let Attend hang after so many layers, for the length of a with block."""
    gate, written = threading.Event(), list[None]()

    def write(*given: Any) -> bool:
        if len(written) == layers:
            gate.wait()
        written.append(None)
        return write_next(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "write_next", write)
        try:
            yield
        finally:
            gate.set()


async def ask(running: Running, kind: str) -> Raw:
    """Ask for all layers of tiny-text."""
    message = api.AttendRequest(model="tiny-text", text="the cat").SerializeToString()
    content = b"\0" + len(message).to_bytes(4) + message
    raw = await Raw.dial(running.started.http_address)
    await raw.send(head(ATTEND, f"Content-Type: {kind}", f"Content-Length: {len(content)}") + content)
    return raw


async def read_frame(raw: Raw) -> tuple[int, bytes]:
    """The flag and the content of the next frame, which is a chunk of its own."""
    line = b""
    while not line.strip():
        line = await raw.reader.readuntil(b"\r\n")
    chunk = await raw.reader.readexactly(int(line, 16))
    return chunk[0], chunk[5:]


def code_of(kind: str, frame: tuple[int, bytes]) -> str:
    """The code at the end of a call."""
    flag, content = frame
    if kind == STREAM:
        assert flag == 2
        return str(json.loads(content)["error"]["code"])
    assert flag == 0x80
    number = int(content.split(b"\r\n")[0].removeprefix(b"grpc-status: "))
    return next(code.name.lower() for code in grpc.StatusCode if code.value[0] == number)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("kind", [WEB, STREAM])
async def test_a_deadline_that_passes_is_the_end(
    start: Serve, calls: "asyncio.Queue[HttpCall]", kind: str, layers: int
) -> None:
    """Before any frame, and behind one."""
    async with start(http=HTTP) as running:
        with hanging(layers):
            raw = await ask(running, kind)
            if layers:
                await raw.reader.readuntil(b"\r\n\r\n")
                assert (await read_frame(raw))[0] == 0
            (await calls.get()).expire()
            if not layers:
                assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert code_of(kind, await read_frame(raw)) == "deadline_exceeded"
            assert (await raw.reader.readexactly(7)).endswith(b"0\r\n\r\n")
            await raw.close()


@pytest.mark.parametrize("kind", [WEB, STREAM])
async def test_a_server_that_stops_ends_what_hangs(start: Serve, kind: str) -> None:
    """Behind the frames that were sent."""
    async with start(http=HTTP, drain_seconds=0.1) as running:
        with hanging(1):
            raw = await ask(running, kind)
            await raw.reader.readuntil(b"\r\n\r\n")
            assert (await read_frame(raw))[0] == 0
            running.stop.set()
            assert code_of(kind, await read_frame(raw)) == "unavailable"
            await raw.close()


async def test_a_server_that_stops_tells_who_has_not_sent_all(start: Serve) -> None:
    """With a status, instead of a connection that breaks."""
    async with start(http=HTTP, drain_seconds=0.1) as running:
        raw = await Raw.dial(running.started.http_address)
        await raw.send(head("/v1/embeddings", "Content-Length: 1000") + b"{")
        running.stop.set()
        status, content = await raw.answer()
        assert (status, b"the server is stopping" in content) == (503, True)
        await raw.close()


async def test_who_has_no_room_for_the_end_is_hung_up_on(
    start: Serve, calls: "asyncio.Queue[HttpCall]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it."""
    monkeypatch.setattr(application, "_END_SECONDS", 0.01)
    async with start(http=HTTP) as running:
        with hanging(1):
            raw = await ask(running, WEB)
            await raw.reader.readuntil(b"\r\n\r\n")
            assert (await read_frame(raw))[0] == 0

            async def full(*_: Any, **__: Any) -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(Exchange, "send_part", full)
            (await calls.get()).expire()
            assert await raw.reader.read() == b"\r\n"
            await raw.close()


async def test_nothing_follows_a_part_that_is_not_whole() -> None:
    """It would be read as the rest of that part."""
    sent, full = list[bytes](), asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        if len(sent) == 2:
            full.set()
            await asyncio.Event().wait()
        sent.append(message.get("body", b""))

    body: Any = type("Read", (), {"is_read": True})()
    exchange = Exchange({}, body, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert exchange.is_whole
    sending = asyncio.create_task(exchange.send_part(WEB, bytes(2**18 + 1)))
    await full.wait()
    assert not exchange.is_whole
    sending.cancel()
    sent.pop()
    await exchange.send_part(WEB, b"x")
    assert exchange.is_whole
