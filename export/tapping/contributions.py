"""Makes the third graph: how much of each position's new state comes from each other one, the residual included.

Kobayashi et al. 2021, "Incorporating Residual and Normalization Layers into Analysis of Masked Language Models", and
Modarressi et al. 2022, "GlobEnc", equation 5 (N_Res): the length of z_ij = sum_h alpha_h,ij f_h(x_j) + [i = j] x_i.
f_h(x_j) is head h's value vector after its part of the output projection (and a layer scale), x_i what the residual
connection adds. The heads are summed before the length is taken, so that what they cancel does not count.

No vectors z of [Q, K, D] are made: with G_j[h, g] = <f_h(x_j), f_g(x_j)> and c_j[h] = <f_h(x_j), x_j>,
||z_ij||^2 = alpha_ij^T G_j alpha_ij + [i = j] (2 alpha_ij^T c_j + ||x_j||^2), and G_j takes one product with the output
projection for each head. No weight is added: the projection is the graph's own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.tapping.decompose import places_of, repeat_heads
from export.tapping.rule import Found
from export.tapping.tap import Rule, find_attention, sort_nodes
from export.tapping.value_norms import count_heads, find_projection
from export.tapping.view import GraphView, attribute, walk_back

_BETWEEN = frozenset({"Reshape", "Cast", "Identity", "Squeeze", "Flatten", "Dropout"})
# Transpositions that may stand on the way: of [B, H, Q, d] before the projection, of [B, Q, D] anywhere; and whether
# queries then come before rows, as where a network works on [N, B, D].
_TURNS = {(0, 2, 1, 3): False, (2, 0, 1, 3): True, (1, 0, 2): True}
_LEAST_OPSET = 13  # axes as inputs
_STATE_AXES = 3


@dataclass(frozen=True, eq=False)
class _Mixing:
    """What becomes of attended values: the projection's node, what scales its result, and the residual they meet.

    The residual is [B, Q, D], or where it is turned [Q, B, D].
    """

    projection: NodeProto
    scales: tuple[str, ...]
    residual: str
    turned: bool


def tap_contributions(
    plain: ModelProto, folder: Path, rules: tuple[Rule, ...], layers: Collection[int]
) -> tuple[ModelProto, dict[int, str]]:
    """Give a graph the contributions of some layers as further outputs.

    Args:
        plain: It is not changed.
        folder: Where its weights lie, if not in itself.
        rules: Which ways of writing attention to look for.
        layers: Those of self-attention, counted as by tap.

    Returns:
        The graph, and the names of its further outputs, float32 [B, Q, K], by layer; those whose output projection or
        residual connection the graph does not show have none.
    """
    model = ModelProto()
    model.CopyFrom(plain)
    view = GraphView(model, folder)
    outputs = dict[int, str]()
    if view.opset < _LEAST_OPSET:
        return model, outputs
    for layer, found in enumerate(find_attention(view, rules)):
        wanted = layer in layers and found.values and find_projection(view, found.attended) is not None
        mixing = _find_mixing(view, found) if wanted else None
        if mixing is not None and _add_contributions(view, found, mixing, f"contributions.{layer}"):
            outputs[layer] = f"contributions.{layer}"
    for name in outputs.values():
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3))
    sort_nodes(model)
    return model, outputs


def _find_mixing(view: GraphView, found: Found) -> _Mixing | None:
    """Follow attended values through projection, bias and layer scale to the sum with the residual.

    The residual is what the values themselves were made from. Another summand, such as the MLP's output where that runs
    beside attention, belongs to the position alone and is passed by.
    """
    value, projection, scales, turned = found.attended, None, list[str](), False
    upstream = {name for node in walk_back(view, found.values) for name in node.input}
    while (node := view.only_taker(value)) is not None:
        others = [name for name in node.input if name != value]
        constant = len(others) == 1 and view.is_constant(others[0])
        if projection is None and node.op_type in ("MatMul", "Gemm") and node.input[0] == value:
            if not view.is_constant(node.input[1]) or attribute(node, "transA", 0):
                return None
            projection = node
        elif projection is not None and node.op_type == "Add" and len(others) == 1 and not constant:
            if others[0] in upstream:
                fits = view.rank(others[0]) == 3
                return _Mixing(projection, tuple(scales), others[0], turned) if fits else None
        elif projection is not None and node.op_type == "Mul" and constant:
            if not _is_of_features(view, others[0]):
                return None
            scales.append(others[0])
        elif node.op_type == "Transpose":
            turn = tuple(attribute(node, "perm", ()))
            if turn not in _TURNS or (projection is not None and len(turn) > _STATE_AXES):
                return None
            turned ^= _TURNS[turn]
        elif not (node.op_type in _BETWEEN or (projection is not None and node.op_type == "Add" and constant)):
            return None
        value = node.output[0]
    return None


def _is_of_features(view: GraphView, scale: str) -> bool:
    """Whether a scale is a number, or one a feature; of positions, it would meet other axes than here."""
    shape = view.shape(scale)
    return shape is not None and all(axis == 1 for axis in shape[:-1])


def _add_contributions(view: GraphView, found: Found, mixing: _Mixing, output: str) -> bool:
    rows = view.shape(mixing.projection.input[1])
    width = rows[1 if attribute(mixing.projection, "transB", 0) else 0] if rows else None
    sizes = count_heads(view, found, width) if isinstance(width, int) else None
    if sizes is None or view.dtype(found.values) not in (TensorProto.FLOAT, TensorProto.UNDEFINED):
        return False
    vectors = _project(view, found.values, sizes, mixing, output)  # [B, K, H, D]
    weights = view.add("Transpose", [found.weights], f"{output}.weights", perm=[0, 3, 2, 1])  # [B, K, Q, H]
    turned = view.add("Transpose", [vectors], f"{output}.turned", perm=[0, 1, 3, 2])  # [B, K, D, H]
    gram = view.add("MatMul", [vectors, turned], f"{output}.gram")  # [B, K, H, H]
    mixed = view.add("Mul", [view.add("MatMul", [weights, gram], f"{output}.half"), weights], f"{output}.product")
    squares = _sum_last(view, mixed, f"{output}.squares")  # [B, K, Q]
    residual = mixing.residual
    if mixing.turned:
        residual = view.add("Transpose", [residual], f"{output}.residual", perm=[1, 0, 2])
    diagonal = _diagonal(view, residual, vectors, weights, output)  # [B, K, Q]
    total = view.add("Add", [squares, diagonal], f"{output}.total")
    positive = view.add("Relu", [total], f"{output}.positive")  # what rounding took below 0
    root = view.add("Sqrt", [positive], f"{output}.root")
    view.add("Transpose", [root], output, perm=[0, 2, 1])
    return True


def _project(view: GraphView, values: str, sizes: tuple[int, int, int], mixing: _Mixing, output: str) -> str:
    """Return f_h(x_j), [B, K, H, D]: each head's values alone among zeros, times the graph's own projection."""
    key_heads, heads, head_dim = sizes
    by_head = repeat_heads(view, values, key_heads, heads, f"{output}.by_head")  # [B, H, K, d]
    by_key = view.add("Transpose", [by_head], f"{output}.by_key", perm=[0, 2, 1, 3])  # [B, K, H, d]
    lifted = view.unsqueeze(by_key, [2], f"{output}.lifted")  # [B, K, 1, H, d]
    alone = view.add_constant(np.eye(heads, dtype=np.float32)[:, :, None], f"{output}.alone")  # [H, H, 1]
    spread = view.add("Mul", [lifted, alone], f"{output}.spread")  # [B, K, H, H, d]
    node, is_gemm = mixing.projection, mixing.projection.op_type == "Gemm"
    shape = [-1, heads * head_dim] if is_gemm else [0, 0, heads, heads * head_dim]
    rows = view.add("Reshape", [spread, view.add_numbers(shape, f"{output}.rows")], f"{output}.blocks")
    given = {"transB": attribute(node, "transB", 0), "alpha": attribute(node, "alpha", 1.0)} if is_gemm else {}
    vectors = view.add(node.op_type, [rows, node.input[1]], f"{output}.vectors", **given)
    if is_gemm:
        sizes_of_keys = [view.size_of(by_key, axis, f"{output}.axis_{axis}") for axis in (0, 1)]
        rest = view.add_numbers([heads, -1], f"{output}.rest")
        shaped = view.add("Concat", [*sizes_of_keys, rest], f"{output}.shape", axis=0)
        vectors = view.add("Reshape", [vectors, shaped], f"{output}.shaped")
    for index, scale in enumerate(mixing.scales):
        vectors = view.add("Mul", [vectors, scale], f"{output}.scaled_{index}")
    return vectors


def _diagonal(view: GraphView, residual: str, vectors: str, weights: str, output: str) -> str:
    """Return what the residual adds where a position attends to itself, [B, K, Q]; zero elsewhere."""
    column = view.unsqueeze(residual, [-1], f"{output}.column")  # [B, K, D, 1]
    along = view.add("MatMul", [vectors, column], f"{output}.along")  # [B, K, H, 1]
    met = view.add("MatMul", [weights, along], f"{output}.met")  # [B, K, Q, 1]
    cross = view.add("Squeeze", [met, view.add_numbers([-1], f"{output}.last")], f"{output}.cross")  # [B, K, Q]
    two = view.add_constant(np.array(2, dtype=np.float32), f"{output}.two")
    twice = view.add("Mul", [cross, two], f"{output}.twice")
    squared = view.add("Mul", [residual, residual], f"{output}.residual_squares")
    lengths = view.unsqueeze(_sum_last(view, squared, f"{output}.own"), [-1], f"{output}.lengths")  # [B, K, 1]
    both = view.add("Add", [twice, lengths], f"{output}.both")
    places = places_of(view, residual, 1, f"{output}.positions")
    same = view.add("Equal", [places, view.unsqueeze(places, [1], f"{output}.queries")], f"{output}.same")
    eye = view.add("Cast", [same], f"{output}.eye", to=TensorProto.FLOAT)
    return view.add("Mul", [both, eye], f"{output}.diagonal")


def _sum_last(view: GraphView, value: str, output: str) -> str:
    return view.add("ReduceSum", [value, view.add_numbers([-1], f"{output}.sum_axis")], output, keepdims=0)
