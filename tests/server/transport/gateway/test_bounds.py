"""What callers over HTTP can make large, or long, or leave unfinished."""

import contextlib
import gzip
import json
import threading
from typing import Any

import httpx2
import pytest

from server import app
from server.api.rest import open_inference, open_inference_routes
from server.transport.gateway import connections
from tests.server.asking import samples
from tests.server.conftest import Serve
from tests.server.transport.gateway.conftest import Raw, head

INFER = "/v2/models/tiny-text/infer"
HTTP = "127.0.0.1:0"
TEXT = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["the cat"]}]}


async def test_a_body_that_says_that_it_is_too_large_is_refused_unread(start: Serve) -> None:
    """With 413, before a byte of it has come, and the connection ends."""
    async with start(http=HTTP, max_message_bytes=2000) as running:
        raw = await Raw.dial(running.started.http_address)
        await raw.send(head(INFER, "Content-Length: 99999999999999"))
        status, content = await raw.answer()
        assert status == 413
        assert b"expected at most 2000 (the server's --max-message-bytes)" in content
        assert (await samples(running))["regard_messages_refused_total", "bytes"] == 1
        await raw.close()


async def test_a_body_that_does_not_say_is_refused_when_it_has_become_too_large(start: Serve) -> None:
    """In chunks, which never end."""
    async with start(http=HTTP, max_message_bytes=2000) as running:
        raw = await Raw.dial(running.started.http_address)
        await raw.send(head(INFER, "Transfer-Encoding: chunked") + b"400\r\n" + b" " * 1024 + b"\r\n" + b"400\r\n")
        await raw.send(b" " * 1024)
        assert (await raw.answer())[0] == 413
        await raw.close()


@pytest.mark.parametrize("compress", [gzip.compress, lambda content: content], ids=["gzip", "none"])
async def test_what_is_inflated_is_bounded(start: Serve, compress: Any) -> None:
    """And what is compressed in no way that is known is refused, or damaged."""
    async with start(http=HTTP, max_message_bytes=100_000) as running, _client(running) as http:
        bomb = await http.post(INFER, content=gzip.compress(bytes(10**6)), headers={"content-encoding": "gzip"})
        assert (bomb.status_code, "inflated" in bomb.text) == (413, True)
        damaged = await http.post(INFER, content=b"no gzip", headers={"content-encoding": "gzip"})
        assert (damaged.status_code, "gzip" in damaged.text) == (400, True)
        unknown = await http.post(INFER, content=b"", headers={"content-encoding": "br"})
        assert "content-encoding: 'br'; expected deflate or gzip" in unknown.json()["error"]
        content = compress(json.dumps(TEXT).encode())
        headers = {"content-encoding": "gzip"} if content[:1] != b"{" else {}
        assert (await http.post(INFER, content=content, headers=headers)).status_code == 200


async def test_values_are_counted_as_they_come(start: Serve) -> None:
    """A body that has more than there may be is refused before it has come whole."""
    async with start(http=HTTP, max_message_fields=1024, max_message_integers=1024) as running:
        raw = await Raw.dial(running.started.http_address)
        await raw.send(head(INFER, "Content-Length: 1000000") + b'{"inputs":[' + b"0," * 3000)
        status, content = await raw.answer()
        assert status == 400
        assert b"more than 2048 values" in content
        await raw.close()


@pytest.mark.parametrize(
    "header", [{"Inference-Header-Content-Length": "0"}, {"Content-Type": "application/proto"}], ids=str
)
async def test_values_are_counted_whatever_a_header_says_of_another_path(start: Serve, header: dict[str, str]) -> None:
    """Only where a path has what is no JSON it is believed how much of a body is."""
    async with (
        start(http=HTTP, max_message_fields=1024, max_message_integers=1024) as running,
        _client(running) as http,
    ):
        body = json.dumps({"model": "tiny-text", "input": ["a"] * 3000})
        refused = await http.post("/v1/embeddings", content=body, headers=header)
        assert (refused.status_code, "more than 2048 values" in refused.text) == (400, True)


async def test_values_are_counted_behind_the_length_of_a_message(start: Serve) -> None:
    """Which may have a byte that is a quotation mark: 0x2200."""
    async with (
        start(http=HTTP, max_message_fields=1024, max_message_integers=1024) as running,
        _client(running) as http,
    ):
        body = json.dumps({"model": "tiny-text", "texts": {"items": ["a"] * 2100}}, separators=(",", ":")).encode()
        content = b"\0" + (0x2200).to_bytes(4) + body.ljust(0x2200)
        headers = {"Content-Type": "application/connect+json"}
        refused = await http.post("/regard.v1.RegardService/Embed", content=content, headers=headers)
        assert (len(content), "more than 2048 values" in refused.text) == (0x2205, True)


async def test_what_is_large_is_read_in_a_worker(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little of it is JSON: it is copied."""
    threads, read = [], open_inference.read_infer

    def reading(*given: Any, **more: Any) -> Any:
        threads.append(threading.current_thread())
        return read(*given, **more)

    monkeypatch.setattr(open_inference_routes, "read_infer", reading)
    async with start(http=HTTP) as running, _client(running) as http:
        for size in (10, 2**21):
            tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
            said = json.dumps({"inputs": [tensor]}).encode()
            headers = {"Inference-Header-Content-Length": str(len(said))}
            await http.post(INFER, content=said + bytes(size), headers=headers)
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


async def test_what_is_no_http_behind_an_answer_ends_the_connection(
    start: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing is logged of it: anybody could fill the log."""
    async with start(http=HTTP) as running:
        raw = await Raw.dial(running.started.http_address)
        await raw.send(head(INFER, "Transfer-Encoding: chunked", verb="PUT"))
        assert (await raw.reader.readuntil(b"\r\n\r\nMethod Not Allowed")).startswith(b"HTTP/1.1 405")
        await raw.send(b"no number\r\n")
        with contextlib.suppress(ConnectionError):
            assert await raw.answer() == (0, b"")
        await raw.close()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_who_does_not_send_all_of_a_request_is_cut_off(start: Serve) -> None:
    """And nothing is held for it any more."""
    async with start(http=HTTP, max_stall_seconds=0.2) as running:
        raw = await Raw.dial(running.started.http_address)
        await raw.send(head(INFER, "Content-Length: 1000") + b"{")
        status, content = await raw.answer()
        assert status == 408
        assert b"--max-stall-seconds" in content
        found = await samples(running)
        assert found["regard_cut_off_total", "request"] == 1
        assert found["regard_held_bytes",] == 0
        await raw.close()


@pytest.mark.parametrize("answered", [0, 1])
@pytest.mark.parametrize("begin", [b"", b"GET /v2/health"], ids=["none", "some"])
async def test_headers_that_do_not_come_end_the_connection(
    start: Serve, monkeypatch: pytest.MonkeyPatch, answered: int, begin: bytes
) -> None:
    """Before any request, and behind one, where a connection may be idle for longer until the next begins."""
    async with start(http=HTTP, max_idle_seconds=60 if begin else 1) as running:
        if not answered:
            monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.1)
        raw = await Raw.dial(running.started.http_address)
        if answered:
            await raw.send(head("/v2/health/live", verb="GET"))
            assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.1)
        with contextlib.suppress(ConnectionError):
            await raw.send(begin)
            assert await raw.answer() == (0, b"")
        await raw.close()


async def test_headers_are_bounded(start: Serve) -> None:
    """With 400."""
    async with start(http=HTTP) as running:
        raw = await Raw.dial(running.started.http_address)
        await raw.send(head(INFER, "X-Long: " + "a" * 70_000)[:-4])
        assert (await raw.answer())[0] == 400
        await raw.close()


async def test_connections_are_bounded(start: Serve) -> None:
    """Further ones are closed, and there is room again when one ends."""
    async with start(http=HTTP, max_connections=2) as running:
        address, live = running.started.http_address, head("/v2/health/live", verb="GET")
        first, second = [await Raw.dial(address) for _ in range(2)]
        for raw in (first, second):
            await raw.send(live)
            assert (await raw.reader.readline()).startswith(b"HTTP/1.1 200")
        third = await Raw.dial(address)
        with pytest.raises(ConnectionError):
            await third.send(live)
            if not await third.reader.read():
                raise ConnectionError
        await first.send(head("/v2/health/live", "Connection: close", verb="GET"))
        await first.reader.read()
        fourth = await Raw.dial(address)
        await fourth.send(live)
        assert (await fourth.reader.readline()).startswith(b"HTTP/1.1 200")
        for raw in (first, second, third, fourth):
            await raw.close()


@pytest.mark.parametrize(("address", "needed"), [(HTTP, 14), (None, 7)])
async def test_there_are_descriptors_for_the_connections_of_both_ports(
    start: Serve, monkeypatch: pytest.MonkeyPatch, address: str | None, needed: int
) -> None:
    """Each port takes as many."""
    wanted = list[int]()
    monkeypatch.setattr(app, "raise_limit", wanted.append)
    async with start(http=address, max_connections=7):
        assert wanted == [needed]


async def test_a_deadline_is_that_of_the_header(start: Serve) -> None:
    """In milliseconds; what is none is refused."""
    async with start(http=HTTP) as running, _client(running) as http:
        late = await http.post(INFER, json=TEXT, headers={"X-Request-Timeout-Ms": "0"})
        assert late.status_code == 504
        wrong = await http.post(INFER, json=TEXT, headers={"X-Request-Timeout-Ms": "1.5"})
        assert "x-request-timeout-ms: 1.5; expected whole milliseconds" in wrong.json()["error"]
        good = await http.post(INFER, json=TEXT, headers={"X-Request-Timeout-Ms": "60000"})
        assert good.status_code == 200


async def test_a_caller_who_hangs_up_ends_its_call(start: Serve) -> None:
    """While it waits for a batch that does not fill; nothing is held for it any more."""
    async with start(http=HTTP, max_queue_delay_ms=3_600_000) as running:
        raw = await Raw.dial(running.started.http_address)
        body = json.dumps(TEXT).encode()
        await raw.send(head(INFER, f"Content-Length: {len(body)}") + body)
        while (await samples(running))["regard_queue_depth",] != 1:
            pass
        await raw.close()
        while ("regard_requests_total", "CANCELLED", "ModelInfer", "tiny-text") not in await samples(running):
            pass
        found = await samples(running)
        assert (found["regard_held_bytes",], found["regard_queue_depth",]) == (0, 0)


def _client(running: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://{running.started.http_address}", timeout=60)
