"""Refuses a graph with attention that no rule takes: a list of layers with a hole in it would number the rest wrongly.

What counts is a softmax between two products: its scores come from a product of two computed values, or of learned
queries and one, and what it gives enters another, by way of anything but products with weights that do more than mix
heads. Branches and loops are looked into. A constant counts as queries on the left of a product, or where it has an
axis of heads. A matrix of weights on the right scores positions one by one: a router, or a pooling, which is no layer.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from export.errors import TapError
from export.tapping.view import GraphView, attribute, bodies, computes_the_same, name_of

_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul", "Conv"})
_FUSED = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention"})
# What ends a walk: sizes, places and truths, which say of values how they lie or compare, and what has a state.
_ENDS = frozenset(
    {"Shape", "Size", "Constant", "ConstantOfShape", "ArgMax", "ArgMin", "NonZero", "IsNaN", "IsInf"}
    | {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "LSTM", "GRU", "RNN"}
)
_SOFTMAXES = frozenset({"Softmax", "LogSoftmax", "BiasSoftmax"})
_BESIDE_SUMS = frozenset({"Expand", "Unsqueeze", "Reshape", "Clip", "Add", "Max", "Cast", "Reciprocal"})
_SUMS = frozenset({"ReduceSum", "ReduceL1"})
_MAX_HEADS = 64  # a square matrix no larger mixes heads (Shazeer et al. 2020, "Talking-Heads Attention")
_QUERIED = frozenset({"MatMul", "FusedMatMul", "Einsum"})
_WITH_HEADS, _BY_HEAD = 4, 3  # axes of weights [B, H, Q, K], and of learned queries [H, Q, d]
_PASSAGE = "(passage)"  # from a node into the bodies of its branches, and out of them


@dataclass(frozen=True, eq=False)
class _Step:
    """A node at any depth, or a passage; its values have names that are unique in the whole model."""

    node: NodeProto
    op_type: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    inside: str


class _Flow:
    """Where every value of a model goes, through branches and loops as well."""

    def __init__(self, view: GraphView) -> None:
        self._view, graph = view, view.model.graph
        self._given = {dim.dim_param for value in graph.input for dim in value.type.tensor_type.shape.dim}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.steps = list(self._steps(graph, {}, ""))
        self.makers, self.takers = defaultdict[str, list[_Step]](list), defaultdict[str, list[_Step]](list)
        for one in self.steps:
            for name in filter(None, one.outputs):
                self.makers[name].append(one)
            for name in filter(None, one.inputs):
                self.takers[name].append(one)
        self._constants = {"", *self.shapes}
        for one in self.steps:
            if one.op_type != _PASSAGE and computes_the_same(one.node) and self._constants.issuperset(one.inputs):
                self._constants.update(one.outputs)

    def _steps(self, graph: GraphProto, seen: Mapping[str, str], inside: str) -> Iterator[_Step]:
        """Yield the nodes of a graph and of the bodies in it, which see the values around them."""
        own = [*(value.name for value in graph.input), *(name for node in graph.node for name in node.output)]
        own += [tensor.name for tensor in graph.initializer]
        names = {**seen, **{name: f"{inside}/{name}" if inside and name else name for name in own}}
        self.shapes |= {names[tensor.name]: tuple(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            inputs, outputs = ([names.get(name, name) for name in part] for part in (node.input, node.output))
            yield _Step(node, node.op_type, inputs, outputs, inside)
            for place, body in enumerate(bodies(node)):
                within = f"{inside}/{name_of(node)}" if inside else name_of(node)
                within += f".{place}" if place else ""
                entries = [f"{within}/{value.name}" for value in body.input]
                yield _Step(node, _PASSAGE, inputs, entries, inside)
                steps = list(self._steps(body, names, within))
                yield from steps
                made = {name for one in steps for name in one.outputs} | {*entries}
                results = (f"{within}/{value.name}" for value in body.output)
                seen_outside = (names.get(value.name, value.name) for value in body.output)
                ends = [own if own in made else other for own, other in zip(results, seen_outside, strict=True)]
                yield _Step(node, _PASSAGE, ends, [*outputs, *entries], inside)

    def is_product(self, one: _Step) -> bool:
        """Whether a node multiplies two computed values: as matrices, or by elements that are then summed."""
        computed = {name for name in one.inputs[:2] if name not in self._constants}
        if len(computed) < 2:  # of one value with itself as well: lengths of vectors
            return one.op_type == "MatMul" and len(one.inputs) > 1 and one.inputs[0] == one.inputs[1] in computed
        if one.op_type == "Mul":
            return any(taker.op_type == "ReduceSum" for taker in self.takers[one.outputs[0]])
        return one.op_type in _PRODUCTS

    def has_learned_queries(self, one: _Step) -> bool:
        """Whether a node multiplies a computed value with a constant that stands for queries."""
        if one.op_type not in _QUERIED or len(one.inputs) < 2 or len(self._constants.intersection(one.inputs[:2])) != 1:
            return False
        constant, is_left = next((name, not place) for place, name in enumerate(one.inputs) if name in self._constants)
        axes = self._view.rank(constant) or len(self.shapes.get(constant, ()))
        return is_left or axes >= _BY_HEAD

    def is_softmax(self, one: _Step) -> bool:
        """Whether a node is a softmax, or divides exponentials by their sum."""
        if one.op_type in ("Div", "Mul"):
            pairs = [one.inputs, one.inputs[::-1]] if one.op_type == "Mul" else [one.inputs]
            return any(divisor not in self._constants and self._is_sum(divisor, of) for of, divisor in pairs)
        return one.op_type in _SOFTMAXES or (one.op_type == "LpNormalization" and attribute(one.node, "p", 2) == 1)

    def _is_sum(self, value: str, of: str) -> bool:
        """Whether a value is the sum of another, or one by it."""
        sums = self.makers[value][:1]
        while sums and sums[0].op_type in _BESIDE_SUMS:
            sums = self.makers[sums[0].inputs[0]][:1]
        return bool(sums) and sums[0].op_type in _SUMS and sums[0].inputs[0] == of

    def has_scores(self, softmax: _Step) -> bool:
        """Whether what a softmax normalises comes from a product."""
        return self._meets(softmax, backward=True)

    def weighs(self, softmax: _Step) -> bool:
        """Whether what a softmax gives enters a product."""
        return self._meets(softmax, backward=False)

    def _meets(self, softmax: _Step, *, backward: bool) -> bool:
        edges, waiting = (self.makers, [*softmax.inputs[:1]]) if backward else (self.takers, [*softmax.outputs])
        met = set[int]()
        while waiting:
            for one in edges[waiting.pop()]:
                if self.is_product(one) or (backward and self.has_learned_queries(one)):
                    return True
                if id(one) not in met and self._carries(one, softmax):
                    waiting += one.inputs if backward else one.outputs
                met.add(id(one))
        return False

    def _carries(self, one: _Step, softmax: _Step) -> bool:
        """Whether a node may stand between a softmax and its products; of products with weights, what mixes heads."""
        if one.op_type not in _PRODUCTS:
            return one.op_type not in _ENDS and one.op_type not in _FUSED
        shapes = [self.shapes.get(name, ()) for name in one.inputs[:2]]
        squares = [shape[0] for shape in shapes if len(shape) > 1 and shape[0] == shape[1] <= _MAX_HEADS]
        return any(self._may_mix(one, softmax, heads) for heads in squares)

    def _may_mix(self, one: _Step, softmax: _Step, heads: int) -> bool:
        """Whether a square matrix may mix heads, not channels: of four axes, one is as many and not normalised."""
        ranks = [self._view.rank(name) for name in one.inputs[:2] if name not in self._constants]
        if any(rank is not None and rank < _WITH_HEADS for rank in ranks):
            return False
        shape = self._view.shape(softmax.inputs[0])
        if shape is None:
            return True
        axis = _axis_of(softmax, self._view) % len(shape)
        others = [size for place, size in enumerate(shape) if place != axis and (place or len(shape) < _WITH_HEADS)]
        unknown = any(not isinstance(size, int) and size not in self._given for size in others)
        return unknown or any(isinstance(size, int) and size % heads == 0 for size in others)


def _axis_of(softmax: _Step, view: GraphView) -> int:
    """The axis that is normalised; before opset 13 the first that was."""
    fixed = softmax.op_type not in _SOFTMAXES
    return int(attribute(softmax.node, "axis", -1 if view.opset >= 13 or fixed else 1))


def find_attention_like(view: GraphView) -> dict[str, str]:
    """Find what looks like attention, at any depth.

    Returns:
        By a node's first output, what is said of it where no rule takes it.
    """
    flow, found = _Flow(view), dict[str, str]()
    for one in flow.steps:
        where = f" inside {one.inside}" if one.inside else ""
        if one.op_type in _FUSED and one.inside:
            found[one.outputs[0]] = f"{name_of(one.node)}: is {one.op_type}{where}; expected it at the top of the graph"
        elif flow.is_softmax(one) and flow.has_scores(one) and flow.weighs(one):
            axis = _axis_of(one, view)
            over = f" over axis {axis}" if axis != -1 else ""
            found[one.outputs[0]] = (
                f"{name_of(one.node)}: is a {one.op_type}{over}{where} between two products, as attention is, but "
                "cannot be tapped; expected softmax(Q K^T) V over the last axis, at the top of the graph"
            )
    return found


def refuse_holes(suspects: Mapping[str, str], taken: Collection[str]) -> None:
    """Refuse a graph of which something was not taken.

    Args:
        suspects: From find_attention_like.
        taken: First outputs of the nodes that the rules found.

    Raises:
        TapError: Names the first that is left.
    """
    left = next((said for output, said in suspects.items() if output not in taken), None)
    if left is not None:
        raise TapError(left)
