"""The fake server's attention: made-up weights, chosen and reduced as the real server does, for layers of 3 heads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.v1 import types_pb2 as pb

NUM_LAYERS, NUM_HEADS = 12, 3
_ROLLOUT, _ENTROPY, _DISTANCE = (
    pb.ATTENTION_MEASURE_ROLLOUT,
    pb.ATTENTION_MEASURE_ENTROPY,
    pb.ATTENTION_MEASURE_DISTANCE,
)
_REDUCTIONS: dict[int, Any] = {
    pb.HEAD_REDUCTION_MEAN: np.mean,
    pb.HEAD_REDUCTION_MAX: np.max,
    pb.HEAD_REDUCTION_MIN: np.min,
}


def float_tensor(array: NDArray[Any], dtype: int = pb.DATA_TYPE_FLOAT32) -> pb.Tensor:
    """Write weights as float32 (float16 if asked) the way a server does."""
    half = dtype == pb.DATA_TYPE_FLOAT16
    return pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT16 if half else pb.DATA_TYPE_FLOAT32,
        shape=array.shape,
        data=array.astype("<f2" if half else "<f4").tobytes(),
    )


def weights(num_queries: int, num_keys: int) -> NDArray[np.float32]:
    """Return attention [NUM_HEADS, Q, K], all different, whose rows sum to 1."""
    raw = 1 + np.arange(NUM_HEADS * num_queries * num_keys, dtype=np.float32).reshape(NUM_HEADS, num_queries, num_keys)
    shares: NDArray[np.float32] = raw / raw.sum(-1, keepdims=True)
    return shares


def attend(wanted: pb.AttentionRequest, length: int, special: Sequence[int]) -> list[pb.LayerAttention]:
    """Answer an attention request about so many positions; all layers look alike."""
    layers = [layer % NUM_LAYERS for layer in wanted.layers] or list(range(NUM_LAYERS))
    if wanted.measure == _ROLLOUT:
        return [_layer(wanted, layers[-1], length, special, covered=layers)]
    return [_layer(wanted, layer, length, special) for layer in layers]


def _layer(
    wanted: pb.AttentionRequest, number: int, length: int, special: Sequence[int], covered: Sequence[int] = ()
) -> pb.LayerAttention:
    heads = list(wanted.heads) or list(range(NUM_HEADS))
    ordinary = [position for position in range(length) if position not in special]
    queries = [0] if wanted.cls_only else list(wanted.rows) or list(range(length))
    queries, keys = (ordinary, ordinary) if wanted.drop_special else (queries, list(wanted.keys))
    chosen = weights(length, length)[heads][:, queries][:, :, keys or slice(None)]
    if wanted.renormalize:
        chosen = chosen / chosen.sum(-1, keepdims=True)
    message = pb.LayerAttention(
        layer=number,
        kind=pb.ATTENTION_KIND_SELF,
        heads=heads,
        queries=queries,
        keys=keys,
        measure=wanted.measure,
        covered_layers=covered,
    )
    _fill(message, wanted, chosen)
    return message


def _fill(message: pb.LayerAttention, wanted: pb.AttentionRequest, chosen: NDArray[np.float32]) -> None:
    """Measure, reduce, and keep the largest."""
    values, axes = _measure(wanted, message, chosen)
    if wanted.measure == _ROLLOUT or wanted.head_reduction in _REDUCTIONS:
        values = _REDUCTIONS.get(wanted.head_reduction, np.mean)(values, axis=0)
        axes = axes[1:]
    if wanted.top_k and axes[-1:] == ["key"]:
        places = np.argsort(-values, axis=-1)[..., : wanted.top_k]
        values = np.take_along_axis(values, places, axis=-1)
        indices = np.asarray(message.keys or range(chosen.shape[-1]), dtype="<i4")[places]
        message.indices.CopyFrom(pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=indices.shape, data=indices.tobytes()))
        axes[-1] = "top"
    message.axes.extend(axes)
    message.weights.CopyFrom(float_tensor(values, wanted.dtype))


def _measure(
    wanted: pb.AttentionRequest, message: pb.LayerAttention, chosen: NDArray[np.float32]
) -> tuple[NDArray[Any], list[str]]:
    if wanted.measure == _ENTROPY:
        return -(chosen * np.log(chosen)).sum(-1), ["head", "query"]
    if wanted.measure == _DISTANCE:
        return 10.0 * message.layer + np.asarray(message.heads), ["head"]
    return chosen, ["head", "query", "key"]
