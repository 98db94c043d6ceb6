"""What takes numbers from places that the graph computes, or puts them there, as ONNX's Gather- and Scatter- do.

y = x[places]: the gradient is added up at these places. y = x with u added at places: u's is the gradient there.
"""

from collections.abc import Sequence

from onnx import NodeProto

from export.errors import RelevanceError
from export.relevance.reverse import Reverse
from export.tapping.view import attribute, name_of

_ADDS = 16  # the opset from which numbers are added where several have one place


def _gather_nd(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, places = node.input
    if attribute(node, "batch_dims", 0) or reverse.view.opset < _ADDS:
        expected = f"expected none, and opset {_ADDS} or later"
        raise RelevanceError(f"{name_of(node)}: GatherND with batch_dims has no reverse rule; {expected}")
    nothing = reverse.add("Expand", [reverse.number(0.0, value), reverse.add("Shape", [value])])
    reverse.give(value, reverse.add("ScatterND", [nothing, places, given[0]], reduction=b"add"))


def _gather_elements(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    _bring_back(reverse, node, given[0], node.input[1], 0)


def _top_k(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    """Of the largest, as a mixture of experts chooses them; which they are has no slope."""
    _bring_back(reverse, node, given[0], node.output[1], -1)


def _bring_back(reverse: Reverse, node: NodeProto, gradient: str, places: str, axis: int) -> None:
    """Add a gradient up at places of an axis, by default that one."""
    value = node.input[0]
    if reverse.view.opset < _ADDS:
        raise RelevanceError(f"{name_of(node)}: {node.op_type} has no reverse rule; expected opset {_ADDS} or later")
    nothing = reverse.add("Expand", [reverse.number(0.0, value), reverse.add("Shape", [value])])
    options = {"axis": attribute(node, "axis", axis), "reduction": b"add"}
    reverse.give(value, reverse.add("ScatterElements", [nothing, places, gradient], **options))


def _scatter_nd(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, places, added = node.input
    if attribute(node, "reduction", b"none") != b"add":
        raise RelevanceError(f"{name_of(node)}: ScatterND that does not add has no reverse rule")
    reverse.give_back(value, given[0], node.output[0])
    reverse.give_back(added, reverse.add("GatherND", [given[0], places]), added)


def _scatter_elements(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    """Of numbers that replace zeros, as the reverse rule of Slice puts them."""
    value, places, put = node.input
    if reverse.varies(value) or reverse.is_libra:
        raise RelevanceError(f"{name_of(node)}: {node.op_type} has no reverse rule")
    reverse.give(put, reverse.add("GatherElements", [given[0], places], axis=attribute(node, "axis", 0)))


PLACES = {
    "GatherND": _gather_nd,
    "GatherElements": _gather_elements,
    "TopK": _top_k,
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
}
