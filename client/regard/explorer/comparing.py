"""What a change of the input changes: the labels' probabilities, or the direction of the vector."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from regard.aio import AsyncClient
from regard.answers import Classification, Embedding, Model
from regard.explorer.photos import PhotoStore
from regard.explorer.problems import Problem, invalid, photo_gone
from regard.explorer.requests import FieldTypes, read_fields
from regard.sources import read_labels

_TYPES: FieldTypes = {
    "model": (str, "a text"),
    "version": (str, "a text"),
    "photo": (str, "the name of a photo"),
    "text": (str, "a text"),
    "other": (str, "the name of a photo, or a text"),
    "labels": (str, "labels with commas between"),
    "truncate": (bool, "true or false"),
}


async def compare(client: AsyncClient, body: bytes, photos: PhotoStore) -> dict[str, Any]:
    """Ask about an input and about another, and say how the answers differ, for JSON.

    Returns:
        `labels`: name, probability `before` and `after` of each, the largest first; or `cosine`: of the two vectors.

    Raises:
        Problem: It names a field that does not exist or a value that is none, a photo that is not kept, or a model that
            neither classifies nor gives one vector.
        RegardError: As the server refuses.
    """
    fields = read_fields(body, _TYPES)
    inputs = _read_inputs(fields, photos)
    labels = read_labels(fields.get("labels", ""))
    name, version = fields.get("model", ""), fields.get("version", "")
    model = await client.model(name, version)
    asked: dict[str, Any] = {"model": name, "version": version, "truncate": fields.get("truncate", False)}
    if model.can_classify or labels:
        given = {**asked, "candidate_labels": labels, "top_k": len(labels or model.labels)}
        before, after = [await client.classify(**one, **given) for one in inputs]
        return {"labels": _changes(before, after)}
    return {"cosine": _cosine([await client.embed(**one, **asked) for one in inputs if _has_vector(model)], model)}


def _read_inputs(fields: Mapping[str, Any], photos: PhotoStore) -> list[dict[str, Any]]:
    if ("photo" in fields) == ("text" in fields) or "other" not in fields:
        raise invalid("photo, text, other", sorted(fields), "other, and exactly one of photo and text")
    if "text" in fields:
        return [{"text": fields["text"]}, {"text": fields["other"]}]
    images = [photos.get(fields[each]) for each in ("photo", "other")]
    if None in images:
        raise photo_gone()
    return [{"image": image} for image in images]


def _has_vector(model: Model) -> bool:
    return model.can_embed and not model.token_vector_dim


def _changes(before: Classification, after: Classification) -> list[dict[str, Any]]:
    then = {label.index: label.probability for label in after.labels}
    return [{"name": one.name, "before": one.probability, "after": then[one.index]} for one in before.labels]


def _cosine(answers: list[Embedding], model: Model) -> float:
    if not answers:
        message = f"model: {model.name!r} neither classifies nor embeds as one vector; expected one that does"
        raise Problem(409, "FAILED_PRECONDITION", message)
    first, second = (answer.to_floats().astype(np.float64) for answer in answers)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
