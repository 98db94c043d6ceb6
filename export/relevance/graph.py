"""Makes the relevance graphs: how much each position of the input did for a score, by several methods.

The score of a row is the sum of an output's numbers times weights that come with the request: 1 at a label and 0
elsewhere is that label's logit; with -1 at another it is their difference; another input's embedding, the similarity.
Weights that are all 0, and those of a request that brings none, stand for 1 at the largest number of the row.

With "libra" (Mehri et al. 2025, "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer
Attributions", CVPR) what enters the first layer, times its gradient, plus what is added on the way (biases), times the
gradient there, make up the score: Srinivas and Fleuret 2019, "Full-Gradient Representation", equation 3. A term with an
axis of positions is theirs; the rest belongs to no position.

"layers" is "libra", and tells it at every depth: see export/relevance/layers.py.

With "gradient" it is what enters the first layer, times the score's own gradient: Shrikumar et al. 2016, "Not Just a
Black Box". What enters may be scaled, by a number a row: the mean over scales from 0 to 1 are integrated gradients
(Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", equation 3), from a baseline of zeros. "genatt"
and "legrad" are those of export/relevance/attention.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from artifact.contract import RelevanceGraph
from artifact.dtypes import Array
from export.errors import RelevanceError
from export.relevance.attention import explain_each_layer, repeat_head, weigh_attention
from export.relevance.flow import find_embedded, find_states, find_weights
from export.relevance.layers import explain_depths
from export.relevance.reverse import Method, Reverse
from export.relevance.rows import read_rows
from export.relevance.rules import RULES
from export.relevance.terms import sum_rows, sum_terms, times_gradient
from export.tapping.decompose import places_of
from export.tapping.tap import sort_nodes
from export.tapping.view import GraphView

WEIGHTS, SCALE = "relevance.weights", "relevance.scale"
POSITIONS, REST, SCORE = (f"relevance.{name}" for name in ("positions", "rest", "score"))
BY_LAYER, ADDED = "relevance.by_layer", "relevance.added"
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
        by_layer: Of "layers", what each position did by what enters the first layer and what leaves each, float32
            [B, L + 1, N]; else empty.
        added: Likewise, what is added behind, float32 [B, L + 1].
    """

    weights: str
    positions: str
    rest: str
    score: str
    embedded: str
    scale: str = ""
    by_layer: str = ""
    added: str = ""


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
            output, no attention that this could be of, an older opset, or relevance already; or no layers are found.
    """
    model = ModelProto()
    model.CopyFrom(lowered)
    view = GraphView(model, folder)
    check_output(view, output)
    embedded, scale, rest = find_embedded(view, output), "", ""
    weights = _declare(view, WEIGHTS, np.zeros((1, 1), dtype=np.float32), ["rows", "columns"])
    made = dict[str, tuple[str, int]]()
    match method:
        case "libra" | "layers":
            layers = (
                find_states(view, output, find_weights(view, output, attention, embedded)) if method == "layers" else []
            )
            reverse = Reverse(view, "libra", embedded)
            chosen = _choose_weights(reverse, output, weights)
            reverse.walk(output, chosen, RULES)
            (positions,), rest, shares = sum_terms(reverse, embedded)
            if layers:
                by_layer, added = explain_depths(reverse, [embedded, *layers], shares)
                made |= {BY_LAYER: (by_layer, 3), ADDED: (added, 2)}
        case "gradient":
            scale = _declare(view, SCALE, np.ones(1, dtype=np.float32), ["rows"])
            reverse = Reverse(*_scale(view, folder, embedded, scale))
            chosen = _choose_weights(reverse, output, weights)
            reverse.walk(output, chosen, RULES)
            positions = times_gradient(reverse, embedded, reverse.source)
        case "genatt":
            found, rows = find_weights(view, output, attention, embedded), read_rows(view, output)
            places = rows.places if found[-1] in rows.made else ""
            found = [rows.of(one) for one in found]
            reverse = Reverse(_sorted(view, folder), "gradient", found[0])
            chosen = _choose_weights(reverse, output, weights)
            reverse.walk(output, chosen, RULES)
            positions = weigh_attention(reverse, found, places)
        case "legrad":
            found = find_weights(view, output, attention, embedded)
            scores = repeat_head(view, output, found)
            view = _sorted(view, folder)
            found = [read_rows(view, score, [one]).of(one) for one, score in zip(found, scores, strict=True)]
            reverse = Reverse(_sorted(view, folder), "gradient", found[-1])
            chosen = _choose_weights(reverse, output, weights)
            positions = explain_each_layer(reverse, found, scores, chosen)
    score = sum_rows(reverse, reverse.add("Mul", [output, chosen]))
    names = Relevance(WEIGHTS, POSITIONS, rest and REST, SCORE, embedded, scale)
    if method == "layers":
        names = replace(names, by_layer=BY_LAYER, added=ADDED)
    made |= {names.positions: (positions, 2), names.rest: (rest, 1), names.score: (score, 1)}
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


def _sorted(view: GraphView, folder: Path) -> GraphView:
    """Look at a graph anew that was added to."""
    sort_nodes(view.model)
    return GraphView(view.model, folder)


def _choose_weights(reverse: Reverse, output: str, given: str) -> str:
    """The weights that came, or 1 at the largest number of a row where they are all 0; float32 [B, C]."""
    add, zero = reverse.add, reverse.number(0.0, output)
    largest = add("ArgMax", [output], axis=1, keepdims=1)  # [B, 1]
    columns = places_of(reverse.view, output, 1, reverse.name("columns"))
    first = add("Cast", [add("Equal", [largest, columns])], to=TensorProto.FLOAT)  # [B, C]
    differs = add("Cast", [add("Not", [add("Equal", [given, zero])])], to=TensorProto.FLOAT)
    any_given = add("Greater", [reverse.reduce_sum(differs, [1], keepdims=1), zero])  # [B, 1]
    return add("Where", [any_given, given, first])


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
