"""Refuses a graph with attention that no rule takes: a list of layers with a hole in it would number the rest wrongly.

What counts is a softmax between two products: its scores come from a product of two computed values, and what it gives
enters another, by way of anything but products with weights that do more than mix heads. Branches and loops are looked
into. Not seen: learned queries, which are no computed value, where no rule takes their form.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto

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

    def __init__(self, model: ModelProto) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.steps = list(self._steps(model.graph, {}, ""))
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
        return self._meets_product(softmax.inputs[:1], backward=True)

    def weighs(self, softmax: _Step) -> bool:
        """Whether what a softmax gives enters a product."""
        return self._meets_product(softmax.outputs, backward=False)

    def _meets_product(self, values: Sequence[str], *, backward: bool) -> bool:
        edges, waiting, met = self.makers if backward else self.takers, list(values), set[int]()
        while waiting:
            for one in edges[waiting.pop()]:
                if self.is_product(one):
                    return True
                if id(one) not in met and self._carries(one):
                    waiting += one.inputs if backward else one.outputs
                met.add(id(one))
        return False

    def _carries(self, one: _Step) -> bool:
        """Whether a node may stand between a softmax and its products; of products with weights, what mixes heads."""
        if one.op_type not in _PRODUCTS:
            return one.op_type not in _ENDS and one.op_type not in _FUSED
        shapes = [self.shapes.get(name, ()) for name in one.inputs[:2]]
        return any(len(shape) > 1 and shape[0] == shape[1] <= _MAX_HEADS for shape in shapes)


def find_attention_like(view: GraphView) -> dict[str, str]:
    """Find what looks like attention, at any depth.

    Returns:
        By a node's first output, what is said of it where no rule takes it.
    """
    flow, found = _Flow(view.model), dict[str, str]()
    for one in flow.steps:
        where = f" inside {one.inside}" if one.inside else ""
        if one.op_type in _FUSED and one.inside:
            found[one.outputs[0]] = f"{name_of(one.node)}: is {one.op_type}{where}; expected it at the top of the graph"
        elif flow.is_softmax(one) and flow.has_scores(one) and flow.weighs(one):
            axis = attribute(one.node, "axis", -1 if view.opset >= 13 or one.op_type == "Div" else 1)
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
