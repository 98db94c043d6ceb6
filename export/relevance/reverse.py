"""Walks a graph back from a score and adds the nodes that compute its gradient, by one rule for each operator."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from onnx import NodeProto, TensorProto, helper

from export.errors import RelevanceError
from export.tapping.view import GraphView, name_of

Method = Literal["gradient", "libra"]
Rule = Callable[["Reverse", NodeProto, Sequence[str]], None]

_AXES_GIVEN = 18  # the opset from which axes of means are an input
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.UNDEFINED)
# What has no slope: the output jumps, or does not depend on what the input is.
_STEPS = frozenset(
    {"Shape", "Size", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "IsNaN", "IsInf"}
    | {"NonZero", "ArgMax", "ArgMin", "Floor", "Ceil", "Round", "Sign"}
)
# What Libra holds constant, beside denominators: the weights of attention, and what gates or scales something else.
_HELD = frozenset({"Softmax", "Erf", "Sigmoid", "HardSigmoid", "Sqrt", "Reciprocal", "ReduceL2", "Exp"})
_SQUARE = 2


class Reverse:
    """The gradient of a score, as further nodes of a graph.

    With "libra" (Mehri et al. 2025, "LibraGrad") attention's weights, denominators and activations' gates are held
    constant: the score is then affine in what enters the layers, so that this times its gradient, and every term that
    is added on the way times its own, make up the score.

    Attributes:
        view: Of the graph; is added to.
        method: Which gradient.
        source: With respect to which value.
        sources: That, and those beside it.
        terms: What was added on the way, the gradient there, and the value that has the gradient's shape.
        given: Every value that was given a gradient, with that, which has its shape.
    """

    def __init__(
        self, view: GraphView, method: Method, source: str, layer: int | None = None, beside: Sequence[str] = ()
    ) -> None:
        """Begin with nothing walked.

        Args:
            view: Of the graph.
            method: Which gradient.
            source: With respect to which value.
            layer: Of several walks in one graph, each with a score of its own, which; its nodes are named by it.
            beside: With respect to which values as well, where a network reads two inputs.
        """
        self.view, self.method, self.source = view, method, source
        self.sources = (source, *beside)
        self._prefix = f"relevance.{method}" if layer is None else f"relevance.{method}.layer.{layer}"
        self.terms: list[tuple[str, str, str]] = []
        self.given: list[tuple[str, str]] = []
        self._varying = varying(view, self.sources, method)
        self._gradients: dict[str, list[str]] = {}
        self._made = 0

    @property
    def is_libra(self) -> bool:
        """Whether what it holds constant is."""
        return self.method == "libra"

    def varies(self, value: str) -> bool:
        """Whether a value depends on the source by what is not held constant."""
        return value in self._varying

    def walk(self, score: str, seed: str, rules: Mapping[str, Rule]) -> None:
        """Give every value that varies its gradient.

        Args:
            score: The value that is differentiated.
            seed: Its own gradient, of its shape.
            rules: By operator.

        Raises:
            RelevanceError: An operator on the way has no rule, or none for how it is used; names it and its node.
        """
        self.give(score, seed)
        for node in reversed(list(self.view.model.graph.node)):
            given = [self.gradient(name) if self.varies(name) else "" for name in node.output]
            if not any(given) or any(name in node.output for name in self.sources):
                continue
            rule = rules.get(node.op_type)
            if rule is None:
                raise RelevanceError(f"{name_of(node)}: {node.op_type} has no reverse rule")
            rule(self, node, given)

    def gradient(self, value: str) -> str:
        """The sum of all that a value was given; empty where that is nothing."""
        parts = self._gradients.get(value, [])
        while len(parts) > 1:
            parts.append(self.add("Add", [parts.pop(0), parts.pop(0)]))
        return parts[0] if parts else ""

    def give(self, value: str, gradient: str) -> None:
        """Add to the gradient of a value, if that varies."""
        if self.varies(value):
            self._gradients.setdefault(value, []).append(gradient)
            self.given.append((value, gradient))

    def give_back(self, value: str, gradient: str, output: str) -> None:
        """Add to the gradient of a value that was spread over the axes of an output; or keep it, where it is a term."""
        if self.varies(value):
            self.give(value, self.unspread(gradient, value, output))
        elif self.is_libra:
            self.terms.append((value, gradient, output))

    def unspread(self, gradient: str, value: str, output: str) -> str:
        """Sum a gradient of an output's shape over the axes along which a value was spread to it."""
        own, spread = self.view.shape(value), self.view.shape(output)
        if own is not None and own == spread and None not in own:
            return gradient
        if own is not None and spread is not None and all(_is_clear(*pair) for pair in _aligned(own, spread)):
            axes = [axis for axis, (mine, other) in enumerate(_aligned(own, spread)) if mine == 1 != other]
            if not axes and len(own) == len(spread):
                return gradient
            lead = len(spread) - len(own)
            summed = self.reduce_sum(gradient, [*range(lead), *(axis for axis in axes if axis >= lead)], keepdims=1)
            return summed if not lead else self.add("Reshape", [summed, self.add("Shape", [value])])
        return self.unspread_when_run(gradient, value)

    def unspread_when_run(self, gradient: str, value: str) -> str:
        """The same by the sizes that there are when the graph runs."""
        sizes, target = self.add("Shape", [gradient]), self.add("Shape", [value])
        ones = self.add("Shape", [sizes])  # [rank]
        missing = self.add("Sub", [ones, self.add("Shape", [target])])
        lead = self.add("Expand", [self.view.add_numbers([1], self.name("one")), missing])
        padded = self.add("Concat", [lead, target], axis=0)
        differs = self.add("Not", [self.add("Equal", [sizes, padded])])
        axes = self.add("Squeeze", [self.add("NonZero", [differs]), self.view.add_numbers([0], self.name("first"))])
        summed = self.add("ReduceSum", [gradient, axes], keepdims=1, noop_with_empty_axes=1)
        return self.add("Reshape", [summed, target])

    def reduce_sum(self, value: str, axes: Sequence[int], *, keepdims: int) -> str:
        """Add the sum over some axes."""
        return self.add("ReduceSum", [value, self.view.add_numbers(axes, self.name("axes"))], keepdims=keepdims)

    def mean(self, value: str, axes: Sequence[int], *, keepdims: int) -> str:
        """Add the mean over some axes."""
        if self.view.opset < _AXES_GIVEN:
            return self.add("ReduceMean", [value], axes=list(axes), keepdims=keepdims)
        return self.add("ReduceMean", [value, self.view.add_numbers(axes, self.name("axes"))], keepdims=keepdims)

    def size_of(self, value: str, axis: int) -> str:
        """Add the size of an axis, int64 [1]."""
        return self.view.size_of(value, axis, self.name("size"))

    def split(self, value: str, lengths: str, count: int, axis: int) -> list[str]:
        """Add a value's parts, so many, of lengths int64 [count] along an axis."""
        parts = [self.name("part") for _ in range(count)]
        self.view.model.graph.node.append(helper.make_node("Split", [value, lengths], parts, axis=axis))
        return parts

    def add(self, op_type: str, inputs: Sequence[str], **attributes: object) -> str:
        """Append a node with one output; returns that."""
        return self.view.add(op_type, inputs, self.name(op_type), **attributes)

    def number(self, content: float, like: str) -> str:
        """Append a number of a value's type."""
        dtype = helper.tensor_dtype_to_np_dtype(self.view.dtype(like) or TensorProto.FLOAT)
        return self.view.add_constant(np.array(content, dtype=dtype), self.name("number"))

    def whole(self, number: int) -> str:
        """Append a whole number without axes, int64."""
        return self.view.add_constant(np.array(number, dtype=np.int64), self.name("whole"))

    def turned(self, value: str) -> str:
        """Append a matrix, or matrices, with the last two axes swapped."""
        rank = self.rank(value)
        return self.add("Transpose", [value], perm=[*range(rank - 2), rank - 1, rank - 2])

    def rank(self, value: str) -> int:
        """Number of axes of a value of the graph.

        Raises:
            RelevanceError: It is not known.
        """
        rank = self.view.rank(value)
        if rank is None:
            raise RelevanceError(f"{value}: the number of its axes is not known")
        return rank

    def name(self, what: str) -> str:
        """A name that is not taken."""
        self._made += 1
        return f"{self._prefix}.{self._made}.{what}"


def varying(view: GraphView, sources: Iterable[str], method: Method) -> set[str]:
    """Find the floating-point values that depend on others by what a method does not hold constant."""
    found = set(sources)
    for node in view.model.graph.node:
        if any(name in found for name in _followed(node, method)) and not _is_held(view, node, method):
            found.update(name for name in node.output if name and view.dtype(name) in _FLOATS)
    return found


def _followed(node: NodeProto, method: Method) -> Sequence[str]:
    if node.op_type == "Where":
        return node.input[1:]
    return node.input[:1] if method == "libra" and node.op_type == "Div" else node.input


def _is_held(view: GraphView, node: NodeProto, method: Method) -> bool:
    if node.op_type in _STEPS:
        return True
    if method != "libra":
        return False
    if node.op_type == "Pow":
        return not _is_product(view, node)
    return node.op_type in _HELD or (node.op_type == "Tanh" and _is_gate(view, node))


def _is_product(view: GraphView, node: NodeProto) -> bool:
    """Whether a power is of a number times itself, as the square of ReLU is, and no root or denominator."""
    exponent = view.constant(node.input[1])
    return exponent is not None and exponent.size == 1 and exponent.item() >= _SQUARE and exponent.item() % 1 == 0


def _is_gate(view: GraphView, node: NodeProto) -> bool:
    """Whether a hyperbolic tangent is half of what gates something: 1 is added to it, as in the tanh form of GELU."""
    taker = view.only_taker(node.output[0])
    return taker is not None and taker.op_type == "Add" and any(view.is_constant(name) for name in taker.input)


def _aligned(own: Sequence[object], spread: Sequence[object]) -> list[tuple[object, object]]:
    return list(zip([1] * (len(spread) - len(own)) + list(own), spread, strict=True))


def _is_clear(mine: object, other: object) -> bool:
    """Whether it is known that two axes are equal, or that one was spread."""
    return mine is not None and (mine == other or mine == 1)
