"""Relevance in the messages of regard.v1: what is to be explained, and what is sent."""

from collections.abc import Iterable, Sequence

import numpy as np

from artifact.contract import RelevanceMethod
from artifact.text import Tokens
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.describe import METHODS, describe_input
from server.api.regard_v1.tensors import write_tensor
from server.errors import InvalidInput
from server.inference.request import InferenceResponse, PreparedInput
from server.relevance.plan import RelevancePlan
from server.relevance.reduce import Relevance
from server.relevance.request import RelevanceRequest
from server.repository.loading import LoadedModel

_NAMES: dict[int, RelevanceMethod] = {number: name for name, number in METHODS.items()}


def read_relevance(message: pb.RelevanceRequest) -> RelevanceRequest:
    """Read what is to be explained.

    Raises:
        InvalidInput: There is no such method.
    """
    if message.method not in _NAMES:
        raise InvalidInput("relevance.method", message.method, "one of the values of RelevanceMethod")
    return RelevanceRequest(
        message.label,
        message.against,
        message.drop_special,
        _NAMES[message.method],
        message.steps,
        tuple(message.labels),
        message.top,
        message.by_layer,
    )


def write_relevance(plan: RelevancePlan, found: InferenceResponse) -> Iterable[pb.Relevance]:
    """Yield why the only row of an answer has each score."""
    (reasons,) = found.relevance()
    for why in reasons:
        message = write_reason(why, found.prepared, found.model, plan.positions)
        labels = found.model.contract.labels
        message.index, message.label = why.label, labels[why.label]
        message.against = "" if why.against is None else labels[why.against]
        yield message


def write_reason(
    why: Relevance, prepared: PreparedInput, model: LoadedModel, positions: Sequence[int] | None
) -> pb.Relevance:
    """Write all but the label.

    Args:
        why: What is written.
        prepared: The input that it is of.
        model: What read that.
        positions: Which are sent; None for all.
    """
    message = pb.Relevance(**describe_input(prepared, model), method=METHODS[why.method])
    message.score, message.unsent, message.rest = why.score, why.unsent, why.rest
    if complete := why.completeness:
        message.error, message.relative_error = complete.error, complete.relative_error
        if complete.baseline is not None:
            message.baseline = complete.baseline
    write_tensor(np.ascontiguousarray(why.values), message.values)
    if layers := why.by_layer:
        write_tensor(layers.values, message.by_layer.values)
        message.by_layer.unsent.extend(layers.unsent)
        message.by_layer.added.extend(layers.added)
        message.by_layer.relative_error.extend(layers.relative_errors)
    message.positions.extend(positions or ())
    if isinstance(source := prepared.source, Tokens):
        words = _number_words(source)
        message.words.extend(words if positions is None else [words[place] for place in positions])
    return message


def _number_words(tokens: Tokens) -> list[int]:
    """Number the words of both texts of a pair as one; -1 for no word."""
    parts = tokens.parts or [0] * len(tokens.words)
    pairs = list(zip(parts, tokens.words, strict=True))
    before = max((word + 1 for part, word in pairs if word is not None and not part), default=0)
    return [-1 if word is None else word + (before if part else 0) for part, word in pairs]
