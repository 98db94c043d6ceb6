"""Powers, which norms and lengths are written with: x^p, p x^(p-1) g; sqrt(x), g / (2 y); 1 / x, -g y^2; e^x, g y.

With "libra" they are held, as denominators; but of a whole p from 2 x^p is x times a gate x^(p-1), and
that is held instead (So et al. 2021, "Primer": the square of ReLU).
"""

from collections.abc import Sequence

from onnx import NodeProto

from export.errors import RelevanceError
from export.relevance.reverse import Reverse
from export.tapping.view import name_of


def _pow(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, exponent = node.input
    if reverse.varies(exponent):
        raise RelevanceError(f"{name_of(node)}: a power whose exponent depends on the input has no reverse rule")
    own = reverse.add("Cast", [exponent], to=reverse.view.dtype(value))
    less = reverse.add("Pow", [value, reverse.add("Sub", [own, reverse.number(1.0, value)])])
    slope = less if reverse.is_libra else reverse.add("Mul", [own, less])
    reverse.give(value, reverse.add("Mul", [given[0], slope]))


def _sqrt(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    twice = reverse.add("Add", [node.output[0], node.output[0]])
    reverse.give(node.input[0], reverse.add("Div", [given[0], twice]))


def _reciprocal(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    squared = reverse.add("Mul", [node.output[0], node.output[0]])
    reverse.give(node.input[0], reverse.add("Neg", [reverse.add("Mul", [given[0], squared])]))


def _exp(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    reverse.give(node.input[0], reverse.add("Mul", [given[0], node.output[0]]))


POWERS = {"Pow": _pow, "Sqrt": _sqrt, "Reciprocal": _reciprocal, "Exp": _exp}
