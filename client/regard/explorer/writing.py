"""A text that a model writes, as the page gets it: a line of JSON for each token, as soon as the server has made it.

The first line has what was read, the next ones a token each, the last how it ended; or what went wrong.
"""

import base64
import dataclasses
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from regard.aio import AsyncClient
from regard.attention import AttentionRequest, LayerAttention, Token
from regard.errors import RegardError
from regard.explorer.problems import invalid, said_by
from regard.explorer.requests import FieldTypes, read_fields
from regard.generate_calls import AsyncTokenStream
from regard.generation import Generated, GeneratedToken

MEDIA_TYPE = "application/x-ndjson"
_ALTERNATIVES = 5
_TYPES: FieldTypes = {
    "model": (str, "a text"),
    "version": (str, "a text"),
    "text": (str, "a text"),
    "start": (str, "a text"),
    "truncate": (bool, "true or false"),
    "layers": (list, "a list of numbers"),
}


def write(client: AsyncClient, body: bytes) -> AsyncTokenStream:
    """Ask for a text, for what each of its steps attends to in these layers, and for what else it might have written.

    Raises:
        Problem: The body names a field that does not exist or a value that is none.
    """
    fields = read_fields(body, _TYPES)
    if "text" not in fields:
        raise invalid("text", None, "a text")
    attention = AttentionRequest(layers=tuple(fields.get("layers", ())))
    return client.generate(
        fields["text"],
        model=fields.get("model", ""),
        version=fields.get("version", ""),
        start=fields.get("start", ""),
        truncate=fields.get("truncate", False),
        num_beams=1,  # attention is told of no more
        alternatives=_ALTERNATIVES,
        cross_attention=attention,
        self_attention=attention,
    )


async def lines(tokens: AsyncTokenStream, server: str) -> AsyncGenerator[bytes, None]:
    """Hand on a text as it is written; whoever reads no further ends the server's work.

    Raises:
        RegardError: The server refuses before it has written anything; later, that is a line.
    """
    async with tokens:
        first = await anext(tokens, None)
        yield _line("source", _source(tokens.source))
        try:
            if first is not None:
                yield _line("token", _token(first))
            async for token in tokens:
                yield _line("token", _token(token))
            yield _line("end", _end(await tokens.finish()))
        except RegardError as error:
            yield _line("problem", said_by(error, server))


def _line(part: str, content: object) -> bytes:
    return json.dumps({part: content}, ensure_ascii=False).encode() + b"\n"


def _source(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(token) for token in tokens]


def _token(token: GeneratedToken) -> dict[str, Any]:
    return {
        "text": token.text,
        "log_probability": token.log_probability,
        "alternatives": [dataclasses.asdict(one) for one in token.alternatives],
        "attention": [_row(layer) for layer in token.attention],
    }


def _row(layer: LayerAttention) -> dict[str, Any]:
    """Every head's row, [H, K], as float16 in base64: off by 2.5e-4 at most, as all weights of the page."""
    heads, keys = layer.weights.shape
    packed = base64.b64encode(layer.weights.astype("<f2").tobytes()).decode()
    return {"layer": layer.layer, "kind": layer.kind, "heads": heads, "keys": keys, "weights": packed}


def _end(whole: Generated) -> dict[str, Any]:
    result = whole.results[0]
    return {
        "model": whole.model,
        "version": whole.version,
        "truncated": whole.truncated,
        "text": result.text,
        "log_probability": result.log_probability,
        "finish_reason": result.finish_reason,
        "timings": dataclasses.asdict(whole.timings),
    }
