"""Products and quotients, of numbers and of matrices.

y = a b: a's gradient is b g, b's is a g. C = A B: A's is G B^T, B's is A^T G. y = a / b: a's is g / b, b's -g y / b.

With "libra" a product of two that vary gives each half of its gradient, so that both together make up y and not twice
of it; a denominator is held.
"""

from collections.abc import Sequence

from onnx import NodeProto

from export.errors import RelevanceError
from export.relevance.reverse import Reverse
from export.tapping.view import attribute, name_of, optional_input

_MATRIX = 2


def _mul(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    one, other = node.input
    gradient = _share(reverse, node, given[0])
    for value, factor in ((one, other), (other, one)):
        if reverse.varies(value):
            made = reverse.add("Mul", [gradient, factor])
            reverse.give(value, reverse.unspread(made, value, node.output[0]))


def _div(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    above, below = node.input
    quotient = reverse.add("Div", [given[0], below])
    if reverse.varies(above):
        reverse.give(above, reverse.unspread(quotient, above, node.output[0]))
    if reverse.varies(below) and not reverse.is_libra:
        made = reverse.add("Neg", [reverse.add("Mul", [quotient, node.output[0]])])
        reverse.give(below, reverse.unspread(made, below, node.output[0]))


def _mat_mul(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    left, right = node.input
    if min(reverse.rank(left), reverse.rank(right)) < _MATRIX:
        raise RelevanceError(f"{name_of(node)}: a product with a vector has no reverse rule")
    gradient = _share(reverse, node, given[0])
    if reverse.varies(left):
        made = reverse.add("MatMul", [gradient, reverse.turned(right)])
        reverse.give(left, _unspread_matrix(reverse, made, left, right))
    if reverse.varies(right):
        made = reverse.add("MatMul", [reverse.turned(left), gradient])
        reverse.give(right, _unspread_matrix(reverse, made, right, left))


def _gemm(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    """Of alpha A' B' + beta C, where A' and B' may be turned."""
    left, right, added = node.input[0], node.input[1], optional_input(node, 2)
    turns = attribute(node, "transA", 0), attribute(node, "transB", 0)
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    gradient = _share(reverse, node, given[0])
    if reverse.varies(left):
        pair = ([right, gradient], turns[1], 1) if turns[0] else ([gradient, right], 0, 1 - turns[1])
        reverse.give(left, reverse.add("Gemm", pair[0], alpha=alpha, transA=pair[1], transB=pair[2]))
    if reverse.varies(right):
        pair = ([gradient, left], 1, turns[0]) if turns[1] else ([left, gradient], 1 - turns[0], 0)
        reverse.give(right, reverse.add("Gemm", pair[0], alpha=alpha, transA=pair[1], transB=pair[2]))
    if added:
        scaled = given[0] if beta == 1 else reverse.add("Mul", [given[0], reverse.number(beta, added)])
        reverse.give_back(added, scaled, node.output[0])


def _share(reverse: Reverse, node: NodeProto, gradient: str) -> str:
    both = reverse.varies(node.input[0]) and reverse.varies(node.input[1])
    return (
        reverse.add("Mul", [gradient, reverse.number(0.5, node.output[0])]) if reverse.is_libra and both else gradient
    )


def _unspread_matrix(reverse: Reverse, gradient: str, value: str, other: str) -> str:
    """Sum over the axes before the matrices along which a value was spread to those of the other factor."""
    own, spread = reverse.view.shape(value), reverse.view.shape(other)
    if own is not None and spread is not None and len(own) >= len(spread):
        pairs = zip(own[: len(own) - _MATRIX], ([1] * (len(own) - len(spread)) + list(spread))[:-_MATRIX], strict=True)
        if all(mine == theirs or theirs == 1 for mine, theirs in pairs):
            return gradient
    return reverse.unspread_when_run(gradient, value)


PRODUCTS = {"Mul": _mul, "Div": _div, "MatMul": _mat_mul, "Gemm": _gemm}
