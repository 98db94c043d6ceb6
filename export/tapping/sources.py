"""Follows queries, keys and values back to what they are made of, so that heads of one layer are told from layers.

Heads see the same positions of the same values. So only what keeps positions is gone through: projections, biases,
another form, a part of the channels or heads; and up to the first projection, which may be a head's own, what is done
element by element (rotary positions, norms). Where anything else is met, such as a part of the positions, a value
comes from there.
"""

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from onnx import NodeProto

from export.tapping.eager_attention import is_weighed_by, scores_of
from export.tapping.rule import Found
from export.tapping.view import GraphView, attribute

_B, _H, _N, _D = "BHND"  # axes: the batch, heads and the like, positions, channels
_INNER = frozenset({_H, _D})
Axes = tuple[str, ...]
Value = tuple[str, Axes]
_OPERANDS: dict[int, Axes] = {3: (_B, _N, _D), 4: (_B, _H, _N, _D)}
_FUSED = frozenset({"Attention", "MultiHeadAttention"})
_PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul"})
_SAME = frozenset({"Identity", "Cast", "Dropout"})
_BIASES = frozenset({"Add", "Sub", "Mul", "Div"})
_BY_ELEMENTS = _BIASES | {"Neg", "Pow", "Sqrt", "Reciprocal"}
_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})


def find_sources(view: GraphView, found: Found) -> tuple[frozenset[Value], ...]:
    """Return what queries, keys and values are made of, each with its axes; nothing of what is learned.

    The queries stand first, the values last. Empty where the graph does not show them.
    """
    return tuple(frozenset(_sources(view, operand)) for operand in _operands(view, found))


def _operands(view: GraphView, found: Found) -> Iterator[Value]:
    """Yield queries, keys and values with their axes; none of these where they are not known."""
    if found.node.op_type in _FUSED:
        yield from ((value, _OPERANDS.get(view.rank(value) or 0, ())) for value in found.node.input[:3])
        return
    weighing = view.producer(found.attended)
    if weighing is None:
        return
    for scores in scores_of(view, found.node):
        yield _operand(view, scores, 0, "transA", turned=False)
        yield _operand(view, scores, 1, "transB", turned=True)
    side = 0 if is_weighed_by(view, weighing.input[1], found.node) else 1
    yield _operand(view, weighing, side, "transB" if side else "transA", turned=not side)


def _operand(view: GraphView, product: NodeProto, side: int, turns: str, *, turned: bool) -> Value:
    value = str(product.input[side])
    axes = _OPERANDS.get(view.rank(value) or 0, ()) if product.op_type in _PRODUCTS else ()
    return value, (*axes[:-2], _D, _N) if axes and turned != bool(attribute(product, turns, 0)) else axes


def _sources(view: GraphView, operand: Value) -> Iterator[Value]:
    waiting, met = [(operand, False)], set[tuple[Value, bool]]()
    while waiting:
        one = waiting.pop()
        (value, axes), projected = one
        if view.is_constant(value) or one in met:
            continue
        met.add(one)
        node = view.producer(value)
        known = node is not None and axes and view.rank(value) == len(axes)
        further = _taken(view, node, axes, projected) if node is not None and known else None
        if further is None:
            if projected or not _is_of_sizes(view, value):
                yield value, axes
        else:
            projects = node is not None and node.op_type in _PRODUCTS
            waiting += [(part, projected or projects) for part in further]


def _is_of_sizes(view: GraphView, value: str) -> bool:
    """Whether a value is made of sizes alone, as the angles of rotary positions are."""
    waiting, met = [value], set[str]()
    while waiting:
        name = waiting.pop()
        if name in met or view.is_constant(name):
            continue
        met.add(name)
        node = view.producer(name)
        if node is None:
            return False
        waiting += [] if node.op_type in ("Shape", "Size") else node.input
    return True


def _taken(view: GraphView, node: NodeProto, axes: Axes, projected: bool) -> Sequence[Value] | None:
    """What a node makes its result of, position by position; None where it does not."""
    value = str(node.input[0]) if node.input else ""
    if node.op_type in _PRODUCTS:
        return _projected(view, node, axes)
    computed = [str(name) for name in node.input if not view.is_constant(name)]
    if node.op_type in _BIASES and len(computed) == 1:
        return _broadcast(view, computed, axes)
    if not projected and node.op_type in _BY_ELEMENTS:
        return _broadcast(view, computed, axes)
    if not projected and node.op_type == "Concat":
        return [(name, axes) for name in computed] if axes[int(attribute(node, "axis", 0))] in _INNER else None
    if not projected and (node.op_type in _NORMS or _is_mean(view, node)):
        return [(value, axes)] if axes[-1] == _D else None
    former = _former(view, node, axes)
    return None if former is None else [(value, former)]


def _projected(view: GraphView, node: NodeProto, axes: Axes) -> Sequence[Value] | None:
    """A product with weights takes what it weighs, whose channels are summed over."""
    turned = attribute(node, "transA", 0) or (attribute(node, "transB", 0) and node.op_type == "FusedMatMul")
    for side, channels in ((0, -1), (1, -2)):
        value = str(node.input[side])
        if view.is_constant(node.input[1 - side]) and axes[channels] == _D and not turned:
            return [(value, axes)] if view.rank(value) == len(axes) else None
    return None


def _broadcast(view: GraphView, values: Sequence[str], axes: Axes) -> Sequence[Value] | None:
    ranks = [view.rank(value) for value in values]
    if any(rank is None or rank > len(axes) for rank in ranks):
        return None
    return [(value, axes[len(axes) - rank :]) for value, rank in zip(values, ranks, strict=True) if rank]


def _is_mean(view: GraphView, node: NodeProto) -> bool:
    """Whether a node takes the mean over the last axis, and keeps the axis."""
    last = (view.rank(node.input[0]) or 0) - 1 if node.input else -1
    return _told_axes(view, node, "ReduceMean") in ([-1], [last]) and bool(attribute(node, "keepdims", 1))


def _former(view: GraphView, node: NodeProto, axes: Axes) -> Axes | None:
    """What axes were before a node gave a value another form, or took a part of its channels or heads."""
    if node.op_type in _SAME:
        return axes
    if node.op_type == "Transpose":
        order = list(attribute(node, "perm", range(len(axes))[::-1]))
        return tuple(axes[order.index(place)] for place in range(len(axes)))
    if node.op_type == "Split":
        return axes if axes[int(attribute(node, "axis", 0))] in _INNER else None
    if node.op_type == "Reshape":
        return _reshaped(view, node, axes)
    if node.op_type == "Gather" and view.is_constant(node.input[1]):
        return _gathered(view.rank(node.input[1]), int(attribute(node, "axis", 0)), axes)
    told = _told_axes(view, node, "Slice", "Squeeze", "Unsqueeze")
    if told is None:
        return None
    if node.op_type == "Slice":
        return axes if all(axes[place] in _INNER for place in told) else None
    if node.op_type == "Squeeze":
        return _with_heads(axes, [place % (len(axes) + len(told)) for place in told])
    places = [place % len(axes) for place in told]
    if any(axes[place] not in _INNER for place in places):  # Unsqueeze
        return None
    return tuple(axis for place, axis in enumerate(axes) if place not in places)


def _told_axes(view: GraphView, node: NodeProto, *op_types: str) -> list[int] | None:
    """Which axes a node of some kind works on; None of others, and where the graph does not tell."""
    if node.op_type not in op_types:
        return None
    place = 3 if node.op_type == "Slice" else 1
    told = view.constant(node.input[place]) if len(node.input) > place else attribute(node, "axes")
    return None if told is None else [int(axis) for axis in np.ravel(told)]


def _with_heads(axes: Axes, places: Sequence[int]) -> Axes:
    """Add axes of which there was one, or one was picked."""
    former = list(axes)
    for place in sorted(places):
        former.insert(place, _H)
    return tuple(former)


def _gathered(picked: int | None, axis: int, axes: Axes) -> Axes | None:
    if picked == 0:
        return _with_heads(axes, [axis % (len(axes) + 1)])
    return axes if picked == 1 and axes[axis] in _INNER else None


def _reshaped(view: GraphView, node: NodeProto, axes: Axes) -> Axes | None:
    """Channels that are split or joined behind positions, which stay what they are."""
    before, behind = view.shape(node.input[0]), view.shape(node.output[0])
    if axes[:2] != (_B, _N) or before is None or behind is None or min(len(before), len(behind)) < 3:
        return None
    sizes = [[size for size in shape[2:] if isinstance(size, int)] for shape in (before, behind)]
    known = all(len(found) == len(shape) - 2 for found, shape in zip(sizes, (before, behind), strict=True))
    if not known or prod(sizes[0]) != prod(sizes[1]):
        return None
    return (_B, _N, *[_H] * (len(before) - 3), _D)
