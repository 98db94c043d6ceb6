"""What the page asks, and the one call to the regard server that answers it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from regard.aio import AsyncClient
from regard.alignment import Alignment
from regard.answers import Classification, Embedding, Label, Timings
from regard.attention import Attention, AttentionRequest, LayerAttention
from regard.errors import InvalidCall
from regard.explorer.photos import PhotoStore
from regard.explorer.problems import Problem, invalid, photo_gone
from regard.hidden_states import HiddenStatesRequest
from regard.sources import read_labels
from regard.views import AttentionResult

# What is a share of 1, which float16 holds well.
_SHARES = ("weights", "rollout", "contribution_rollout")
_SIMILARITY = "similarity"
_MAX_NUMBER = 2**31  # as protobuf's int32
FieldTypes = Mapping[str, tuple[type, str]]
"""The type of each field that a request may have, and that in words."""
_TYPES: FieldTypes = {
    "model": (str, "a text"),
    "version": (str, "a text"),
    "photo": (str, "the name of a photo"),
    "text": (str, "a text"),
    "second": (str, "a text"),
    "labels": (str, "labels with commas between"),
    "words": (str, "a text"),
    "truncate": (bool, "true or false"),
    "measure": (str, "weights, rollout, entropy, distance, contribution, contribution_rollout or similarity"),
    "reduce": (str, "mean, max or min"),
    "layers": (list, "a list of numbers"),
    "heads": (list, "a list of numbers"),
}


@dataclass(frozen=True)
class PageRequest:
    """One request of the page.

    Attributes:
        model: Its name.
        version: Empty means the newest.
        given: What is asked about, as the client's calls take it: image, text, or pair.
        labels: Of two towers: what the photo is compared with; none for none.
        words: Of two towers: a text whose words' maps over the photo are wanted, in place of attention; empty for none.
        truncate: Cut a text that is too long.
        attention: What is wanted.
        compared_layer: The layer after which positions are compared, in place of attention; None for none.
    """

    model: str
    version: str
    given: dict[str, Any]
    labels: list[str]
    words: str
    truncate: bool
    attention: AttentionRequest
    compared_layer: int | None = None


@dataclass(frozen=True)
class PageResponse:
    """What the server answered.

    Attributes:
        model: Which model.
        version: Which version of it.
        labels: Most probable first; empty where the model does not classify.
        truncated: The text was cut.
        attention: What was asked for; of words, their cosines with the photo's patches as one layer's, [word, patch].
        timings: On the server.
        words: Whose maps these are, the whole text first.
    """

    model: str
    version: str
    labels: tuple[Label, ...]
    truncated: bool
    attention: Attention
    timings: Timings | None
    words: tuple[str, ...] = ()


def read_request(body: bytes, photos: PhotoStore) -> PageRequest:
    """Read a request from JSON.

    Raises:
        Problem: It names a field that does not exist or a value that is none, or a photo that is not kept.
    """
    fields = read_fields(body, _TYPES)
    given = read_input(fields, photos)
    for name, beside in (("labels", "photo"), ("words", "photo")):
        if name in fields and beside not in fields:
            raise invalid(name, fields[name], f"none, as there is no {beside}")
    return PageRequest(
        model=fields.get("model", ""),
        version=fields.get("version", ""),
        given=given,
        labels=read_labels(fields.get("labels", "")),
        words=fields.get("words", ""),
        truncate=fields.get("truncate", False),
        attention=_read_attention(fields),
        compared_layer=_read_compared(fields),
    )


def read_input(fields: Mapping[str, Any], photos: PhotoStore) -> dict[str, Any]:
    """Read what is asked about, as the client's calls take it: image, text, or pair.

    Raises:
        Problem: It is both or neither, a second text without a first, or a photo that is not kept.
    """
    if ("photo" in fields) == ("text" in fields):
        raise invalid("photo, text", sorted(fields.keys() & {"photo", "text"}), "exactly one of them")
    if "text" in fields:
        return {"pair": (fields["text"], fields["second"])} if "second" in fields else {"text": fields["text"]}
    if "second" in fields:
        raise invalid("second", fields["second"], "none, as there is no text")
    image = photos.get(fields["photo"])
    if image is None:
        raise photo_gone()
    return {"image": image}


async def ask(client: AsyncClient, asked: PageRequest) -> PageResponse:
    """Ask once; labels come along where the model classifies, and of a model that can do neither, its attention alone.

    Raises:
        RegardError: As the server refuses.
    """
    if asked.words:
        image = asked.given["image"]
        found = await client.align(image=image, text=asked.words, model=asked.model, version=asked.version)
        return _word_maps(found, asked.words)
    model = await client.model(asked.model, asked.version)
    given: dict[str, Any] = {
        **asked.given,
        "model": asked.model,
        "version": asked.version,
        "truncate": asked.truncate,
        "attention": asked.attention,
    }
    classifies = model.can_classify or bool(asked.labels)
    if asked.labels:
        given["candidate_labels"] = asked.labels
    if asked.compared_layer is not None:
        wanted = HiddenStatesRequest(layers=(asked.compared_layer + 1,), normalize=True)
        given = {**given, "attention": None, "hidden_states": wanted}
    if not (classifies or (model.can_embed and "pair" not in asked.given)) and asked.compared_layer is None:
        result = AttentionResult.join(model, [part async for part in client.attend(**given)])
        return PageResponse(result.model, result.version, (), result.truncated, result.attention, timings=None)
    answer: Classification | Embedding = await (client.classify if classifies else client.embed)(**given)
    return PageResponse(
        model=answer.model,
        version=answer.version,
        labels=answer.labels if isinstance(answer, Classification) else (),
        truncated=answer.truncated,
        attention=answer.attention or _similarities(answer, asked.compared_layer) or Attention(()),
        timings=answer.timings,
    )


def _similarities(answer: Classification | Embedding, layer: int | None) -> Attention | None:
    """Lay the cosines of all positions with each other, after a layer, out as that layer's rows, [N, N]."""
    states = answer.hidden_states
    if states is None or layer is None:
        return None
    vectors = states.layers[0].values.astype(np.float32)
    cosines = (vectors @ vectors.T).astype(np.float16)
    positions = tuple(range(len(cosines)))
    rows = LayerAttention(layer, "self", ("query", "key"), (0,), positions, cosines)
    return Attention((rows,), tokens=states.tokens, patches=states.patches)


def _word_maps(found: Alignment, text: str) -> PageResponse:
    """Lay the maps of the whole text and of each word out as a layer's rows, whose keys are patches alone."""
    kept = [place for place, token in enumerate(found.tokens) if not token.special]
    words = (found.tokens[place] for place in kept)
    maps = np.vstack([found.text_similarities, found.similarities[kept]])
    layer = LayerAttention(0, "self", ("query", "key"), (0,), tuple(range(len(maps))), maps)
    return PageResponse(
        model=found.model,
        version=found.version,
        labels=(),
        truncated=found.truncated,
        attention=Attention((layer,), patches=dataclasses.replace(found.patches, prefix_tokens=0)),
        timings=found.timings,
        words=("the whole text", *(text[word.start : word.end] or word.text for word in words)),
    )


def read_fields(body: bytes, types: FieldTypes) -> Mapping[str, Any]:
    """Read an object of JSON.

    Raises:
        Problem: It is none, or has a field that is none of these, or a value of another type.
    """
    try:
        fields = json.loads(body)
        json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text to be sent
    except (ValueError, RecursionError) as error:
        raise invalid("body", str(error), "JSON") from error
    if not isinstance(fields, dict):
        raise invalid("body", fields, "a JSON object")
    for name, value in fields.items():
        if name not in types:
            raise invalid(name, value, f"no such field, but {', '.join(types)}")
        kind, expected = types[name]
        if not _fits(value, kind):
            raise invalid(name, value, expected)
    return fields


def _fits(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(type(item) is int and abs(item) < _MAX_NUMBER for item in value)
    return isinstance(value, kind)


def _read_compared(fields: Mapping[str, Any]) -> int | None:
    if fields.get("measure") != _SIMILARITY:
        return None
    layers = fields.get("layers", [])
    if len(layers) != 1 or layers[0] < 0:
        raise invalid("layers", layers, "one layer of those after which positions are compared")
    return int(layers[0])


def _read_attention(fields: Mapping[str, Any]) -> AttentionRequest:
    """Rows of weights travel as float16, off by 2.5e-4 at most: half the bytes; the few numbers of charts whole."""
    measure = fields.get("measure", "weights")
    if measure == _SIMILARITY:
        return AttentionRequest()
    try:
        return AttentionRequest(
            layers=tuple(fields.get("layers", ())),
            heads=tuple(fields.get("heads", ())),
            reduce_heads=fields.get("reduce"),
            measure=measure,
            dtype="float16" if measure in _SHARES else "float32",
        )
    except InvalidCall as error:
        raise Problem(400, error.code.name, error.message) from error
