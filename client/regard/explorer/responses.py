"""How an answer travels to the page: a description in JSON, then the numbers as they are.

4 bytes: the length of the JSON, little-endian; the JSON, with spaces up to a multiple of 4; each layer's numbers, row
by row, little-endian, at its offset counted from the end of the JSON (a multiple of 4).
"""

import dataclasses
import json
import struct
from typing import Any

import numpy as np

from regard.answers import Model
from regard.attention import LayerAttention, PatchGrid
from regard.explorer.requests import PageResponse
from regard.sources import can_do
from regard.windows import layer_grid

MEDIA_TYPE = "application/octet-stream"


def encode(response: PageResponse) -> bytes:
    """Write an answer."""
    layers, parts, offset = [], [], 0
    for layer in response.attention.layers:
        numbers = np.ascontiguousarray(layer.weights, layer.weights.dtype.newbyteorder("<")).tobytes()
        numbers += bytes(-len(numbers) % 4)
        layers.append(_describe(layer, offset, response.attention.patches))
        parts.append(numbers)
        offset += len(numbers)
    head = json.dumps({**_about(response), "layers": layers}, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 4)
    return b"".join([struct.pack("<I", len(head)), head, *parts])


def describe_models(model: Model) -> list[dict[str, Any]]:
    """Return what the page needs to know of a model, for JSON; of two towers, of each: they have one name."""
    if model.towers is None:
        return [_describe_model(model)]
    image = {**_describe_model(model.towers.image), "takes_labels": True, "takes_words": model.towers.can_align}
    return [image, _describe_model(model.towers.text)]


def _describe_model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "family": model.family,
        "description": model.description,
        "modality": model.modality,
        "can_show": can_do(model, "attend") or _writer(model) is not None,
        "can_classify": model.can_classify,
        "num_labels": len(model.labels),
        "relevance_methods": model.relevance_methods if model.can_explain else (),
        "embedding_dim": model.embedding_dim if model.can_embed else 0,
        "takes_pairs": model.takes_pairs,
        "writer": _writer(model),
        "takes_labels": False,
        "takes_words": False,
        "layers": [dataclasses.asdict(layer) for layer in model.attention_layers],
        "compared_layers": _compared_layers(model),
        "patches": model.patches and dataclasses.asdict(model.patches),
        "max_tokens": model.max_tokens,
        "device": model.device,
        "precision": model.precision,
    }


def _compared_layers(model: Model) -> list[int]:
    """Say after which layers positions have vectors to compare, over the same grid as its attention."""
    if not (model.can_embed or model.can_classify) or any(
        each.window or each.class_attention for each in model.attention_layers
    ):
        return []
    return [each.layer - 1 for each in model.hidden_state_layers if each.layer > 0]


def _writer(model: Model) -> dict[str, Any] | None:
    """Say how a model writes; None where it does not, or reads no text."""
    generation = model.generation
    if generation is None or model.modality != "text":
        return None
    return {
        "num_layers": generation.num_layers,
        "num_heads": generation.num_heads,
        "max_tokens": generation.max_tokens,
        "starts": generation.starts,
        "default_start": generation.default_start,
    }


def _about(response: PageResponse) -> dict[str, Any]:
    tokens, patches = response.attention.tokens, response.attention.patches
    return {
        "model": response.model,
        "version": response.version,
        "labels": [dataclasses.asdict(label) for label in response.labels],
        "words": response.words,
        "truncated": response.truncated,
        "timings": response.timings and dataclasses.asdict(response.timings),
        "tokens": tokens and [dataclasses.asdict(token) for token in tokens],
        "patches": patches and dataclasses.asdict(patches),
    }


def _describe(layer: LayerAttention, offset: int, patches: PatchGrid | None) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        "kind": layer.kind,
        "measure": layer.measure,
        "axes": layer.axes,
        "heads": layer.heads,
        "covered_layers": layer.covered_layers,
        "window": layer.window and dataclasses.asdict(layer.window),
        "grid": _grid(layer, patches),
        "class_attention": layer.class_attention,
        "shape": layer.weights.shape,
        "dtype": layer.weights.dtype.name,
        "offset": offset,
    }


def _grid(layer: LayerAttention, patches: PatchGrid | None) -> dict[str, Any] | None:
    """Say how the grid of a layer on one of its own lies on the photo, and what the network saw of that."""
    if patches is None or patches.box is None or not (layer.window or layer.class_attention):
        return None
    return {**dataclasses.asdict(layer_grid(layer, patches)), "seen": dataclasses.asdict(patches.box)}
