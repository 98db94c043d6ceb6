"""Why a label: what each position of an input did for its logit, for the page."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from regard.aio import AsyncClient
from regard.answers import Classification, Model
from regard.explorer.photos import PhotoStore
from regard.explorer.problems import Problem, invalid
from regard.explorer.requests import FieldTypes, read_fields, read_input
from regard.reasons import headline, names, positions_of, unplaced
from regard.relevance import Relevance, RelevanceRequest

_TYPES: FieldTypes = {
    "model": (str, "a text"),
    "version": (str, "a text"),
    "photo": (str, "the name of a photo"),
    "text": (str, "a text"),
    "second": (str, "a text"),
    "truncate": (bool, "true or false"),
    "label": (str, "one of the model's labels"),
    "against": (str, "one of the model's labels"),
    "method": (str, "one of the model's relevance_methods"),
}


async def explain(client: AsyncClient, body: bytes, photos: PhotoStore) -> dict[str, Any]:
    """Ask why a model gives a label to an input, and say it for JSON.

    Returns:
        `label`, `against`, `method`, `score`, `relative_error` as `regard.Relevance` has them; `values`, a number for
        each of `positions`, and what these are called (`names`); `headline` and `unplaced` in words; `tokens` or
        `patches`; `probabilities` of label and against, the latter None where there is none.

    Raises:
        Problem: It names a field that does not exist or a value that is none, a photo that is not kept, or a model that
            cannot explain.
        RegardError: As the server refuses.
    """
    fields = read_fields(body, _TYPES)
    given = read_input(fields, photos)
    name, version = fields.get("model", ""), fields.get("version", "")
    model = await client.model(name, version)
    answer = await client.classify(
        **given,
        model=name,
        version=version,
        truncate=fields.get("truncate", False),
        top_k=len(model.labels),
        relevance=_read_relevance(fields, model),
    )
    assert answer.relevance is not None  # noqa: S101 -- asked for
    return _describe(answer, answer.relevance)


def _read_relevance(fields: Mapping[str, Any], model: Model) -> RelevanceRequest:
    if not model.can_explain:
        message = f"model: {model.name!r} has no relevance; expected one that does (docs/relevance.md)"
        raise Problem(409, "FAILED_PRECONDITION", message)
    wanted = fields.get("method") or model.relevance_methods[0]
    for method in model.relevance_methods:
        if method == wanted:
            return RelevanceRequest(label=fields.get("label", ""), against=fields.get("against", ""), method=method)
    raise invalid("method", wanted, f"one of {', '.join(model.relevance_methods)}")


def _describe(answer: Classification, why: Relevance) -> dict[str, Any]:
    likely = {label.name: label.probability for label in answer.labels}
    return {
        "label": why.label,
        "against": why.against,
        "method": why.method,
        "score": why.score,
        "relative_error": why.relative_error,
        "values": why.values.tolist(),
        "positions": list(positions_of(why)),
        "names": names(why),
        "headline": headline(why),
        "unplaced": unplaced(why),
        "tokens": why.tokens and [dataclasses.asdict(token) for token in why.tokens],
        "patches": why.patches and dataclasses.asdict(why.patches),
        "probabilities": [likely.get(why.label), likely.get(why.against)],
        "truncated": answer.truncated,
    }
