"""Rule: linear maps over the heads stand before or behind the softmax; the weights are what multiplies the values.

Shazeer et al. 2020, "Talking-Heads Attention". A map sums heads at the same query and key: by a product with a matrix
while the heads stand last, by a convolution of 1 by 1 while they stand second, or by an Einsum. What is added, or
multiplied, is one number a head. Axes are followed, since optimizers leave them turned between the maps: the softmax
has to run over the keys, wherever these stand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnx import NodeProto

from export.tapping.eager_attention import is_taken, refuse_channels
from export.tapping.other_weights import origin
from export.tapping.rule import Found
from export.tapping.view import GraphView, attribute

_AXES, _HEADS, _KEYS = "BHQK", "H", "K"
_ONE_AXIS = 13  # from this opset on a softmax runs over one axis, before over all from one on
_PRODUCTS = frozenset({"MatMul", "FusedMatMul"})
_MASKS = frozenset({"Add", "Sub", "Mul", "Div", "Where", "Clip", "Max", "Min", "Tanh"})
_SAME = frozenset({"Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"})
_BY_ELEMENTS = frozenset({"Add", "Sub", "Mul", "Div"})


@dataclass(frozen=True)
class _Place:
    """A value met on a walk back, its axes, and whether heads are summed between it and where the walk began."""

    value: str
    axes: str
    mixed: bool = False


def tap_talking_heads(view: GraphView) -> Iterator[Found]:
    """Find every softmax between two products with a map over the heads before it or behind it.

    What multiplies several values is found once, and not where the rule for eager attention takes it.
    """
    met = set[str]()
    for product in view.model.graph.node:
        if product.op_type not in _PRODUCTS or any(map(view.is_constant, product.input[:2])):
            continue
        weights = str(product.input[0])
        softmax = _softmax_of(view, weights) if view.rank(weights) == len(_AXES) and not _is_turned(product) else None
        if softmax is None:
            continue
        node, behind = softmax
        before = _scores_of(view, replace(behind, value=str(node.input[0]), mixed=False))
        if before is None or not (behind.mixed or (before.mixed and not is_taken(view, node))):
            continue
        refuse_channels(view, node, product)
        if (made_of := origin(view, weights)) not in met:
            met.add(made_of)
            values = str(product.input[1]) if product.op_type == "MatMul" else ""
            yield Found(node, weights, values, str(product.output[0]), behind.mixed)


def _softmax_of(view: GraphView, weights: str) -> tuple[NodeProto, _Place] | None:
    """Follow weights back to the softmax over the keys that they are made of, by way of maps over the heads alone.

    What is added or multiplied without a map is none: rows would sum to another number than 1 in heads as they were.
    """
    place, changed = _Place(weights, _AXES), False
    while (node := view.producer(place.value)) is not None:
        if node.op_type == "Softmax":
            over_keys = _runs_over(view, node) == place.axes.index(_KEYS)
            return (node, place) if over_keys and (place.mixed or not changed) else None
        before = _before(view, node, place)
        if before is None:
            return None
        place, changed = before, changed or node.op_type not in _SAME | {"Transpose"}
    return None


def _scores_of(view: GraphView, scaled: _Place) -> _Place | None:
    """Follow what a softmax normalises back to the product of queries and keys, by way of scaling, masks and maps."""
    waiting, met = [scaled], {scaled}
    while waiting:
        place = waiting.pop()
        node = view.producer(place.value)
        if node is None or view.rank(place.value) != len(_AXES):
            continue
        if node.op_type in _PRODUCTS and place.axes == _AXES and not any(map(view.is_constant, node.input[:2])):
            return place
        further = [replace(place, value=str(name)) for name in node.input] if node.op_type in _MASKS else []
        further += [before] if (before := _before(view, node, place)) is not None else []
        waiting += [one for one in further if one not in met]
        met.update(further)
    return None


def _runs_over(view: GraphView, softmax: NodeProto) -> int | None:
    """Which of four axes a softmax normalises; before opset 13 only the last is one axis."""
    axis = int(attribute(softmax, "axis", -1 if view.opset >= _ONE_AXIS else 1)) % len(_AXES)
    return axis if view.opset >= _ONE_AXIS or axis == len(_AXES) - 1 else None


def _is_turned(product: NodeProto) -> bool:
    return any(attribute(product, f"trans{name}", 0) for name in ("A", "BatchA"))


def _before(view: GraphView, node: NodeProto, place: _Place) -> _Place | None:
    """What a node makes a value of; None where the node is no part of a map over the heads."""
    value, axes = str(node.input[0]) if node.input else "", place.axes
    rest = [str(name) for name in node.input[1:]]
    if node.op_type in _SAME:
        return replace(place, value=value)
    if node.op_type == "Transpose":
        order = list(attribute(node, "perm", []))
        turned = len(order) == len(axes)
        return _Place(value, "".join(axes[order.index(at)] for at in range(4)), place.mixed) if turned else None
    if node.op_type in _BY_ELEMENTS:
        return _by_elements(view, node, place)
    if node.op_type == "Einsum":
        return _summed(view, node, axes)
    if view.is_constant(value) or not all(map(view.is_constant, rest)):
        return None
    if node.op_type == "MatMul":
        return _Place(value, axes, mixed=True) if axes[-1] == _HEADS and view.rank(rest[0]) == 2 else None
    if node.op_type == "Conv" and axes[1] == _HEADS and _is_pointwise(view, node):
        return _Place(value, axes, mixed=True)
    if node.op_type == "BatchNormalization" and axes[1] == _HEADS and not attribute(node, "training_mode", 0):
        return replace(place, value=value)
    return None


def _by_elements(view: GraphView, node: NodeProto, place: _Place) -> _Place | None:
    """One number a head, or one for all, is added or multiplied."""
    computed = [str(name) for name in node.input if not view.is_constant(name)]
    if len(computed) != 1 or (node.op_type == "Div" and node.input[0] != computed[0]):
        return None
    shape = view.shape(next(name for name in node.input if name != computed[0]))
    if shape is None or len(shape) > len(place.axes):
        return None
    others = zip(shape, place.axes[len(place.axes) - len(shape) :], strict=True)
    of_heads = all(size == 1 or axis == _HEADS for size, axis in others)
    return replace(place, value=computed[0]) if of_heads else None


def _is_pointwise(view: GraphView, node: NodeProto) -> bool:
    """Whether a convolution sums over all heads at each query and key, and at no other."""
    kernel = view.shape(node.input[1])
    moved = [*attribute(node, "strides", []), *(1 + pad for pad in attribute(node, "pads", []))]
    whole = attribute(node, "group", 1) == 1 and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    return kernel is not None and kernel[2:] == (1, 1) and whole and all(step == 1 for step in moved)


def _summed(view: GraphView, node: NodeProto, axes: str) -> _Place | None:
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
    return _Place(value, "".join(named[letter] for letter in term), mixed=True)
