"""gRPC-Web and Connect's streams: one answer, several, and errors, which come behind them."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from regard.v1 import regard_pb2 as api
from tests.server.conftest import Running

SERVICE = "/regard.v1.RegardService/"
WEB, TEXT = "application/grpc-web+proto", "application/grpc-web-text"
STREAM, STREAM_JSON = "application/connect+proto", "application/connect+json"


def framed(content: bytes) -> bytes:
    """A message as it is sent."""
    return b"\0" + len(content).to_bytes(4) + content


def frames_of(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The flag and the content of each frame."""
    while content:
        size = int.from_bytes(content[1:5])
        yield content[0], content[5 : 5 + size]
        content = content[5 + size :]


async def ask(http: httpx2.AsyncClient, method: str, kind: str, content: bytes) -> list[tuple[int, bytes]]:
    """The frames of an answer."""
    sent = base64.b64encode(framed(content)) if kind == TEXT else framed(content)
    answer = await http.post(SERVICE + method, content=sent, headers={"content-type": kind, "x-request-id": "mine"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    return list(frames_of(answer.content if kind != TEXT else _joined(answer.content)))


def _joined(content: bytes) -> bytes:
    """Base64 of frames behind one another, each with its own padding."""
    found = b""
    while content:
        size = int.from_bytes(base64.b64decode(content[:8])[1:5]) + 5
        length = -(-size // 3) * 4
        found += base64.b64decode(content[:length])
        content = content[length:]
    return found


@pytest.mark.parametrize("kind", [WEB, TEXT])
async def test_a_method_with_one_answer(running: Running, http: httpx2.AsyncClient, kind: str) -> None:
    """A message, and the trailers."""
    asked = api.EmbedRequest(model="tiny-text", text="the cat")
    message, (flag, trailers) = await ask(http, "Embed", kind, asked.SerializeToString())
    assert api.EmbedResponse.FromString(message[1]).vector == (await running.stub.Embed(asked)).vector
    assert (message[0], flag) == (0, 0x80)
    assert trailers == b"grpc-status: 0\r\nx-request-id: mine\r\n"


@pytest.mark.parametrize("kind", [WEB, TEXT, STREAM, STREAM_JSON])
async def test_a_method_with_a_stream_of_answers(running: Running, http: httpx2.AsyncClient, kind: str) -> None:
    """One for each layer, and the end."""
    asked = api.AttendRequest(model="tiny-text", text="the cat")
    content = json.dumps({"model": "tiny-text", "text": "the cat"}).encode()
    found = await ask(http, "Attend", kind, content if kind == STREAM_JSON else asked.SerializeToString())
    expected = [answer async for answer in running.stub.Attend(asked)]
    assert len(found) == len(expected) + 1 == 3
    for (_, message), other in zip(found, expected, strict=False):
        if kind == STREAM_JSON:
            data = json.loads(message)["attention"]["layers"][0]["weights"]["data"]
            assert base64.b64decode(data) == other.attention.layers[0].weights.data
        else:
            assert api.AttendResponse.FromString(message).attention.layers == other.attention.layers
    flag, end = found[-1]
    if kind in (WEB, TEXT):
        assert (flag, end.startswith(b"grpc-status: 0\r\n")) == (0x80, True)
    else:
        assert (flag, json.loads(end)) == (2, {"metadata": {"x-request-id": ["mine"]}})


@pytest.mark.parametrize("kind", [WEB, TEXT, STREAM, STREAM_JSON])
async def test_an_error_is_the_end(running: Running, http: httpx2.AsyncClient, kind: str) -> None:
    """With its code and its words."""
    asked: Any = {"model": "nope", "text": "x"}
    content = json.dumps(asked).encode() if kind == STREAM_JSON else api.AttendRequest(**asked).SerializeToString()
    ((flag, end),) = await ask(http, "Attend", kind, content)
    if kind in (WEB, TEXT):
        assert (flag, end.split(b"\r\n")[0]) == (0x80, b"grpc-status: 5")
        assert b"nope" in end
    else:
        assert (flag, json.loads(end)["error"]["code"]) == (2, "not_found")


@pytest.mark.parametrize(
    ("kind", "content"),
    [(WEB, b""), (WEB, b"\0\0\0\0\7x"), (WEB, b"\1\0\0\0\0"), (TEXT, b"%%"), (STREAM_JSON, framed(b'{"modle": 1}'))],
)
async def test_what_is_no_message_is_refused(
    running: Running, http: httpx2.AsyncClient, kind: str, content: bytes
) -> None:
    """As the caller's fault."""
    answer = await http.post(f"{SERVICE}Attend", content=content, headers={"content-type": kind})
    frames = list(frames_of(answer.content if kind != TEXT else _joined(answer.content)))
    assert b"grpc-status: 3" in frames[-1][1] or b"invalid_argument" in frames[-1][1]
