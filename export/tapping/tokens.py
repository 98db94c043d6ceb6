"""Tells whether a product with weights scores positions, or makes experts, channels and classes of each.

softmax(x w) over the positions of x, however it is written, is attention with learned queries: each position is
weighed against the others. Over the columns that w makes it is a gate, a router or a classifier. So the axis that a
softmax runs over is followed back to the product: it is one of the computed value's own, or one of the weights'.

Axes are counted from the end, -1 being the last; ANY stands for one that is not known.
"""

from collections.abc import Sequence

import numpy as np

from export.tapping.flow import Flow, Step
from export.tapping.shapes import Shape
from export.tapping.view import attribute

Axes = frozenset[int]
ANY = 0
PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul", "Conv"})
FUSED = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention"})
# What ends a walk: sizes, places and truths, which say of values how they lie or compare, and what has a state.
ENDS = frozenset(
    {"Shape", "Size", "Constant", "ConstantOfShape", "ArgMax", "ArgMin", "NonZero", "IsNaN", "IsInf"}
    | {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "LSTM", "GRU", "RNN"}
)
_RIGHT = {"QLinearMatMul": 3}  # where a product's right side stands, if not second
_REDUCED = 2


def weighed_by(flow: Flow, one: Step) -> int | None:
    """Return which side of a product weights are, 0 or 1; None of a node that is no product with weights alone."""
    sides = _sides(one)
    if len(sides) < _REDUCED or sum(name in flow.constants for name in sides) != 1:
        return None
    side = int(sides[1] in flow.constants)
    if one.op_type == "Mul":  # by elements, which are then summed
        many = any(size != 1 for size in flow.shape(sides[side]) or (None,))
        summed = any(taker.op_type == "ReduceSum" for taker in flow.takers[one.outputs[0]])
        return side if many and summed else None
    return side if one.op_type in PRODUCTS else None


def _sides(one: Step) -> Sequence[str]:
    right = _RIGHT.get(one.op_type, 1)
    return [one.inputs[0], one.inputs[right]] if len(one.inputs) > right else []


def axes_of_weights(flow: Flow, one: Step, side: int) -> Axes:
    """Return the axes of a product's result that come from its weights; those of size 1 are none."""
    shape = flow.shape(_sides(one)[side])
    if one.op_type == "Einsum":
        return _axes_of_term(one, side)
    if shape is None:
        return Axes()
    if one.op_type == "Conv":
        return Axes({1 - len(shape)}) if shape[0] != 1 else Axes()
    if one.op_type == "Mul":
        return _larger(shape, {-1 - place: -1 - place for place in range(len(shape))})
    if len(shape) == 1:
        return Axes()
    turned = bool(attribute(one.node, "transA" if side == 0 else "transB", 0))
    own = -1 if side else -2  # of the result; of the weights it is the one that is not summed over
    stands = own if not turned else -3 - own
    computed = flow.shape(_sides(one)[1 - side])
    if side and computed and len(computed) == 1:
        own = -1
    return _larger(shape, {own: stands} | {-1 - place: -1 - place for place in range(2, len(shape))})


def _larger(shape: Shape, axes: dict[int, int]) -> Axes:
    """Those of a result whose axis in the weights is not of size 1."""
    return Axes(own for own, stands in axes.items() if shape[stands] != 1)


def _axes_of_term(one: Step, side: int) -> Axes:
    """Letters of an Einsum's result, from the end, that the weights have."""
    terms, _, result = attribute(one.node, "equation", b"").decode().replace(" ", "").partition("->")
    letters = terms.split(",")[side]
    result = result or "".join(sorted(letter for letter in set(terms) if terms.count(letter) == 1 and letter.isalpha()))
    ends = result.rpartition("...")[2]
    return Axes(place - len(ends) for place, letter in enumerate(ends) if letter in letters)


def taken_axes(flow: Flow, one: Step, name: str, axes: Axes) -> Axes:
    """Return which axes of an input become some of a node's result; none where the input has no part in these."""
    taken, made = flow.shape(name), flow.shape(one.outputs[0])
    if one.op_type == "Transpose":
        order = list(attribute(one.node, "perm", []))
        return Axes(order[axis] - len(order) if axis and order else ANY for axis in axes)
    if one.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") or _is_reduced(one, taken, made):
        if name != one.inputs[0]:
            return Axes()
        return _reshaped(taken, made, axes) if taken is not None and made is not None else Axes({ANY})
    if one.op_type == "Gather" and name == one.inputs[0]:
        return _gathered(taken, made, int(attribute(one.node, "axis", 0)), axes)
    if taken is None:
        return axes
    # By elements: an input with an axis of size 1, or without it, is the same all along it.
    return Axes(axis for axis in axes if axis == ANY or (-axis <= len(taken) and taken[axis] != 1))


def _is_reduced(one: Step, taken: Shape | None, made: Shape | None) -> bool:
    return one.op_type.startswith("Reduce") and (taken is None or made is None or len(taken) != len(made))


def _reshaped(taken: Shape, made: Shape, axes: Axes) -> Axes:
    """Follow axes through another form: those before and behind what changes stay, others may be any of the rest."""
    shorter = min(len(taken), len(made))
    behind = _same(taken[::-1], made[::-1], shorter)
    before = _same(taken, made, shorter - behind)
    rest = Axes(range(before - len(taken), -behind)) or Axes({ANY})
    found = Axes()
    for axis in axes:
        place = axis + len(made)
        if axis != ANY and place < before:
            found |= {place - len(taken)}
        else:
            found |= {axis} if -behind <= axis < 0 else rest
    return found


def _same(one: Shape, other: Shape, count: int) -> int:
    """How many of the first axes are the same."""
    return int(np.cumprod([a == b for a, b in zip(one[:count], other[:count], strict=True)], dtype=int).sum())


def _gathered(taken: Shape | None, made: Shape | None, axis: int, axes: Axes) -> Axes:
    """Follow axes to what is picked from: one axis becomes as many as the places have."""
    if taken is None or made is None:
        return Axes({ANY})
    axis, found = axis % len(taken), Axes()
    picked = len(made) - len(taken) + 1
    for place in (one + len(made) for one in axes - {ANY}):
        origin = place if place < axis else max(axis, place - picked + 1)
        found |= {origin - len(taken)}
    return found | (axes & {ANY})
