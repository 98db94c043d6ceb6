"""Norms over features: y = (x - mean(x)) / s * scale + shift, s = sqrt(var(x) + eps); of RMSNorm no mean and no shift.

Ba et al. 2016, "Layer Normalization", equation 3; Zhang and Sennrich 2019, "Root Mean Square Layer Normalization",
equation 4. With n = (x - mean(x)) / s and h = g * scale the gradient is (h - mean(h) - n mean(h n)) / s; with "libra",
which holds s, it is (h - mean(h)) / s.
"""

from collections.abc import Sequence

from onnx import NodeProto

from export.errors import RelevanceError
from export.relevance.reverse import Reverse
from export.tapping.view import attribute, name_of, optional_input

_EPSILON = 1e-5  # the operators' default


def _layer_norm(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    _norm(reverse, node, given[0], centred=True)
    if shift := optional_input(node, 2):
        reverse.give_back(shift, given[0], node.output[0])


def _rms_norm(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    _norm(reverse, node, given[0], centred=False)


def _norm(reverse: Reverse, node: NodeProto, gradient: str, *, centred: bool) -> None:
    value, scale = node.input[0], node.input[1]
    if attribute(node, "axis", -1) not in (-1, reverse.rank(value) - 1):
        raise RelevanceError(f"{name_of(node)}: a norm over several axes has no reverse rule")
    if reverse.varies(scale):
        raise RelevanceError(f"{name_of(node)}: a norm whose scale depends on the input has no reverse rule")
    rest = reverse.add("Sub", [value, _mean(reverse, value)]) if centred else value
    inverse = _inverse(reverse, node, rest)
    scaled = reverse.add("Mul", [reverse.add("Mul", [gradient, scale]), inverse])  # h / s
    found = reverse.add("Sub", [scaled, _mean(reverse, scaled)]) if centred else scaled
    if not reverse.is_libra:
        normal = reverse.add("Mul", [rest, inverse])
        along = _mean(reverse, reverse.add("Mul", [scaled, normal]))
        found = reverse.add("Sub", [found, reverse.add("Mul", [normal, along])])
    reverse.give(value, found)


def _inverse(reverse: Reverse, node: NodeProto, rest: str) -> str:
    """1 / s, [..., 1]."""
    squares = _mean(reverse, reverse.add("Mul", [rest, rest]))
    epsilon = reverse.number(attribute(node, "epsilon", _EPSILON), node.input[0])
    return reverse.add("Reciprocal", [reverse.add("Sqrt", [reverse.add("Add", [squares, epsilon])])])


def _mean(reverse: Reverse, value: str) -> str:
    return reverse.mean(value, [-1], keepdims=1)


NORMS = {
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
}
