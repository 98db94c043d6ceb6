"""Sums, means, lengths and maxima over axes: y = sum(x): g spread again; mean: g / n; the length |x|: g x / |x|.

max(x): g at the largest number, or an equal share of it at each of several. Softmax is written with it where numbers
are made smaller first (Ding et al. 2021, "CogView", section 2.4).
"""

from collections.abc import Sequence

from onnx import NodeProto

from export.relevance.reverse import Reverse
from export.tapping.view import attribute, optional_input


def _reduce_sum(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value = node.input[0]
    reverse.give(value, reverse.add("Expand", [_kept(reverse, node, given[0]), reverse.add("Shape", [value])]))


def _reduce_mean(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, output = node.input[0], node.output[0]
    counts = [
        reverse.add("Cast", [reverse.add("Size", [one])], to=reverse.view.dtype(value)) for one in (output, value)
    ]
    share = reverse.add("Div", counts)
    spread = reverse.add("Expand", [_kept(reverse, node, given[0]), reverse.add("Shape", [value])])
    reverse.give(value, reverse.add("Mul", [spread, share]))


def _reduce_l2(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, length = node.input[0], _kept(reverse, node, node.output[0])
    scaled = reverse.add("Div", [_kept(reverse, node, given[0]), length])
    reverse.give(value, reverse.add("Mul", [value, scaled]))


def _reduce_max(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, largest = node.input[0], _kept(reverse, node, node.output[0])
    here = reverse.add("Cast", [reverse.add("Equal", [value, largest])], to=reverse.view.dtype(value))
    axes = [optional_input(node, 1) or reverse.view.add_numbers(_axes(reverse, node), reverse.name("axes"))]
    share = reverse.add("Div", [_kept(reverse, node, given[0]), reverse.add("ReduceSum", [here, *axes], keepdims=1)])
    reverse.give(value, reverse.add("Mul", [here, share]))


def _kept(reverse: Reverse, node: NodeProto, value: str) -> str:
    """A value of the output's shape with the axes that were summed as axes of size 1."""
    if attribute(node, "keepdims", 1):
        return value
    axes = optional_input(node, 1) or reverse.view.add_numbers(_axes(reverse, node), reverse.name("axes"))
    return reverse.add("Unsqueeze", [value, axes])


def _axes(reverse: Reverse, node: NodeProto) -> list[int]:
    return list(attribute(node, "axes", None) or range(reverse.rank(node.input[0])))


REDUCTIONS = {"ReduceSum": _reduce_sum, "ReduceMean": _reduce_mean, "ReduceL2": _reduce_l2, "ReduceMax": _reduce_max}
