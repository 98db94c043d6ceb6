"""What moves numbers and changes none: the gradient is moved back."""

from collections.abc import Sequence

from onnx import NodeProto

from export.relevance.reverse import Reverse
from export.tapping.view import attribute


def _reshape(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value = node.input[0]
    reverse.give(value, reverse.add("Reshape", [given[0], reverse.add("Shape", [value])]))


def _transpose(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    turn = attribute(node, "perm") or list(reversed(range(reverse.rank(node.input[0]))))
    back = sorted(range(len(turn)), key=turn.__getitem__)
    reverse.give(node.input[0], reverse.add("Transpose", [given[0]], perm=back))


def _identity(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    reverse.give(node.input[0], given[0])


def _cast(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value = node.input[0]
    reverse.give(value, reverse.add("Cast", [given[0]], to=reverse.view.dtype(value)))


def _expand(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value = node.input[0]
    reverse.give(value, reverse.unspread(given[0], value, node.output[0]))


MOVES = {
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _reshape),
    "Transpose": _transpose,
    **dict.fromkeys(("Identity", "Dropout"), _identity),
    "Cast": _cast,
    "Expand": _expand,
}
