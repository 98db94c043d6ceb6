"""Activations: y = f(x), whose gradient is f'(x) g.

With "libra" each is x times a gate, f(x) / x, which is held: g times that gate. LibraGrad, section 3.

ReLU: the gate is 1 where x > 0. GELU (Hendrycks and Gimpel 2016): Phi(x); in its tanh form
(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. tanh: tanh(x) / x, at 0 its limit 1. Sigmoid and erf alone are gates of
something else, and are held.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

from onnx import NodeProto, TensorProto

from export.relevance.reverse import Reverse
from export.tapping.view import attribute

_CUBIC = 0.044715
_Slope = Callable[[], str]


def _relu(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value = node.input[0]
    above = reverse.add("Greater", [value, reverse.number(0.0, value)])
    kept = reverse.add("Cast", [above], to=reverse.view.dtype(value) or TensorProto.FLOAT)
    reverse.give(value, reverse.add("Mul", [given[0], kept]))


def _leaky_relu(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, slope = node.input[0], reverse.number(attribute(node, "alpha", 0.01), node.input[0])
    above = reverse.add("Greater", [value, reverse.number(0.0, value)])
    reverse.give(value, reverse.add("Where", [above, given[0], reverse.add("Mul", [given[0], slope])]))


def _gelu(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value = node.input[0]
    approximate = attribute(node, "approximate", b"none") == b"tanh"
    gate, slope = (_tanh_gate if approximate else _erf_gate)(reverse, value)
    if not reverse.is_libra:
        gate = reverse.add("Add", [gate, reverse.add("Mul", [value, slope()])])
    reverse.give(value, reverse.add("Mul", [given[0], gate]))


def _erf_gate(reverse: Reverse, value: str) -> tuple[str, _Slope]:
    """Phi(x), and its derivative exp(-x^2 / 2) / sqrt(2 pi)."""
    scaled = reverse.add("Mul", [value, reverse.number(math.sqrt(0.5), value)])
    gate = _half_of_one_and(reverse, reverse.add("Erf", [scaled]), value)

    def slope() -> str:
        power = reverse.add("Exp", [reverse.add("Neg", [reverse.add("Mul", [scaled, scaled])])])
        return reverse.add("Mul", [power, reverse.number(1 / math.sqrt(2 * math.pi), value)])

    return gate, slope


def _tanh_gate(reverse: Reverse, value: str) -> tuple[str, _Slope]:
    """(1 + t) / 2 of t = tanh(c (x + 0.044715 x^3)), and its derivative c (1 + 3 * 0.044715 x^2) (1 - t^2) / 2."""
    number, factor = partial(reverse.number, like=value), math.sqrt(2 / math.pi)
    square = reverse.add("Mul", [value, value])
    inner = reverse.add("Add", [reverse.add("Mul", [square, number(_CUBIC * factor)]), number(factor)])
    tanh = reverse.add("Tanh", [reverse.add("Mul", [inner, value])])

    def slope() -> str:
        outer = reverse.add("Sub", [number(0.5), reverse.add("Mul", [reverse.add("Mul", [tanh, tanh]), number(0.5)])])
        inner = reverse.add("Add", [reverse.add("Mul", [square, number(3 * _CUBIC * factor)]), number(factor)])
        return reverse.add("Mul", [outer, inner])

    return _half_of_one_and(reverse, tanh, value), slope


def _half_of_one_and(reverse: Reverse, value: str, like: str) -> str:
    half = reverse.number(0.5, like)
    return reverse.add("Add", [reverse.add("Mul", [value, half]), half])


def _tanh(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, output = node.input[0], node.output[0]
    one = reverse.number(1.0, value)
    if reverse.is_libra:
        is_zero = reverse.add("Equal", [value, reverse.number(0.0, value)])
        gate = reverse.add("Div", [output, reverse.add("Where", [is_zero, one, value])])
        slope = reverse.add("Where", [is_zero, one, gate])
    else:
        slope = reverse.add("Sub", [one, reverse.add("Mul", [output, output])])
    reverse.give(value, reverse.add("Mul", [given[0], slope]))


def _sigmoid(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    output = node.output[0]
    rest = reverse.add("Sub", [reverse.number(1.0, output), output])
    slope = reverse.add("Mul", [output, rest])
    reverse.give(node.input[0], reverse.add("Mul", [given[0], slope]))


def _erf(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value = node.input[0]
    power = reverse.add("Exp", [reverse.add("Neg", [reverse.add("Mul", [value, value])])])
    slope = reverse.add("Mul", [power, reverse.number(2 / math.sqrt(math.pi), value)])
    reverse.give(value, reverse.add("Mul", [given[0], slope]))


ACTIVATIONS = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Gelu": _gelu,
    "Tanh": _tanh,
    "Sigmoid": _sigmoid,
    "Erf": _erf,
}
