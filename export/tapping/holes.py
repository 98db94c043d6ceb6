"""Refuses a graph with attention that no rule takes: a list of layers with a hole in it would number the rest wrongly.

What counts is a softmax between two products. Its scores come from a product of two computed values, or of learned
queries and one (export/tapping/tokens.py). What it gives enters another product of two computed values, by way of
anything but products with weights that do more than mix heads. Branches and loops are looked into.

So does an activation of scores (sigmoid, ReLU and the like) that are not normalised, between two products of matrices
that have weights on neither side, not even such as a router picks (export/tapping/picked.py). What enters it is no
score if weights of a softmax have made it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from export.errors import TapError
from export.tapping.flow import Flow, Step
from export.tapping.picked import find_weights
from export.tapping.tokens import ANY, ENDS, FUSED, PRODUCTS, Axes, axes_of_weights, taken_axes, weighed_by
from export.tapping.view import GraphView, attribute, name_of

_SOFTMAXES = frozenset({"Softmax", "LogSoftmax", "BiasSoftmax"})
_BESIDE_SUMS = frozenset({"Expand", "Unsqueeze", "Reshape", "Clip", "Add", "Max", "Cast", "Reciprocal"})
_SUMS = frozenset({"ReduceSum", "ReduceL1"})
_TOTALS = frozenset({"ReduceSum", "ReduceMean"})  # of products by elements
_EXPONENTIALS = "Exp"
_ACTIVATIONS = frozenset({"Sigmoid", "HardSigmoid", "Relu", "LeakyRelu", "Softplus", "Elu", "Gelu", "Tanh"})
_FILTERS = "Conv"  # multiplies positions by what lies around them: with computed filters, too, it is no attention
_CHOOSES = frozenset({"Gather", "GatherND", "GatherElements", "ScatterElements", "ScatterND"})  # by input 1
_RANKS = "TopK"  # its second output says where the largest stood
_MAX_HEADS = 64  # a square matrix no larger mixes heads (Shazeer et al. 2020, "Talking-Heads Attention")
_WITH_HEADS = 4  # axes of weights [B, H, Q, K]


class Suspects(Flow):
    """What of a model looks like attention."""

    def is_product(self, one: Step) -> bool:
        """Whether a node multiplies two computed values: as matrices, or by elements that are then summed."""
        computed = {name for name in one.inputs[:2] if name not in self.constants}
        if len(computed) < 2:  # of one value with itself as well: lengths of vectors
            return one.op_type == "MatMul" and len(one.inputs) > 1 and one.inputs[0] == one.inputs[1] in computed
        if one.op_type == "Mul":
            return any(taker.op_type in _TOTALS for taker in self.takers[one.outputs[0]])
        return one.op_type in PRODUCTS

    def is_softmax(self, one: Step) -> bool:
        """Whether a node is a softmax, or divides exponentials by their sum; or takes exponentials in any other way.

        Their sum may be subtracted before, as a logarithm, or divide what they have weighed.
        """
        if one.op_type in ("Div", "Mul"):
            return self._sum(one) is not None
        return (
            one.op_type in _SOFTMAXES
            or one.op_type == _EXPONENTIALS
            or (one.op_type == "LpNormalization" and attribute(one.node, "p", 2) == 1)
        )

    def _sum(self, one: Step) -> Step | None:
        """What sums the value that a node divides by it, or multiplies with one by it."""
        pairs = [one.inputs, one.inputs[::-1]] if one.op_type == "Mul" else [one.inputs]
        for of, divisor in pairs:
            sums = self.makers[divisor][:1] if divisor not in self.constants else []
            while sums and sums[0].op_type in _BESIDE_SUMS:
                sums = self.makers[sums[0].inputs[0]][:1]
            if sums and sums[0].op_type in _SUMS and sums[0].inputs[0] == of:
                return sums[0]
        return None

    def has_scores(self, softmax: Step) -> bool:
        """Whether what a softmax normalises comes from a product of two computed values, or of learned queries."""
        return self._meets(softmax, backward=True) or self._scores_positions(softmax)

    def has_learned_queries(self, softmax: Step) -> bool:
        """Whether it comes from learned queries alone; weights that mix heads are none."""
        return self._scores_positions(softmax) and not self._meets(softmax, backward=True)

    def weighs(self, softmax: Step) -> bool:
        """Whether what a softmax gives enters a product."""
        return self._meets(softmax, backward=False)

    def find_activated(self) -> Iterator[Step]:
        """Yield what may be attention without a softmax: activations of scores that then weigh values."""
        found = [one for one in self.steps if one.op_type in _ACTIVATIONS]
        if not found:
            return
        softmaxes = [one for one in self.steps if self.is_softmax(one)]
        weighing = {id(product) for one in softmaxes for product in self._products(one, backward=False)}
        weights = find_weights(self)
        for one in found:
            before, behind = (self._matrix_products(one, weights, backward=backward) for backward in (True, False))
            if any(id(product) not in weighing for product in before) and any(True for _ in behind):
                yield one

    def _matrix_products(self, activation: Step, weights: set[str], *, backward: bool) -> Iterator[Step]:
        """Yield the nearest products of matrices, neither of which is one of weights."""
        for one in self._products(activation, backward=backward):
            if one.op_type in PRODUCTS and one.op_type != _FILTERS and weights.isdisjoint(one.inputs[:2]):
                yield one

    def _meets(self, softmax: Step, *, backward: bool) -> bool:
        return any(True for _ in self._products(softmax, backward=backward))

    def _products(self, start: Step, *, backward: bool) -> Iterator[Step]:
        """Yield the nearest products before a step, or behind it."""
        waiting, met = [*start.inputs[:1]] if backward else [*start.outputs], set[int]()
        while waiting:
            value = waiting.pop()
            for one in self.makers[value] if backward else self.takers[value]:
                if id(one) in met or value not in (written_by(one) if backward else read_by(one)):
                    continue
                met.add(id(one))
                if self.is_product(one):
                    yield one
                elif not self._stands_for(one, start, backward=backward) and self.carries(one, start):
                    waiting += read_by(one) if backward else written_by(one)

    def _stands_for(self, one: Step, start: Step, *, backward: bool) -> bool:
        """Whether a softmax is met that is looked at instead: of exponentials the one that divides them."""
        if start.op_type == _EXPONENTIALS:
            return not backward and one.op_type != _EXPONENTIALS and self.is_softmax(one)
        return start.op_type in _ACTIVATIONS and self.is_softmax(one)

    def _scores_positions(self, softmax: Step) -> bool:
        """Whether what is normalised are the positions of a value that weights score, not what the weights make."""
        start = (softmax.inputs[0], self.normalised(softmax))
        waiting, met = [start], {start}
        while waiting:
            value, axes = waiting.pop()
            for one in self.makers[value]:
                weights = weighed_by(self, one)
                if weights is not None and axes - axes_of_weights(self, one, weights):
                    return True
                if weights is None and self.carries(one, softmax):
                    further = [(name, taken_axes(self, one, name, axes)) for name in one.inputs]
                    further = [entry for entry in further if entry[1] and entry not in met]
                    waiting += further
                    met.update(further)
        return False

    def normalised(self, softmax: Step) -> Axes:
        """The axis that a softmax runs over, from the end."""
        axes, shape = [_axis_of(softmax, self.view)], self.shape(softmax.inputs[0])
        if softmax.op_type in ("Div", "Mul") and (sums := self._sum(softmax)):
            told = self.view.constant(sums.inputs[1]) if len(sums.inputs) > 1 else attribute(sums.node, "axes")
            axes = [ANY] if told is None else [int(axis) for axis in told]
            shape = shape if told is not None else None
        return Axes(axis if axis < 0 else axis - len(shape) if shape else ANY for axis in axes)

    def carries(self, one: Step, softmax: Step) -> bool:
        """Whether a node may stand between a softmax and its products; of products with weights, what mixes heads."""
        if one.op_type not in PRODUCTS:
            return one.op_type not in ENDS and one.op_type not in FUSED
        shapes = [self.shapes.get(name, ()) for name in one.inputs[:2]]
        squares = [shape[0] for shape in shapes if len(shape) > 1 and shape[0] == shape[1] <= _MAX_HEADS]
        return any(self._may_mix(one, softmax, heads) for heads in squares)

    def _may_mix(self, one: Step, softmax: Step, heads: int) -> bool:
        """Whether a square matrix may mix heads, not channels: of four axes, one is as many and not normalised."""
        ranks = [self.view.rank(name) for name in one.inputs[:2] if name not in self.constants]
        if any(rank is not None and rank < _WITH_HEADS for rank in ranks):
            return False
        shape = self.view.shape(softmax.inputs[0])
        if shape is None:
            return True
        axis = _axis_of(softmax, self.view) % len(shape)
        others = [size for place, size in enumerate(shape) if place != axis and (place or len(shape) < _WITH_HEADS)]
        unknown = any(not isinstance(size, int) and size not in self._given for size in others)
        return unknown or any(isinstance(size, int) and size % heads == 0 for size in others)


def read_by(one: Step) -> Sequence[str]:
    """What a node makes its result of; not the places by which it chooses."""
    return [name for place, name in enumerate(one.inputs) if place != 1] if one.op_type in _CHOOSES else one.inputs


def written_by(one: Step) -> Sequence[str]:
    """What a node gives; not the places of what is largest."""
    return one.outputs[:1] if one.op_type == _RANKS else one.outputs


def _axis_of(softmax: Step, view: GraphView) -> int:
    """The axis that is normalised; before opset 13 the first that was."""
    fixed = softmax.op_type not in _SOFTMAXES
    return int(attribute(softmax.node, "axis", -1 if view.opset >= 13 or fixed else 1))


def find_attention_like(flow: Suspects) -> dict[str, str]:
    """Find what of a model looks like attention, at any depth.

    Returns:
        By a node's first output, what is said of it where no rule takes it.
    """
    found = dict[str, str]()
    activated = {id(one) for one in flow.find_activated()}
    for one in flow.steps:
        where = f" inside {one.inside}" if one.inside else ""
        if one.op_type in FUSED and one.inside:
            found[one.outputs[0]] = f"{name_of(one.node)}: is {one.op_type}{where}; expected it at the top of the graph"
        elif id(one) in activated or (flow.is_softmax(one) and flow.has_scores(one) and flow.weighs(one)):
            axis = _axis_of(one, flow.view)
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
