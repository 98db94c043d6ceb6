"""y = softmax(x): the gradient is y (g - sum(g y)), the sum over the same axis. Bridle 1990.

With "libra" attention's weights are held, and a softmax is never reached.
"""

from collections.abc import Sequence

from onnx import NodeProto

from export.relevance.reverse import Reverse
from export.tapping.view import attribute


def _softmax(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    axis, output = attribute(node, "axis", -1), node.output[0]
    weighted = reverse.add("Mul", [given[0], output])
    mean = reverse.reduce_sum(weighted, [axis], keepdims=1)
    reverse.give(node.input[0], reverse.add("Sub", [weighted, reverse.add("Mul", [output, mean])]))


SOFTMAX = {"Softmax": _softmax}
