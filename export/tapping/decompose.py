"""Writes attention out as MatMul, scale, mask, Softmax, MatMul; for nodes that cannot give their weights.

softmax(Q K^T / sqrt(d) + mask) V: Vaswani et al. 2017, equation 1. The operators used mean the same from opset 11 on.
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from export.tapping.view import GraphView


@dataclass(frozen=True)
class Heads:
    """Inputs of one attention, split by head.

    Attributes:
        query: [B, H, Q, d].
        key: [B, H or fewer, K, d]; each serves as many query heads.
        value: [B, H or fewer, K, d].
        scale: What scores are multiplied by; None for 1 / sqrt(d).
        masks: Added to the scores where float, kept where true where bool; each broadcastable to [B, H, Q, K].
        causal: Whether a query attends to keys up to its own position only.
        zero_rows: Whether rows that see no key are zeros, as in ONNX Runtime's Attention, instead of even; there are
            none where nothing hides keys.
    """

    query: str
    key: str
    value: str
    scale: float | None = None
    masks: tuple[str, ...] = ()
    causal: bool = False
    zero_rows: bool = False


def write_weights(view: GraphView, heads: Heads, name: str) -> str:
    """Add the nodes that compute the weights [B, H, Q, K]; returns their value."""
    dtype = view.dtype(heads.query) or TensorProto.FLOAT
    key = _repeat(view, heads.key, heads.query, f"{name}.key")
    turned = view.add("Transpose", [key], f"{name}.turned", perm=[0, 1, 3, 2])  # [B, H, d, K]
    scaled = view.add("Mul", [heads.query, _scale(view, heads, dtype, name)], f"{name}.scaled")
    scores = view.add("MatMul", [scaled, turned], f"{name}.scores")  # [B, H, Q, K]
    may_be_empty = heads.zero_rows and (heads.causal or bool(heads.masks))
    hides = heads.causal or may_be_empty or any(view.dtype(mask) == TensorProto.BOOL for mask in heads.masks)
    lowest = _constant(view, _lowest(dtype), dtype, f"{name}.lowest") if hides else ""
    for index, mask in enumerate(heads.masks):
        if view.dtype(mask) == TensorProto.BOOL:
            scores = view.add("Where", [mask, scores, lowest], f"{name}.masked_{index}")
        else:
            scores = view.add("Add", [scores, mask], f"{name}.masked_{index}")
    if heads.causal:
        scores = view.add("Where", [_later(view, heads.query, key, name), lowest, scores], f"{name}.causal")
    weights = view.add("Softmax", [scores], f"{name}.softmax", axis=-1)
    if may_be_empty:
        seen = view.add("Greater", [scores, lowest], f"{name}.seen")
        weights = view.add("Where", [seen, weights, _constant(view, 0, dtype, f"{name}.nothing")], f"{name}.weights")
    shape = (*(view.shape(heads.query) or (None,) * 4)[:3], (view.shape(heads.key) or (None,) * 4)[2])
    return view.describe(weights, shape, dtype)


def write_attended(view: GraphView, heads: Heads, weights: str, output: str) -> str:
    """Add the product of weights and values, [B, H, Q, d]."""
    return view.add("MatMul", [weights, _repeat(view, heads.value, heads.query, f"{output}.value")], output)


def split_heads(view: GraphView, value: str, heads: int, name: str) -> str:
    """Turn [B, N, H * d] into [B, H, N, d]."""
    axes = view.add_numbers([0, 0, heads, -1], f"{name}.axes")
    split = view.add("Reshape", [value, axes], f"{name}.split")  # [B, N, H, d]
    batch, length, width = view.shape(value) or (None, None, None)
    head_dim = width // heads if isinstance(width, int) else None
    turned = view.add("Transpose", [split], name, perm=[0, 2, 1, 3])
    return view.describe(turned, (batch, heads, length, head_dim), view.dtype(value))


def repeat_heads(view: GraphView, value: str, own: int, wanted: int, name: str) -> str:
    """Let each key or value head of [B, heads, ...] serve its group of query heads (grouped-query attention).

    Ainslie et al. 2023, "GQA". A single head serves all by itself, as products spread it.
    """
    if own in (1, wanted):
        return value
    return view.add(
        "Gather", [value, view.add_numbers(np.repeat(np.arange(own), wanted // own), f"{name}.places")], name, axis=1
    )


def merge_heads(view: GraphView, value: str, output: str) -> str:
    """Turn [B, H, N, d] into [B, N, H * d]."""
    turned = view.add("Transpose", [value], f"{output}.turned", perm=[0, 2, 1, 3])
    axes = view.add_numbers([0, 0, -1], f"{output}.merged")
    return view.add("Reshape", [turned, axes], output)


def places_of(view: GraphView, value: str, axis: int, name: str) -> str:
    """Add the numbers of an axis's positions, int64 [N]; inference takes no Range whose size it knows itself."""
    known = (view.shape(value) or (None,) * (axis + 1))[axis]
    if isinstance(known, int):
        return view.add_numbers(range(known), name)
    size = view.add("Squeeze", [view.size_of(value, axis, f"{name}.size")], f"{name}.count")
    zero, one = (view.add_constant(np.array(n, dtype=np.int64), f"{name}.{n}") for n in (0, 1))
    return view.add("Range", [zero, size, one], name)


def _scale(view: GraphView, heads: Heads, dtype: int, name: str) -> str:
    """Return the scale as a value of the query's type; it is computed from d where d is not known."""
    head_dim = (view.shape(heads.query) or (None,) * 4)[3]
    if heads.scale is not None or isinstance(head_dim, int):
        scale = heads.scale if heads.scale is not None else head_dim**-0.5  # type: ignore[operator]
        return _constant(view, scale, dtype, f"{name}.scale")
    number = view.add("Cast", [view.size_of(heads.query, 3, f"{name}.head_dim")], f"{name}.d", to=TensorProto.FLOAT)
    inverse = view.add("Reciprocal", [view.add("Sqrt", [number], f"{name}.root")], f"{name}.inverse")
    return view.add("Cast", [inverse], f"{name}.scale", to=dtype)


def _lowest(dtype: int) -> float:
    return float(ml_dtypes.finfo(helper.tensor_dtype_to_np_dtype(dtype)).min)  # type: ignore[no-untyped-call]


def _constant(view: GraphView, number: float, dtype: int, name: str) -> str:
    return view.add_constant(np.array(number, dtype=helper.tensor_dtype_to_np_dtype(dtype)), name)


def _repeat(view: GraphView, value: str, query: str, name: str) -> str:
    own, wanted = ((view.shape(one) or (None,) * 4)[1] for one in (value, query))
    return repeat_heads(view, value, own, wanted, name) if isinstance(own, int) and isinstance(wanted, int) else value


def _later(view: GraphView, query: str, key: str, name: str) -> str:
    """True where a key is behind its query, [Q, K]."""
    queries, keys = places_of(view, query, 2, f"{name}.queries"), places_of(view, key, 2, f"{name}.keys")
    column = view.add_numbers([-1, 1], f"{name}.column")
    return view.add("Greater", [keys, view.add("Reshape", [queries, column], f"{name}.rows")], f"{name}.later")
