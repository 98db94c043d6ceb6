"""What a file of results says of each input: names and texts, numbers, arrays."""

from typing import Any

import numpy as np

from regard.answers import Classification, Embedding
from regard.attention import Attention
from regard.errors import RegardError
from regard.relevance import Relevance
from regard.sources import Source

Record = dict[str, Any]
"""By column: text, whole number, truth value, list of texts, array, or None where there is none."""


def record_of(source: Source, answer: Embedding | Classification | Attention | RegardError) -> Record:
    """Return what is written of an input: its name, source and line where it is one of a file, error, answer."""
    record: Record = {"input": source.name}
    if source.number:
        record |= {"source": source.file, "line": source.number}
    if isinstance(answer, RegardError):
        return record | {"error": str(answer)}
    record |= {"error": None, "truncated": answer.truncated}
    if isinstance(answer, Embedding):
        return record | _vector(answer)
    if isinstance(answer, Classification):
        probabilities = np.array([label.probability for label in answer.labels], np.float32)
        record |= {"labels": [label.name for label in answer.labels], "probabilities": probabilities}
        return record | (_relevance(answer.relevance) if answer.relevance else {})
    return record | _attention(answer)


def _vector(answer: Embedding) -> Record:
    if answer.sparse is not None:
        return {"indices": answer.sparse.indices, "weights": answer.sparse.values, "terms": list(answer.sparse.terms)}
    if answer.tokens is not None:
        return {"tokens": [token.text for token in answer.tokens], "vectors": answer.vector}
    scale = {"scale": answer.scale} if answer.vector.dtype == np.int8 else {}
    return {"vector": answer.vector, **scale}


def _attention(answer: Attention) -> Record:
    """Return an array for each layer, named by its measure and number, with axes as the request leaves them."""
    found = _positions(answer)
    for layer in answer.layers:
        found[f"{layer.measure}.{layer.layer}"] = layer.weights
        if layer.indices is not None:
            found[f"keys.{layer.layer}"] = layer.indices
    return found


def _relevance(why: Relevance) -> Record:
    """Return what is explained, a number for each position, and what it adds up to."""
    layers = (
        {"by_layer": why.by_layer.values, "added": np.array(why.by_layer.added, np.float32)} if why.by_layer else {}
    )
    return (
        _positions(why)
        | layers
        | {
            "why": why.label,
            "method": why.method,
            "against": why.against,
            "score": why.score,
            "relevance": why.values,
            "rest": why.rest,
            "relative_error": why.relative_error,
        }
    )


def _positions(answer: Attention | Relevance) -> Record:
    """Return what positions stand for: tokens, or prefix tokens, rows and columns of patches."""
    found: Record = {}
    if answer.tokens is not None:
        found["tokens"] = [token.text for token in answer.tokens]
    if answer.patches is not None:
        grid = answer.patches
        found["patches"] = np.array([grid.prefix_tokens, grid.rows, grid.cols], np.int32)
    return found
