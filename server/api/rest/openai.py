"""OpenAI's way to ask for vectors, and for the models that there are.

https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from regard.v1 import regard_pb2 as api
from server.api.rest.exchange import Asked, HttpAnswer, HttpRequest, Refusal, Route
from server.api.rest.fields import fill, need, read_object, show, take, take_texts, write_json
from server.errors import InvalidInput, NotPossible, Repeated

SERVICE = "/regard.v1.RegardService/"
_FIELDS = ("model", "input", "encoding_format", "dimensions", "user", "truncate", "prompt", "priority")
_FORMATS = ("float", "base64")
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def openai_routes() -> Iterator[Route]:
    """Yield the paths."""
    yield Route("POST", "/v1/embeddings", f"{SERVICE}Embed", _read_embeddings, write_error)
    yield Route("GET", "/v1/models", f"{SERVICE}ListModels", _read_models, write_error)
    yield Route("GET", "/v1/models/{model}", f"{SERVICE}GetModel", _read_model, write_error)


def write_error(refusal: Refusal) -> HttpAnswer:
    """Say why there is no answer, as OpenAI does."""
    status, message = refusal.http_status, in_words_of("texts", "input", refusal.message)
    field = message.partition(":")[0] if refusal.code is grpc.StatusCode.INVALID_ARGUMENT else None
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = refusal.code.name.lower()
    return write_json({"error": {"message": message, "type": kind, "param": field, "code": code}}, status)


def in_words_of(ours: str, theirs: str, message: str) -> str:
    """Name a field as the caller did."""
    return theirs + message[len(ours) :] if message.startswith((f"{ours}:", f"{ours}[")) else message


def raise_first(results: Any) -> None:
    """Refuse all where one input has an error, as protocols do that have no error for one.

    Raises:
        ServerError: The first.
    """
    for one in results:
        if one.HasField("error"):
            raise Repeated(one.error.code, one.error.message)


def _read_embeddings(request: HttpRequest) -> Asked:
    fields = read_object(request.body, _FIELDS)
    given, how = fields.get("input"), take(fields, "encoding_format", str) or "float"
    if how not in _FORMATS:
        raise InvalidInput("encoding_format", repr(how), "float or base64")
    if isinstance(given, list) and given and isinstance(given[0], int | list):
        expected = "texts: ids would be of another tokenizer (in LangChain, check_embedding_ctx_length=False)"
        raise InvalidInput("input", f"{show(given)}, of ids of tokens", expected)
    texts = [given] if isinstance(given, str) else take_texts(fields, "input")
    message = api.EmbedRequest(model=need(fields, "model", str))
    fill(
        message,
        dimensions=take(fields, "dimensions", int),
        truncate=take(fields, "truncate", bool),
        prompt=take(fields, "prompt", str),
        priority=take(fields, "priority", int),
    )
    message.texts.SetInParent()
    fill(message.texts, items=texts)

    def write(content: bytes) -> HttpAnswer:
        found = api.EmbedResponse.FromString(content)
        raise_first(found.results)
        data = [
            {"object": "embedding", "index": number, "embedding": _write_vector(found.model, one, how)}
            for number, one in enumerate(found.results)
        ]
        tokens = sum(one.num_tokens for one in found.results)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return write_json({"object": "list", "data": data, "model": found.model, "usage": usage})

    return Asked(message, write)


def _write_vector(model: str, one: api.EmbedResult, how: str) -> list[float] | str:
    """Write a vector: numbers, or the base64 of float32, little-endian.

    Raises:
        NotPossible: The model gives no dense ones.
    """
    if not one.HasField("vector"):
        raise NotPossible(f"model: {model} gives no dense vectors; expected one that does, or regard.v1's Embed")
    if how == "base64":
        return base64.b64encode(one.vector.data).decode()
    numbers: list[float] = np.frombuffer(one.vector.data, "<f4").tolist()
    return numbers


def _read_models(request: HttpRequest) -> Asked:
    def write(content: bytes) -> HttpAnswer:
        names = dict.fromkeys(model.name for model in api.ListModelsResponse.FromString(content).models)
        return write_json({"object": "list", "data": [_write_model(name) for name in names]})

    return Asked(api.ListModelsRequest(), write)


def _read_model(request: HttpRequest) -> Asked:
    def write(content: bytes) -> HttpAnswer:
        return write_json(_write_model(api.GetModelResponse.FromString(content).model.name))

    return Asked(api.GetModelRequest(model=request.names["model"]), write)


def _write_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "regard"}
