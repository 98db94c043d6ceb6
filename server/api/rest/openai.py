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
_INPUT = "a string, a list of strings, a list of token ids, or a list of such lists"
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def openai_routes() -> Iterator[Route]:
    """Yield the paths."""
    yield Route("POST", "/v1/embeddings", f"{SERVICE}Embed", _read_embeddings, write_error)
    yield Route("GET", "/v1/models", f"{SERVICE}ListModels", _read_models, write_error)
    yield Route("GET", "/v1/models/{model}", f"{SERVICE}GetModel", _read_model, write_error)


def write_error(refusal: Refusal) -> HttpAnswer:
    """Say why there is no answer, as OpenAI does."""
    status, message = refusal.http_status, refusal.message
    for ours in ("texts", "token_ids"):
        message = in_words_of(ours, "input", message)
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
    message = api.EmbedRequest(model=need(fields, "model", str))
    fill(
        message,
        dimensions=take(fields, "dimensions", int),
        truncate=take(fields, "truncate", bool),
        prompt=take(fields, "prompt", str),
        priority=take(fields, "priority", int),
    )
    _fill_input(message, given)

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


def _fill_input(message: api.EmbedRequest, given: Any) -> None:
    """Write texts, or lists of token ids, into a request; one alone as a list of one.

    Raises:
        InvalidInput: They are neither.
    """
    is_one = isinstance(given, str) or (isinstance(given, list) and given and _is_id(given[0]))
    each = [given] if is_one else given
    if not isinstance(each, list):
        raise InvalidInput("input", "missing" if given is None else show(given), _INPUT)
    if not each or isinstance(each[0], str):
        message.texts.SetInParent()
        fill(message.texts, items=take_texts({"input": each}, "input"))
        return
    for number, ids in enumerate(each):
        place = "input" if is_one else f"input[{number}]"
        if not isinstance(ids, list):
            raise InvalidInput(place, show(ids), "a list of token ids" if number else "a string or a list of token ids")
        for at, one in enumerate(ids):
            if not _is_id(one) or not 0 <= one < 2**32:
                raise InvalidInput(f"{place}[{at}]", show(one), "a token id, a whole number from 0 on")
        message.token_ids.items.add(items=ids)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
