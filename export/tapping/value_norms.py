"""Adds to a tapped graph how long each position's value vector is after its head's part of the output projection.

Kobayashi et al. 2020, "Attention is Not Only a Weight", section 3: a head adds to its query the vectors alpha f(x) with
f(x) = (x W_V + b_V) W_O, so that a weight counts for as much as alpha ||f(x)||.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from export.tapping.decompose import repeat_heads
from export.tapping.rule import Found
from export.tapping.view import GraphView, attribute

_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze"})
_UNCHANGED = frozenset({"Cast", "Identity", "Dropout"})


def add_value_norms(view: GraphView, found: Found, output: str) -> bool:
    """Compute ||v_k W_h|| for every head h and key k, float32 [B, H, K].

    With W_h^T = Q R (Q orthonormal), it equals ||R v_k||: a product with a matrix of head_dim by head_dim, which lies
    in the graph, instead of one with the whole projection.

    Args:
        view: The tapped graph.
        found: The attention.
        output: Name of the new value.

    Returns:
        Whether it was possible: the graph has to show values by head and a projection by a weight of its own.
    """
    projection = find_projection(view, found.attended)
    sizes = None if projection is None else count_heads(view, found, projection.shape[0])
    if projection is None or sizes is None:
        return False
    key_heads, heads, head_dim = sizes
    values = view.add("Cast", [found.values], f"{output}.values", to=TensorProto.FLOAT)
    values = repeat_heads(view, values, key_heads, heads, f"{output}.by_head")  # [B, H, K, d]
    factors = view.add_constant(_triangular(projection, head_dim), f"{output}.factors")
    _reduce_last(view, view.add("MatMul", [values, factors], f"{output}.projected"), output)
    return True


def count_heads(view: GraphView, found: Found, width: int) -> tuple[int, int, int] | None:
    """Tell heads of keys, heads of queries, and a head's width; None where the graph does not."""
    shape, (_, weighing, _, _) = view.shape(found.values), view.shape(found.weights) or (None,) * 4
    if shape is None or len(shape) != 4:
        return None
    key_heads, head_dim = shape[1], shape[3]
    heads = width // head_dim if isinstance(head_dim, int) else weighing
    if isinstance(heads, int) and not isinstance(head_dim, int):
        head_dim = width // heads
    if not isinstance(heads, int) or not isinstance(head_dim, int) or heads * head_dim != width:
        return None
    if isinstance(weighing, int) and weighing != heads:
        return None
    if not isinstance(key_heads, int) and found.node.op_type == "Softmax":
        key_heads = heads  # a plain product takes as many as there are weights, or one for all, as the next one does
    return (key_heads, heads, head_dim) if isinstance(key_heads, int) and heads % key_heads == 0 else None


def find_projection(view: GraphView, attended: str) -> NDArray[np.float32] | None:
    """Follow attended values to the matrix they are multiplied with.

    Returns:
        float32 [H * head_dim, D], its rows in the order of the heads; None where it is no weight, or where the values
        go another way: changed, in another order, to more than one place.
    """
    rank, value = view.rank(attended), attended
    if rank not in (3, 4):
        return None
    order = list(range(4)) if rank == 4 else []  # of the axes, while heads have one of their own
    while (node := view.only_taker(value)) is not None and node.input[0] == value:
        if node.op_type in ("MatMul", "Gemm"):
            return None if order else _weight_of(view, node)
        if node.op_type == "Transpose":
            turn = list(attribute(node, "perm", []))
            if turn[-1:] != [len(turn) - 1]:
                return None
            order = [order[axis] for axis in turn] if order else []
        elif node.op_type in _RESHAPES:
            if order and order[-2:] != [1, 3]:
                return None
            order = []
        elif node.op_type not in _UNCHANGED:
            return None
        value = node.output[0]
    return None


def _weight_of(view: GraphView, node: NodeProto) -> NDArray[np.float32] | None:
    weight = view.constant(node.input[1])
    if weight is None or weight.ndim != 2 or weight.dtype.kind != "f" or attribute(node, "transA", 0):
        return None
    turned = weight.T if attribute(node, "transB", 0) else weight
    return np.asarray(turned, dtype=np.float32) * np.float32(attribute(node, "alpha", 1.0))


def _triangular(projection: NDArray[Any], head_dim: int) -> NDArray[np.float32]:
    """Return R^T of the QR decomposition of each head's W_h^T; float32 [H, d, d or D, the smaller]."""
    heads = projection.astype(np.float64).reshape(-1, head_dim, projection.shape[1])  # [H, d, D]
    triangles = [np.asarray(np.linalg.qr(head.T, mode="r")) for head in heads]  # [min(d, D), d]
    return np.stack([triangle.T for triangle in triangles]).astype(np.float32)


def _reduce_last(view: GraphView, value: str, output: str) -> str:
    if view.opset >= 18:
        return view.add("ReduceL2", [value, view.add_numbers([-1], f"{output}.axis")], output, keepdims=0)
    return view.add("ReduceL2", [value], output, axes=[-1], keepdims=0)
