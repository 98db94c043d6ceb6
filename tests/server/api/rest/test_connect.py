"""regard.v1 as the Connect protocol has it, in its unary form; answers are those of gRPC."""

import base64
from typing import Any

import httpx2
import pytest

from regard.v1 import regard_pb2 as api
from tests.server.conftest import Running

EMBED = "/regard.v1.RegardService/Embed"
ASKED = {"model": "tiny-text", "text": "the cat", "attention": {"layers": [-1]}}
JSON = {"content-type": "application/json; charset=utf-8", "connect-protocol-version": "1"}


async def test_json_is_answered_as_grpc_is(running: Running, http: httpx2.AsyncClient) -> None:
    """With names as protobuf's JSON has them."""
    answer = await http.post(EMBED, json=ASKED, headers=JSON | {"connect-timeout-ms": "60000"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    asked = api.EmbedRequest(model="tiny-text", text="the cat")
    asked.attention.layers.append(-1)
    expected = await running.stub.Embed(asked)
    assert base64.b64decode(found["vector"]["data"]) == expected.vector.data
    assert found["numTokens"] == expected.num_tokens
    assert [one["layer"] for one in found["attention"]["layers"]] == [1]


async def test_a_message_may_travel_as_it_is(running: Running, http: httpx2.AsyncClient) -> None:
    """Whatever its bytes are: no bracket is counted in them."""
    asked = api.EmbedRequest(model="tiny-text", text="[" * 100 + " the cat", truncate=True)
    answer = await http.post(EMBED, content=asked.SerializeToString(), headers={"content-type": "application/proto"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/proto")
    found, expected = api.EmbedResponse.FromString(answer.content), await running.stub.Embed(asked)
    assert found.vector == expected.vector


@pytest.mark.parametrize(
    ("content", "kind", "status", "code", "words"),
    [
        (b'{"model":"nope","text":"x"}', "application/json", 404, "not_found", "nope"),
        (b'{"model":"tiny-text","text":""}', "application/json", 400, "invalid_argument", "text"),
        (b'{"modle":"tiny-text"}', "application/json", 400, "invalid_argument", "modle"),
        (b'{"model":7}', "application/json", 400, "invalid_argument", "model"),
        (b'{"text":"\\ud800"}', "application/json", 400, "invalid_argument", "text: "),
        (b"[", "application/json", 400, "invalid_argument", "no JSON"),
        (b"\xff\xff", "application/proto", 400, "invalid_argument", "no message of this method"),
        (b"{}", "text/plain", 400, "invalid_argument", "content-type: 'text/plain'; expected application/json"),
        (b'{"model":"fashion","text":"x"}', "application/json", 400, "failed_precondition", "fashion"),
    ],
)
async def test_errors_are_connects(
    running: Running, http: httpx2.AsyncClient, content: bytes, kind: str, status: int, code: str, words: str
) -> None:
    """A code and a message."""
    answer = await http.post(EMBED, content=content, headers={"content-type": kind})
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["code"]) == (status, code)
    assert words in found["message"]
