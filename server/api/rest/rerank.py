"""Rerank as text-embeddings-inference (TEI) has it, and as Jina and Cohere do.

https://huggingface.github.io/text-embeddings-inference/#/Text%20Embeddings%20Inference/rerank,
https://api.jina.ai/redoc#tag/rerank and https://docs.cohere.com/reference/rerank
"""

from collections.abc import Iterator
from typing import Any

from regard.v1 import regard_pb2 as api
from server.api.rest.exchange import Asked, HttpAnswer, HttpRequest, Refusal, Route
from server.api.rest.fields import Object, fill, need, read_object, show, take, take_texts, write_json
from server.api.rest.openai import SERVICE, in_words_of, raise_first
from server.errors import InvalidInput

_TEI = ("query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction", "model")
_JINA = ("model", "query", "documents", "top_n", "return_documents", "truncate", "priority")
_TEI_TYPES = {429: "Overloaded", 503: "Unhealthy", 413: "Validation", 400: "Validation"}


def rerank_routes() -> Iterator[Route]:
    """Yield the paths."""
    yield Route("POST", "/rerank", f"{SERVICE}Rank", _read_tei, _write_tei_error)
    for path in ("/v1/rerank", "/v2/rerank"):
        yield Route("POST", path, f"{SERVICE}Rank", _read_jina, _write_jina_error)


def _read_tei(request: HttpRequest) -> Asked:
    fields = read_object(request.body, _TEI)
    texts, returns = take_texts(fields, "texts"), take(fields, "return_text", bool)
    if take(fields, "truncation_direction", str) not in (None, "right", "Right"):
        raise InvalidInput("truncation_direction", show(fields["truncation_direction"]), "Right: ends are cut")
    message = _make(fields, texts, None, take(fields, "raw_scores", bool))

    def write(content: bytes) -> HttpAnswer:
        found = api.RankResponse.FromString(content)
        raise_first(found.documents)
        ranked: list[dict[str, Any]] = [{"index": one.index, "score": one.score} for one in found.documents]
        for one in ranked if returns else ():
            one["text"] = texts[one["index"]]
        return write_json(ranked)

    return Asked(message, write)


def _read_jina(request: HttpRequest) -> Asked:
    fields = read_object(request.body, _JINA)
    texts = [_read_document(one, number) for number, one in enumerate(need(fields, "documents", list))]
    need(fields, "model", str)
    returns = take(fields, "return_documents", bool)
    message = _make(fields, texts, take(fields, "top_n", int), None)

    def write(content: bytes) -> HttpAnswer:
        found = api.RankResponse.FromString(content)
        raise_first(found.documents)
        results: list[dict[str, Any]] = [{"index": one.index, "relevance_score": one.score} for one in found.documents]
        for one in results if returns else ():
            one["document"] = {"text": texts[one["index"]]}
        return write_json({"model": found.model, "results": results, "usage": {"total_tokens": found.num_tokens}})

    return Asked(message, write)


def _read_document(given: Any, number: int) -> str:
    text = given.get("text") if isinstance(given, dict) else given
    if not isinstance(text, str):
        raise InvalidInput(f"documents[{number}]", show(given), "a string, or an object with text")
    return text


def _make(fields: Object, texts: list[str], top: int | None, raw: bool | None) -> api.RankRequest:
    if top is not None and top < 1:
        raise InvalidInput("top_n", top, "a positive number")
    message = api.RankRequest()
    fill(
        message,
        model=take(fields, "model", str),
        query=need(fields, "query", str),
        truncate=take(fields, "truncate", bool),
        priority=take(fields, "priority", int),
        top_k=top,
        raw_scores=raw,
    )
    message.documents.SetInParent()
    fill(message.documents, items=texts)
    return message


def _write_tei_error(refusal: Refusal) -> HttpAnswer:
    status, message = refusal.http_status, in_words_of("documents", "texts", refusal.message)
    return write_json({"error": message, "error_type": _TEI_TYPES.get(status, "Backend")}, status)


def _write_jina_error(refusal: Refusal) -> HttpAnswer:
    """Say why there is no answer: Jina's clients read detail, Cohere's message."""
    return write_json({"detail": refusal.message, "message": refusal.message}, refusal.http_status)
