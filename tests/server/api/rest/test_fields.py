"""What no body may have, whatever its path, and how what is wrong is counted."""

import json
from typing import Any

import httpx2
import pytest

from tests.server.asking import samples
from tests.server.conftest import Running

HALF = "\ud800"  # of a surrogate pair
CONNECT = "/regard.v1.RegardService/Embed"
LOAD = "/v2/repository/models/tiny-text/load"
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1]}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/embeddings", {"model": HALF, "input": "the cat"}),
        ("/v1/embeddings", {"model": "tiny-text", "input": ["the cat", HALF]}),
        ("/v1/embeddings", {HALF: 1}),
        ("/rerank", {"query": HALF, "texts": ["the cat"]}),
        (CONNECT, {"model": HALF}),
        (CONNECT, {HALF: 1}),
        (LOAD, {"parameters": {HALF: True}}),
        (LOAD, {"parameters": {"why": HALF}}),
        ("/v2/logging", {HALF: True}),
        ("/v2/logging", {"why": HALF}),
        ("/v2/trace/setting", {HALF: "OFF"}),
        ("/v2/trace/setting", {"trace_level": HALF}),
        ("/v2/models/tiny-text/infer", {"inputs": [TENSOR | {"data": [HALF]}]}),
        ("/v2/models/tiny-text/infer", {"inputs": [TENSOR | {"name": HALF, "data": ["the cat"]}]}),
        ("/v2/models/tiny-text/infer", {"inputs": [], "parameters": {HALF: HALF}}),
        ("/v2/systemsharedmemory/region/x/register", {"key": HALF, "byte_size": 1}),
    ],
)
async def test_half_a_character_is_refused(http: httpx2.AsyncClient, path: str, asked: dict[str, Any]) -> None:
    """JSON can say it, and no message can."""
    answer = await http.post(path, content=json.dumps(asked), headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert "ud800" in answer.text


@pytest.mark.parametrize("path", ["/v1/embeddings", CONNECT, "/v2/models/tiny-text/infer"])
async def test_a_name_that_is_given_twice_is_refused(http: httpx2.AsyncClient, path: str) -> None:
    """Of which one would be ignored in silence."""
    body = '{"model": "tiny-text", "inputs": [], "model": "fashion"}'
    answer = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, "'model' is given twice" in answer.text) == (400, True)


async def test_a_call_is_counted_once_though_its_answer_cannot_be_said(
    running: Running, http: httpx2.AsyncClient
) -> None:
    """One text of two has an error, for which OpenAI has no place."""
    before = (await samples(running)).get(("regard_requests_received_total", "Embed"), 0)
    answer = await http.post("/v1/embeddings", json={"model": "tiny-text", "input": ["the cat", " "]})
    assert answer.status_code == 400
    assert (await samples(running))["regard_requests_received_total", "Embed"] == before + 1
