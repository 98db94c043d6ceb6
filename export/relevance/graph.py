"""Makes the relevance graph: how much each position of the input did for a score, and whether that adds up.

The score of a row is the sum of an output's numbers times weights that come with the request: 1 at a label and 0
elsewhere is that label's logit; with -1 at another it is their difference; another input's embedding, the similarity.
Weights that are all 0, and those of a request that brings none, stand for 1 at the largest number of the row.

With "libra" (Mehri et al. 2025, "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer
Attributions", CVPR) what enters the first layer, times its gradient, plus what is added on the way (biases), times the
gradient there, make up the score: Srinivas and Fleuret 2019, "Full-Gradient Representation", equation 3. A term with an
axis of positions is theirs; the rest belongs to no position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.errors import RelevanceError
from export.relevance.reverse import Method, Reverse, varying
from export.relevance.rules import RULES
from export.tapping.tap import sort_nodes
from export.tapping.view import GraphView

WEIGHTS, POSITIONS, REST, SCORE = (f"relevance.{name}" for name in ("weights", "positions", "rest", "score"))
_STATE_AXES = 3  # [B, N, D]
_LEAST_OPSET = 13  # axes as inputs


@dataclass(frozen=True)
class Relevance:
    """What a relevance graph has, by name.

    Attributes:
        weights: An input, float32 [B, C] as the output whose score is explained; it may be left out.
        positions: Relevance of each position, float32 [B, N].
        rest: What belongs to none, float32 [B].
        score: What is explained, float32 [B]; the sum of both.
        embedded: The value whose positions they are, what enters the first layer.
    """

    weights: str
    positions: str
    rest: str
    score: str
    embedded: str


def add_relevance(
    lowered: ModelProto, folder: Path, output: str, method: Method = "libra"
) -> tuple[ModelProto, Relevance]:
    """Give a graph the relevance of its positions as further outputs.

    Args:
        lowered: A tapped graph without Attention nodes; it is not changed.
        folder: Where its weights lie, if not in itself.
        output: What is explained, float32 [B, C].
        method: Which gradient.

    Raises:
        RelevanceError: An operator has no rule, the graph has no value that is all that enters its layers, no such
            output, an older opset, or relevance already.
    """
    model = ModelProto()
    model.CopyFrom(lowered)
    view = GraphView(model, folder)
    check_output(view, output)
    embedded = find_embedded(view, output)
    reverse = Reverse(view, method, embedded)
    weights = _choose_weights(reverse, output, _declare_weights(view))
    score = reverse.add("Mul", [output, weights])
    reverse.walk(output, weights, RULES)
    positions, rest = sum_terms(reverse, embedded)
    names = Relevance(WEIGHTS, POSITIONS, REST, SCORE, embedded)
    made = (names.positions, positions, 2), (names.rest, rest, 1), (names.score, _sum_rows(reverse, score), 1)
    for name, value, rank in made:
        view.add("Identity", [value], name)
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


def find_embedded(view: GraphView, output: str) -> str:
    """Find what enters the first layer: the last value before any attention through which all of the input goes.

    Raises:
        RelevanceError: There is none of three axes.
    """
    sources = [node.output[0] for node in view.model.graph.node if _embeds(view, node)]
    ahead = varying(view, sources, "libra")
    behind = _leading_to(view, output, ahead)
    through = ahead & behind
    last = ""
    left = {name: sum(_reaches(taker, through) for taker in view.consumers(name)) for name in through}
    live = {name for name in sources if name in through}
    for node in view.model.graph.node:
        if _attends(view, node, through):
            break
        if not _reaches(node, through):
            continue
        for name in node.input:
            if name in left:
                left[name] -= 1
                if not left[name]:
                    live.discard(name)
        live.update(name for name in node.output if name in through)
        if len(live) == 1 and view.rank(only := next(iter(live))) == _STATE_AXES:
            last = only
    if not last:
        raise RelevanceError("no value [B, N, D] through which all of the input goes to the layers")
    return last


def _embeds(view: GraphView, node: NodeProto) -> bool:
    """Whether a node looks rows of a table up, or makes features of what is no text."""
    if node.op_type == "Gather":
        return view.is_constant(node.input[0]) and not view.is_constant(node.input[1])
    given = {value.name for value in view.model.graph.input}
    return any(name in given for name in node.input) and node.op_type in (
        "Conv",
        "MatMul",
        "Gemm",
        "Reshape",
        "Transpose",
    )


def _attends(view: GraphView, node: NodeProto, through: set[str]) -> bool:
    """Whether a node weighs positions: a product of what is held with what varies."""
    if node.op_type != "MatMul" or not _reaches(node, through):
        return False
    held = [name for name in node.input if name not in through]
    return bool(held) and not view.is_constant(held[0])


def _reaches(node: NodeProto, through: set[str]) -> bool:
    return any(name in through for name in node.output)


def _leading_to(view: GraphView, output: str, ahead: set[str]) -> set[str]:
    """The values among some that an output is made of by way of them."""
    found, waiting = set[str](), [output]
    while waiting:
        name = waiting.pop()
        if name in found or name not in ahead:
            continue
        found.add(name)
        node = view.producer(name)
        waiting += list(node.input) if node is not None else []
    return found


def _declare_weights(view: GraphView) -> str:
    """Declare the weights, an input that may be left out: it has a value of its own, 0."""
    value = helper.make_tensor_value_info(WEIGHTS, TensorProto.FLOAT, ["rows", "columns"])
    view.model.graph.input.append(value)
    return view.add_constant(np.zeros((1, 1), dtype=np.float32), WEIGHTS)


def _choose_weights(reverse: Reverse, output: str, given: str) -> str:
    """The weights that came, or 1 at the largest number of a row where they are all 0; float32 [B, C]."""
    add, zero = reverse.add, reverse.number(0.0, output)
    largest = add("ArgMax", [output], axis=1, keepdims=1)  # [B, 1]
    columns = add("Range", [reverse.whole(0), add("Squeeze", [reverse.size_of(output, 1)]), reverse.whole(1)])
    first = add("Cast", [add("Equal", [largest, columns])], to=TensorProto.FLOAT)  # [B, C]
    differs = add("Cast", [add("Not", [add("Equal", [given, zero])])], to=TensorProto.FLOAT)
    any_given = add("Greater", [reverse.reduce_sum(differs, [1], keepdims=1), zero])  # [B, 1]
    return add("Where", [any_given, given, first])


def sum_terms(reverse: Reverse, embedded: str) -> tuple[str, str]:
    """Sum terms times their gradients: by position [B, N], and those of none [B]."""
    view, gradient = reverse.view, reverse.gradient(embedded)
    if not gradient:
        raise RelevanceError(f"{embedded}: the output does not depend on it")
    positions = [reverse.reduce_sum(reverse.add("Mul", [embedded, gradient]), [-1], keepdims=0)]
    rest = []
    for term, given, output in reverse.terms:
        share = reverse.add("Mul", [given, term])
        if _has_positions(view.shape(output), view.shape(embedded)):
            positions.append(reverse.reduce_sum(share, [-1], keepdims=0))
        elif _has_positions(_turned(view.shape(output)), view.shape(embedded)):  # [N, B, D], as torch's own attention
            positions.append(reverse.add("Transpose", [reverse.reduce_sum(share, [-1], keepdims=0)], perm=[1, 0]))
        else:
            rest.append(_sum_rows(reverse, share))
    nothing = reverse.reduce_sum(reverse.add("Mul", [positions[0], reverse.number(0.0, embedded)]), [-1], keepdims=0)
    return _total(reverse, positions), _total(reverse, rest or [nothing])


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
