"""Follows scores and weights through linear maps over the heads, which stand before and behind a softmax.

Shazeer et al. 2020, "Talking-Heads Attention". A map makes a value [B, H, Q, K] of another: by a product with a matrix
while the heads stand last, by a convolution of 1 by 1 while they stand second, or by an Einsum. What is added, or
multiplied, is one number a head. So each of the new heads is a weighed sum of the old ones, at the same query and key.
"""

from collections.abc import Iterator

from onnx import NodeProto

from export.tapping.view import GraphView, attribute

Before = tuple[str, str, bool]  # a value, its axes, and whether the node behind it sums over heads
_AXES = "BHQK"
_HEADS = "H"
_SAME = frozenset({"Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"})
_BY_ELEMENTS = frozenset({"Add", "Sub", "Mul", "Div"})
_FORMS = frozenset({"Transpose", "MatMul", "Conv", "Einsum", "BatchNormalization", *_SAME, *_BY_ELEMENTS})


def mixed_of(view: GraphView, value: str) -> str | None:
    """Return what a map over the heads makes a value of, both [B, H, Q, K]; None of what no such map makes."""
    axes, mixed = _AXES, False
    while (node := view.producer(value)) is not None:
        before = _before(view, node, axes)
        if before is None:
            return None
        value, axes, sums = before
        mixed = mixed or sums
        if mixed and axes == _AXES:
            return value
    return None


def mixes_of(view: GraphView, value: str) -> Iterator[str]:
    """Yield the values that a map over the heads makes of one."""
    waiting, met = [value], {value}
    while waiting:
        for node in view.consumers(waiting.pop()):
            if node.op_type in _FORMS and (made := str(node.output[0])) not in met:
                met.add(made)
                waiting.append(made)
                if mixed_of(view, made) == value:
                    yield made


def walk_back_mixed(view: GraphView, value: str, through: frozenset[str]) -> Iterator[NodeProto]:
    """Yield the nodes a value is made from, as walk_back does, going on through maps over the heads as well."""
    waiting, seen = [value], set[str]()
    while waiting:
        name = waiting.pop(0)
        node = view.producer(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        yield node
        if node.op_type in through:
            waiting += node.input
        if (before := mixed_of(view, name)) is not None:
            waiting.append(before)


def _before(view: GraphView, node: NodeProto, axes: str) -> Before | None:
    """What a node makes its result of, whose axes are given; None where it is no part of a map over the heads."""
    value = str(node.input[0]) if node.input else ""
    rest = [str(name) for name in node.input[1:]]
    if node.op_type in _SAME:
        return value, axes, False
    if node.op_type == "Transpose":
        order = list(attribute(node, "perm", []))
        return (value, "".join(axes[order.index(place)] for place in range(4)), False) if len(order) == 4 else None
    if node.op_type in _BY_ELEMENTS:
        return _by_elements(view, node, axes)
    if node.op_type == "Einsum":
        return _summed(view, node, axes)
    if view.is_constant(value) or not all(map(view.is_constant, rest)):
        return None
    if node.op_type == "MatMul":
        return (value, axes, True) if axes[-1] == _HEADS and view.rank(rest[0]) == 2 else None
    if node.op_type == "Conv" and axes[1] == _HEADS and _is_pointwise(view, node):
        return value, axes, True
    if node.op_type == "BatchNormalization" and axes[1] == _HEADS and not attribute(node, "training_mode", 0):
        return value, axes, False
    return None


def _by_elements(view: GraphView, node: NodeProto, axes: str) -> Before | None:
    """One number a head, or one for all, is added or multiplied."""
    computed = [str(name) for name in node.input if not view.is_constant(name)]
    if len(computed) != 1 or (node.op_type == "Div" and node.input[0] != computed[0]):
        return None
    shape = view.shape(next(name for name in node.input if name != computed[0]))
    if shape is None or len(shape) > len(axes):
        return None
    others = zip(shape, axes[len(axes) - len(shape) :], strict=True)
    return (computed[0], axes, False) if all(size == 1 or axis == _HEADS for size, axis in others) else None


def _is_pointwise(view: GraphView, node: NodeProto) -> bool:
    """Whether a convolution sums over all heads at each query and key, and at no other."""
    kernel = view.shape(node.input[1])
    moved = [*attribute(node, "strides", []), *(1 + pad for pad in attribute(node, "pads", []))]
    whole = attribute(node, "group", 1) == 1 and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    return kernel is not None and kernel[2:] == (1, 1) and whole and all(step == 1 for step in moved)


def _summed(view: GraphView, node: NodeProto, axes: str) -> Before | None:
    """An Einsum with a matrix, which puts another letter for that of the heads."""
    terms, _, result = attribute(node, "equation", b"").decode().replace(" ", "").partition("->")
    sides = list(zip(terms.split(","), map(str, node.input), strict=False))
    weights = [term for term, name in sides if view.is_constant(name)]
    computed = [(term, name) for term, name in sides if not view.is_constant(name)]
    if len(weights) != 1 or len(computed) != 1 or len(set(result)) != len(axes):
        return None
    (term, value), new = computed[0], result[axes.index(_HEADS)]
    summed = set(weights[0]) - {new}
    if len(weights[0]) != 2 or len(summed) != 1 or {*result, *summed} - {new} != set(term) or len(term) != len(axes):
        return None
    named = dict(zip(result, axes, strict=True)) | dict.fromkeys(summed, _HEADS)
    return value, "".join(named[letter] for letter in term), True
