"""Texts that a model writes, as the explorer hands them to the page: line by line."""

import asyncio
import base64
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.types import ASGIApp

from regard import AttentionRequest, Client
from regard.explorer.app import Settings, make_app
from tests.client.fake import FakeServer
from tests.explorer.running import Explorer, end_of_next_call
from tests.explorer.writing import WORD, HeldTokens

REQUEST = {"model": "g2p", "text": "cat"}


def parts_of(body: bytes) -> list[tuple[str, Any]]:
    """Read lines: what each is, and its content."""
    return [part for line in body.splitlines() for part in json.loads(line).items()]


def row_of(packed: dict[str, Any]) -> NDArray[np.float16]:
    """Read what a token attends to in one layer, [H, K]."""
    return np.frombuffer(base64.b64decode(packed["weights"]), "<f2").reshape(packed["heads"], packed["keys"])


def test_a_model_that_writes_is_described_with_its_decoder(before_writer: Explorer) -> None:
    """Beside the layers of its encoder."""
    (model,) = [one for one in before_writer.ask("GET", "/api/models").json()["models"] if one["name"] == "g2p"]
    assert (model["can_show"], len(model["layers"])) == (True, 3)
    assert model["writer"] == {
        "num_layers": 3,
        "num_heads": 4,
        "max_tokens": 63,
        "starts": ["plain", "stress"],
        "default_start": "plain",
    }


def test_every_token_comes_with_what_it_attends_to(before_writer: Explorer, writer: str) -> None:
    """To the source and to what was written, in every layer, as clients get it; and with what it might have been."""
    answer = before_writer.ask("POST", "/api/write", {"model": "g2p", "text": WORD, "start": "stress"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    (first, source), *tokens, (last, end) = parts_of(answer.body)
    everything = AttentionRequest()
    with Client(writer) as client:
        expected = client.generate_text(
            WORD,
            model="g2p",
            start="stress",
            num_beams=1,
            alternatives=5,
            cross_attention=everything,
            self_attention=everything,
        )
    result = expected.results[0]
    assert (first, last) == ("source", "end")
    assert [token["text"] for token in source] == [token.text for token in expected.source]
    assert [kind for kind, _ in tokens] == ["token"] * len(result.tokens)
    for (_, token), wanted in zip(tokens, result.tokens, strict=True):
        assert (token["text"], token["log_probability"]) == (wanted.text, wanted.log_probability)
        assert [one["text"] for one in token["alternatives"]] == [one.text for one in wanted.alternatives]
        assert [(row["kind"], row["layer"]) for row in token["attention"]] == [
            (layer.kind, layer.layer) for layer in wanted.attention
        ]
        for row, layer in zip(token["attention"], wanted.attention, strict=True):
            np.testing.assert_array_equal(row_of(row), layer.weights.astype(np.float16))
    assert (end["model"], end["version"], end["text"], end["finish_reason"]) == ("g2p", "1", expected.text, "end")
    assert end["log_probability"] == pytest.approx(result.log_probability)
    assert not end["truncated"]


def test_only_the_layers_that_are_asked_for_are_told(before_writer: Explorer) -> None:
    """Where all of them would be much."""
    parts = parts_of(before_writer.ask("POST", "/api/write", {**REQUEST, "layers": [1]}).body)
    rows = [(row["kind"], row["layer"]) for kind, token in parts if kind == "token" for row in token["attention"]]
    assert set(rows) == {("cross", 1), ("causal", 1)}


def test_a_token_is_handed_on_before_the_next_is_made(before_writer: Explorer, held_tokens: HeldTokens) -> None:
    """What was read comes with the first."""
    connection = http.client.HTTPConnection(before_writer.host, before_writer.port, timeout=30)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/api/write", json.dumps(REQUEST).encode(), headers)
    held_tokens.let(1)
    answer = connection.getresponse()
    assert "source" in json.loads(answer.readline())
    assert json.loads(answer.readline())["token"]["text"] == "K"
    held_tokens.let(1)
    assert json.loads(answer.readline())["token"]["text"] == " AE"
    held_tokens.let(100)
    assert [kind for kind, _ in parts_of(answer.read())] == ["token", "token", "end"]
    connection.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "g2p"}, "text: None; expected a text"),
        ({"text": 3}, "text: 3; expected a text"),
        ({"text": "a", "truncate": 1}, "truncate: 1; expected true or false"),
        ({"text": "a", "layers": ["0"]}, "layers: ['0']; expected a list of numbers"),
        ({"text": "a", "measure": "weights"}, "measure: 'weights'; expected no such field, but model, version, text"),
    ],
)
def test_a_request_that_is_none_is_refused(before_fake: Explorer, fields: dict[str, Any], message: str) -> None:
    """With the field, its value and what was expected; the server is not bothered."""
    answer = before_fake.ask("POST", "/api/write", fields)
    assert (answer.status, answer.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert message in answer.json()["message"]


def test_a_request_must_say_that_it_is_json(before_fake: Explorer) -> None:
    """What a form of another page could send without asking is refused."""
    assert before_fake.ask("POST", "/api/write", b'{"text": "a"}', content_type="text/plain").status == 415


def test_what_the_server_refuses_at_once_is_an_error_of_http(before_fake: Explorer, fake: FakeServer) -> None:
    """As every other refusal."""
    fake.error = (grpc.StatusCode.FAILED_PRECONDITION, "model: it does not write")
    answer = before_fake.ask("POST", "/api/write", REQUEST)
    assert answer.status == 409
    assert answer.json() == {
        "code": "FAILED_PRECONDITION",
        "message": "model: it does not write",
        "retry_seconds": None,
        "server": fake.address,
    }


def test_what_goes_wrong_behind_the_first_token_is_the_last_line(before_fake: Explorer, fake: FakeServer) -> None:
    """The status is long sent then."""
    fake.breaks_off = True
    answer = before_fake.ask("POST", "/api/write", REQUEST)
    assert answer.status == 200
    *_, (kind, problem) = parts_of(answer.body)
    assert (kind, problem["code"], problem["server"]) == ("problem", "INTERNAL", fake.address)
    assert problem["message"] == "the stream ended without its last message"


@pytest.mark.parametrize("lines", [0, 3])
def test_when_the_page_hangs_up_the_server_is_told(before_fake: Explorer, fake: FakeServer, lines: int) -> None:
    """Before anything is read of the answer, or behind the last token that has come."""
    ended = end_of_next_call(fake)
    fake.held = True
    connection = http.client.HTTPConnection(before_fake.host, before_fake.port, timeout=30)
    connection.request("POST", "/api/write", json.dumps(REQUEST).encode(), {"content-type": "application/json"})
    assert fake.arrived.wait(30)
    if lines:
        answer = connection.getresponse()
        assert [next(iter(json.loads(answer.readline()))) for _ in range(lines)] == ["source", "token", "token"]
        answer.close()
    connection.close()
    assert ended.wait(10)  # far less than the call's own timeout
    assert not fake.released.is_set()


async def test_a_hang_up_between_two_tokens_is_seen(fake: FakeServer) -> None:
    """Where the web server raises it when it is next sent something alone, as ASGI has it from 2.4 on."""
    ended = end_of_next_call(fake)
    fake.held = True
    app = make_app(Settings(fake.address))
    lines, hung_up = list[bytes](), asyncio.Event()
    to_do = [{"type": "http.request", "body": json.dumps(REQUEST).encode(), "more_body": False}]

    async def receive() -> Any:
        if to_do:
            return to_do.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        lines.extend(message.get("body", b"").splitlines())
        if len(lines) == 3:  # what was read, and two tokens
            hung_up.set()

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/api/write", "query_string": b"", "headers": headers}
    async with running(app):
        await asyncio.wait_for(app({**scope, "asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send), 10)
        assert await asyncio.to_thread(ended.wait, 10)
    assert not fake.released.is_set()
    assert [next(iter(json.loads(line))) for line in lines] == ["source", "token", "token"]


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """Start an application, and stop it."""
    messages, done = asyncio.Queue[Any](), asyncio.Queue[Any]()
    task = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}}, messages.get, done.put))
    try:
        await messages.put({"type": "lifespan.startup"})
        assert (await done.get())["type"] == "lifespan.startup.complete"
        yield
    finally:
        await messages.put({"type": "lifespan.shutdown"})
        await task
