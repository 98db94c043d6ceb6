"""What takes parts out of a value or puts parts together: the gradient goes back to the places they came from."""

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from export.errors import RelevanceError
from export.relevance.reverse import Reverse
from export.tapping.decompose import places_of
from export.tapping.view import attribute, name_of, optional_input


def _gather(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    """Of indices that come once or more: rows of an identity matrix, turned, bring each back and sum them."""
    value, indices = node.input[0], node.input[1]
    axis, rank = attribute(node, "axis", 0) % reverse.rank(value), reverse.rank(value)
    flat = reverse.add("Reshape", [indices, reverse.view.add_numbers([-1], reverse.name("all"))])  # [I]
    # The gathered axes, however many, are one again, and the last: [..., I]
    sizes = reverse.add("Shape", [value])
    parts = [reverse.add("Slice", [sizes, *_ends(reverse, 0, axis)])] if axis else []
    parts.append(reverse.add("Shape", [flat]))
    if axis < rank - 1:
        parts.append(reverse.add("Slice", [sizes, *_ends(reverse, axis + 1, rank)]))
    joined = reverse.add("Reshape", [given[0], reverse.add("Concat", parts, axis=0)])
    turn = [*(one for one in range(rank) if one != axis), axis]
    last = reverse.add("Transpose", [joined], perm=turn)
    values = reverse.add("Cast", [one_hot(reverse, flat, value, axis)], to=reverse.view.dtype(value))  # [I, N]
    spread = reverse.add("MatMul", [last, values])
    reverse.give(value, reverse.add("Transpose", [spread], perm=sorted(range(rank), key=turn.__getitem__)))


def one_hot(reverse: Reverse, indices: str, value: str, axis: int) -> str:
    """Rows of an identity matrix as large as an axis, bool [I, N]; indices below 0 count from the end."""
    below, count = reverse.add("Less", [indices, reverse.whole(0)]), reverse.size_of(value, axis)
    wrapped = reverse.add("Where", [below, reverse.add("Add", [indices, count]), indices])
    places = places_of(reverse.view, value, axis, reverse.name("places"))
    column = reverse.add("Reshape", [wrapped, reverse.view.add_numbers([-1, 1], reverse.name("column"))])
    return reverse.add("Equal", [column, places])


def _ends(reverse: Reverse, first: int, last: int) -> list[str]:
    return [reverse.view.add_numbers([place], reverse.name("place")) for place in (first, last, 0)]


def _slice(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    """Which places were taken is told by slicing the numbers of all places."""
    value = node.input[0]
    places = reverse.add("Slice", [_places(reverse, value), *node.input[1:]])
    flat = reverse.add("Reshape", [given[0], reverse.view.add_numbers([-1], reverse.name("all"))])
    taken = reverse.add("Reshape", [places, reverse.view.add_numbers([-1], reverse.name("all"))])
    count = reverse.add("Reshape", [reverse.add("Size", [value]), reverse.view.add_numbers([1], reverse.name("row"))])
    nothing = reverse.add("Expand", [reverse.number(0.0, value), count])
    filled = reverse.add("ScatterElements", [nothing, taken, flat], axis=0)
    reverse.give(value, reverse.add("Reshape", [filled, reverse.add("Shape", [value])]))


def _places(reverse: Reverse, value: str) -> str:
    """The numbers of all elements of a value, in its shape, int64."""
    zero, one = (reverse.whole(number) for number in (0, 1))
    places = reverse.add("Range", [zero, reverse.add("Size", [value]), one])
    return reverse.add("Reshape", [places, reverse.add("Shape", [value])])


def _concat(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    """Parts of the gradient, as long as the parts; what does not vary is a term."""
    axis = attribute(node, "axis", 0) % reverse.rank(node.output[0])
    lengths = reverse.add("Concat", [reverse.size_of(name, axis) for name in node.input], axis=0)
    parts = reverse.split(given[0], lengths, len(node.input), axis)
    for value, part in zip(node.input, parts, strict=True):
        reverse.give_back(value, part, value)


def _split(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    parts = [
        part or reverse.add("Mul", [name, reverse.number(0.0, name)])
        for name, part in zip(node.output, given, strict=True)
    ]
    reverse.give(node.input[0], reverse.add("Concat", parts, axis=attribute(node, "axis", 0)))


def _pad(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    """Of zeros; what was put around is taken off again by padding of as many places below 0, and the reverse."""
    mode, filled = attribute(node, "mode", b"constant"), optional_input(node, 2)
    number = reverse.view.constant(filled) if filled else np.zeros(1)
    if mode != b"constant" or number is None or np.any(number):
        raise RelevanceError(f"{name_of(node)}: Pad has no reverse rule but with zeros")
    axes = ["", node.input[3]] if optional_input(node, 3) else []
    back = reverse.add("Neg", [node.input[1]])
    reverse.give(node.input[0], reverse.add("Pad", [given[0], back, *axes]))


PICKS = {"Gather": _gather, "Slice": _slice, "Concat": _concat, "Split": _split, "Pad": _pad}
