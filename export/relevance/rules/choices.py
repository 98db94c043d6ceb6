"""y = c ? a : b, and x held between bounds: the gradient goes to what was taken."""

from collections.abc import Sequence

from onnx import NodeProto

from export.relevance.reverse import Reverse
from export.tapping.view import optional_input


def _where(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    condition, one, other = node.input
    nothing = reverse.number(0.0, node.output[0])
    reverse.give_back(one, reverse.add("Where", [condition, given[0], nothing]), node.output[0])
    reverse.give_back(other, reverse.add("Where", [condition, nothing, given[0]]), node.output[0])


def _clip(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    """Of what is at a bound the output is that bound, a term."""
    value, gradient, bound = node.input[0], given[0], reverse.number(0.0, node.input[0])
    for place, beyond in ((1, "Less"), (2, "Greater")):
        if limit := optional_input(node, place):
            outside = reverse.add(beyond, [value, limit])
            reverse.give_back(limit, reverse.add("Where", [outside, gradient, bound]), node.output[0])
            gradient = reverse.add("Where", [outside, bound, gradient])
    reverse.give(value, gradient)


CHOICES = {"Where": _where, "Clip": _clip}
