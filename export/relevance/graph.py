"""Makes the relevance graphs: how much each position of the input did for a score, by several methods.

The score of a row is the sum of an output's numbers times weights that come with the request: 1 at a label and 0
elsewhere is that label's logit; with -1 at another it is their difference; another input's embedding, the similarity.
Weights that are all 0, and those of a request that brings none, stand for 1 at the largest number of the row.

With "libra" (Mehri et al. 2025, "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer
Attributions", CVPR) what enters the first layer, times its gradient, plus what is added on the way (biases), times the
gradient there, make up the score: Srinivas and Fleuret 2019, "Full-Gradient Representation", equation 3. A term with an
axis of positions is theirs; the rest belongs to no position.

With "gradient" it is what enters the first layer, times the score's own gradient: Shrikumar et al. 2016, "Not Just a
Black Box". What enters may be scaled, by a number a row: the mean over scales from 0 to 1 are integrated gradients
(Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", equation 3), from a baseline of zeros. "genatt"
and "legrad" are those of export/relevance/attention.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from artifact.contract import RelevanceGraph
from artifact.dtypes import Array
from export.errors import RelevanceError
from export.relevance.attention import explain_each_layer, repeat_head, weigh_attention
from export.relevance.flow import find_embedded, find_weights
from export.relevance.reverse import Method, Reverse
from export.relevance.rules import RULES
from export.tapping.tap import sort_nodes
from export.tapping.view import GraphView

WEIGHTS, SCALE = "relevance.weights", "relevance.scale"
POSITIONS, REST, SCORE = (f"relevance.{name}" for name in ("positions", "rest", "score"))
_STATE_AXES = 3  # [B, N, D]
_LEAST_OPSET = 13  # axes as inputs


@dataclass(frozen=True)
class Relevance:
    """What a relevance graph has, by name.

    Attributes:
        weights: An input, float32 [B, C] as the output whose score is explained; it may be left out.
        positions: Relevance of each position, float32 [B, N].
        rest: What belongs to none, float32 [B]; empty where positions and rest do not make up the score.
        score: What is explained, float32 [B].
        embedded: The value whose positions they are, what enters the first layer.
        scale: An input, float32 [B], that scales that value; it may be left out, and is 1 then. Empty where there is
            none.
    """

    weights: str
    positions: str
    rest: str
    score: str
    embedded: str
    scale: str = ""


def add_relevance(
    lowered: ModelProto,
    folder: Path,
    output: str,
    method: RelevanceGraph = "libra",
    attention: Sequence[str] = (),
) -> tuple[ModelProto, Relevance]:
    """Give a graph the relevance of its positions as further outputs.

    Args:
        lowered: A tapped graph without Attention nodes; it is not changed.
        folder: Where its weights lie, if not in itself.
        output: What is explained, float32 [B, C].
        method: By which method.
        attention: Names of the attention weights of each layer, [B, H, N, N], for the methods of these.

    Raises:
        RelevanceError: An operator has no rule, the graph has no value that is all that enters its layers, no such
            output, no attention that this could be of, an older opset, or relevance already.
    """
    model = ModelProto()
    model.CopyFrom(lowered)
    view = GraphView(model, folder)
    check_output(view, output)
    embedded, scale, rest = find_embedded(view, output), "", ""
    weights = _declare(view, WEIGHTS, np.zeros((1, 1), dtype=np.float32), ["rows", "columns"])
    match method:
        case "libra":
            reverse = Reverse(view, "libra", embedded)
            chosen = _choose_weights(reverse, output, weights)
            reverse.walk(output, chosen, RULES)
            positions, rest = sum_terms(reverse, embedded)
        case "gradient":
            scale = _declare(view, SCALE, np.ones(1, dtype=np.float32), ["rows"])
            reverse = Reverse(*_scale(view, folder, embedded, scale))
            chosen = _choose_weights(reverse, output, weights)
            reverse.walk(output, chosen, RULES)
            positions = _times_gradient(reverse, embedded)
        case "genatt":
            found = find_weights(view, output, attention)
            reverse = Reverse(view, "gradient", found[0])
            chosen = _choose_weights(reverse, output, weights)
            reverse.walk(output, chosen, RULES)
            positions = weigh_attention(reverse, found)
        case "legrad":
            found = find_weights(view, output, attention)
            scores = repeat_head(view, output, found)
            view = GraphView(model, folder)
            reverse = Reverse(view, "gradient", found[-1])
            chosen = _choose_weights(reverse, output, weights)
            positions = explain_each_layer(reverse, found, scores, chosen)
    score = _sum_rows(reverse, reverse.add("Mul", [output, chosen]))
    names = Relevance(WEIGHTS, POSITIONS, rest and REST, SCORE, embedded, scale)
    made = {names.positions: (positions, 2), names.rest: (rest, 1), names.score: (score, 1)}
    for name, (value, rank) in made.items():
        if name:
            reverse.view.add("Identity", [value], name)
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank))
    sort_nodes(model)
    prune(model)
    return model, names


def check_output(view: GraphView, output: str) -> None:
    """Refuse a graph to which relevance of an output cannot be added; raises as add_relevance."""
    given = [value.name for value in view.model.graph.output]
    if output not in given:
        raise RelevanceError(f"output: {output!r}; expected one of {', '.join(given)}")
    if view.opset < _LEAST_OPSET:
        raise RelevanceError(f"opset: {view.opset}; expected {_LEAST_OPSET} or later")
    graph = view.model.graph
    names = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    names += [name for node in graph.node for name in node.output]
    if taken := next((name for name in names if name.startswith("relevance.")), ""):
        raise RelevanceError(f"{taken}: a name that this adds; expected a graph without relevance")


def _declare(view: GraphView, name: str, content: Array, axes: Sequence[str]) -> str:
    """Declare an input that may be left out: it has a value of its own."""
    view.model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, axes))
    return view.add_constant(content, name)


def _scale(view: GraphView, folder: Path, embedded: str, scale: str) -> tuple[GraphView, Method, str]:
    """Scale what enters the first layer, for all that takes it; returns what a Reverse takes."""
    axes = view.add_numbers([-1, 1, 1], f"{scale}.axes")
    factor = view.add("Reshape", [scale, axes], f"{scale}.factor")
    scaled = f"{scale}.embedded"
    for node in view.model.graph.node:
        node.input[:] = [scaled if name == embedded else name for name in node.input]
    view.add("Mul", [embedded, factor], scaled)
    sort_nodes(view.model)
    return GraphView(view.model, folder), "gradient", scaled


def _choose_weights(reverse: Reverse, output: str, given: str) -> str:
    """The weights that came, or 1 at the largest number of a row where they are all 0; float32 [B, C]."""
    add, zero = reverse.add, reverse.number(0.0, output)
    largest = add("ArgMax", [output], axis=1, keepdims=1)  # [B, 1]
    columns = add("Range", [reverse.whole(0), add("Squeeze", [reverse.size_of(output, 1)]), reverse.whole(1)])
    first = add("Cast", [add("Equal", [largest, columns])], to=TensorProto.FLOAT)  # [B, C]
    differs = add("Cast", [add("Not", [add("Equal", [given, zero])])], to=TensorProto.FLOAT)
    any_given = add("Greater", [reverse.reduce_sum(differs, [1], keepdims=1), zero])  # [B, 1]
    return add("Where", [any_given, given, first])


def _times_gradient(reverse: Reverse, embedded: str, source: str = "") -> str:
    """Sum what enters the first layer times its gradient over what a position has, [B, N]."""
    gradient = reverse.gradient(source or reverse.source)
    if not gradient:
        raise RelevanceError(f"{embedded}: the output does not depend on it")
    return reverse.reduce_sum(reverse.add("Mul", [embedded, gradient]), [-1], keepdims=0)


def sum_terms(reverse: Reverse, *embedded: str) -> tuple[str, ...]:
    """Sum terms times their gradients: by position [B, N] of each that enters first layers, and those of none [B]."""
    view, positions = reverse.view, [[_times_gradient(reverse, one, one)] for one in embedded]
    rest = []
    for term, given, output in reverse.terms:
        share = reverse.add("Mul", [given, term])
        for own, one in zip(positions, embedded, strict=True):
            if _has_positions(view.shape(output), view.shape(one)):
                own.append(reverse.reduce_sum(share, [-1], keepdims=0))
                break
            if _has_positions(_turned(view.shape(output)), view.shape(one)):  # [N, B, D], as torch's own attention
                own.append(reverse.add("Transpose", [reverse.reduce_sum(share, [-1], keepdims=0)], perm=[1, 0]))
                break
        else:
            rest.append(_sum_rows(reverse, share))
    first = positions[0][0]
    nothing = reverse.reduce_sum(reverse.add("Mul", [first, reverse.number(0.0, first)]), [-1], keepdims=0)
    return (*(_total(reverse, own) for own in positions), _total(reverse, rest or [nothing]))


def _total(reverse: Reverse, parts: Sequence[str]) -> str:
    total = parts[0]
    for part in parts[1:]:
        total = reverse.add("Add", [total, part])
    return total


def _sum_rows(reverse: Reverse, value: str) -> str:
    """The sum over all axes but the batch, [B]."""
    flat = reverse.add("Flatten", [value], axis=1)
    return reverse.reduce_sum(flat, [1], keepdims=0)


def _has_positions(shape: Sequence[object] | None, embedded: Sequence[object] | None) -> bool:
    return shape is not None and embedded is not None and len(shape) == _STATE_AXES and shape[:2] == embedded[:2]


def _turned(shape: Sequence[object] | None) -> Sequence[object] | None:
    return None if shape is None else (*reversed(shape[:2]), *shape[2:])


def prune(model: ModelProto) -> None:
    """Leave out what no output needs, weights included."""
    needed = {value.name for value in model.graph.output}
    kept = list[NodeProto]()
    for node in reversed(list(model.graph.node)):
        if any(name in needed for name in node.output):
            needed.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
