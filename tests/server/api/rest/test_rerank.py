"""Rerank in the forms of TEI, Jina and Cohere; the scores are those of Rank."""

from typing import Any

import httpx2
import pytest

from regard.v1 import regard_pb2 as api
from tests.server.conftest import Running

QUERY, TEXTS = "the cat", ["a dog", "the cat sat", "a mat"]


async def rank(running: Running, **more: Any) -> api.RankResponse:
    """What gRPC says."""
    asked = api.RankRequest(model="tiny-rank", query=QUERY, documents={"items": TEXTS}, **more)
    answer: api.RankResponse = await running.stub.Rank(asked)
    return answer


async def test_tei_ranks(running: Running, http: httpx2.AsyncClient) -> None:
    """Sigmoids or raw, with the text where it is asked for."""
    expected = [(one.index, pytest.approx(one.score, abs=1e-6)) for one in (await rank(running)).documents]
    asked = {"model": "tiny-rank", "query": QUERY, "texts": TEXTS}
    answer = await http.post("/rerank", json=asked | {"return_text": True})
    assert [(one["index"], one["score"]) for one in answer.json()] == expected
    assert all(one["text"] == TEXTS[one["index"]] for one in answer.json())
    raw = await http.post("/rerank", json=asked | {"raw_scores": True})
    logits = [pytest.approx(one.score, abs=1e-5) for one in (await rank(running, raw_scores=True)).documents]
    assert [one["score"] for one in raw.json()] == logits
    assert "text" not in raw.json()[0]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_jina_and_cohere_rank(running: Running, http: httpx2.AsyncClient, path: str) -> None:
    """As many as are asked for."""
    expected = await rank(running, top_k=2)
    documents = [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]
    asked = {"model": "tiny-rank", "query": QUERY, "documents": documents, "top_n": 2, "return_documents": True}
    found = (await http.post(path, json=asked)).json()
    assert [one["index"] for one in found["results"]] == [one.index for one in expected.documents]
    assert [one["relevance_score"] for one in found["results"]] == [
        pytest.approx(one.score, abs=1e-6) for one in expected.documents
    ]
    assert found["results"][0]["document"] == {"text": TEXTS[found["results"][0]["index"]]}
    assert (found["model"], found["usage"]["total_tokens"]) == ("tiny-rank", expected.num_tokens)
    assert expected.num_tokens > 3 * 5


@pytest.mark.parametrize(
    ("path", "given", "key", "words"),
    [
        ("/rerank", {"query": QUERY, "texts": ["a", ""]}, "error", "texts[1]: "),
        ("/rerank", {"query": QUERY}, "error", "texts: missing"),
        ("/rerank", {"query": QUERY, "texts": [], "truncation_direction": "Left"}, "error", "truncation_direction"),
        ("/rerank", {"query": QUERY, "texts": ["a"], "model": "tiny-text"}, "error", "tiny-text"),
        ("/v1/rerank", {"query": QUERY, "documents": [7]}, "detail", "documents[0]: 7; expected a string"),
        ("/v1/rerank", {"query": 7, "documents": ["a"]}, "message", "query: 7; expected a string"),
        ("/v1/rerank", {"query": QUERY, "documents": ["a"], "top_n": 0}, "detail", "top_n: 0"),
        ("/v1/rerank", {"query": QUERY, "documents": ["a", "\t"]}, "detail", "documents[1]: "),
    ],
)
async def test_what_is_wrong_is_named(
    running: Running, http: httpx2.AsyncClient, path: str, given: dict[str, Any], key: str, words: str
) -> None:
    """Where each protocol's clients look for it."""
    answer = await http.post(path, json={"model": "tiny-rank"} | given)
    assert answer.status_code == 400
    assert words in answer.json()[key]
