"""y = a + b, a - b, -a: the gradient is that of y, with its sign, summed where a or b was spread."""

from collections.abc import Sequence

from onnx import NodeProto

from export.relevance.reverse import Reverse


def _add(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    for value in node.input:
        reverse.give_back(value, given[0], node.output[0])


def _sub(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    reverse.give_back(node.input[0], given[0], node.output[0])
    reverse.give_back(node.input[1], reverse.add("Neg", [given[0]]), node.output[0])


def _neg(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    reverse.give(node.input[0], reverse.add("Neg", [given[0]]))


SUMS = {"Add": _add, "Sum": _add, "Sub": _sub, "Neg": _neg}
