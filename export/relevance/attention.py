"""Relevance by the gradient of a score at the attention weights A, [B, H, N, N]: which positions were looked at for it.

Both take what is above 0 alone, so that nothing speaks against a label, and the numbers do not make up its score.

"genatt" (Chefer, Gur and Wolf 2021, "Generic Attention-Model Explainability for Interpreting Bi-Modal and
Encoder-Decoder Transformers", ICCV), equations 5 and 6: of each layer the mean M over heads of (grad A * A)+, and over
the layers R <- R + M R, which begins with the identity. Relevance is the row of R of the position that the score is
read from, less the identity.

"legrad" (Bousselham et al. 2025, "LeGrad: An Explainability Method for Vision Transformers via Feature Formation
Sensitivity", ICCV): of each layer (grad A)+, where the score is what the network's end makes of what leaves that layer;
the mean over heads, queries and layers.

Which positions the score is read from, the network says: those whose attention has a gradient in that layer. For a
class token it is its own, and LeGrad's mean over all queries, of which the others are 0, is so many times smaller; for
a mean over positions it is all that are no padding, and their mean is taken.
"""

from collections.abc import Mapping, Sequence

from onnx import NodeProto, TensorProto

from export.errors import RelevanceError
from export.relevance.flow import find_states, leading_to
from export.relevance.reverse import Reverse
from export.relevance.rules import RULES
from export.relevance.rules.picks import one_hot
from export.tapping.view import GraphView


def weigh_attention(reverse: Reverse, weights: Sequence[str], places: str = "") -> str:
    """Relevance by "genatt".

    Args:
        reverse: Has walked back from the score to the first weights.
        weights: The attention weights of each layer.
        places: Of which positions the last layer's are, int64 [R]; empty for all.

    Returns:
        The value of it, float32 [B, N].

    Raises:
        RelevanceError: The score does not depend on the weights of a layer.
    """
    add, gradients = reverse.add, [_gradient(reverse, one) for one in weights]
    read = add("Unsqueeze", [_read_from(reverse, gradients[-1]), _last_but_one(reverse)])  # [B, 1, N or R]
    begin = add("MatMul", [read, _rows_of_identity(reverse, places, weights[-1])]) if places else read  # [B, 1, N]
    row = begin
    # A row times the product of all layers' matrices, from the last to the first, takes no product of matrices.
    for one, gradient in zip(reversed(weights), reversed(gradients), strict=True):
        positive = add("Relu", [add("Mul", [gradient, one])])
        mean = reverse.mean(positive, [1], keepdims=0)  # [B, N, N], of the last layer [B, N or R, N]
        row = add("Add", [row, add("MatMul", [read if row == begin else row, mean])])
    return add("Squeeze", [add("Sub", [row, begin]), _last_but_one(reverse)])


def repeat_head(view: GraphView, output: str, weights: Sequence[str]) -> list[str]:
    """Repeat behind each layer, but the last, what makes the output of what leaves the last; what it made is returned.

    The view does not know of the new nodes.

    Raises:
        RelevanceError: As find_states.
    """
    if len(weights) == 1:
        return [output]
    *earlier, last = find_states(view, output, weights)
    head = _between(view, last, output)
    made = []
    for layer, state in enumerate(earlier):
        names = {name: f"relevance.layer.{layer}.{name}" for node in head for name in node.output if name}
        view.model.graph.node.extend(_renamed(node, {**names, last: state}) for node in head)
        made.append(names[output])
    return [*made, output]


def explain_each_layer(reverse: Reverse, weights: Sequence[str], scores: Sequence[str], seed: str) -> str:
    """Relevance by "legrad".

    Args:
        reverse: Of the graph in which the head was repeated, to add to; it has walked nowhere.
        weights: The attention weights of each layer.
        scores: What the head makes behind each; see repeat_head.
        seed: What of each number is in the score, float32 [B, C].

    Returns:
        The value of it, float32 [B, N].

    Raises:
        RelevanceError: An operator has no rule, or a score does not depend on its layer's weights.
    """
    add, total = reverse.add, ""
    for layer, (one, score) in enumerate(zip(weights, scores, strict=True)):
        walked = Reverse(reverse.view, "gradient", one, layer)
        walked.walk(score, seed, RULES)
        gradient = _gradient(walked, one)
        read = add("Unsqueeze", [_read_from(reverse, gradient), _last_but_one(reverse)])  # [B, 1, N]
        mean = reverse.mean(add("Relu", [gradient]), [1], keepdims=0)  # [B, N, N]
        seen = add("Mul", [mean, _looked_at(reverse, one)])
        found = add("Squeeze", [add("MatMul", [read, seen]), _last_but_one(reverse)])
        total = add("Add", [total, found]) if total else found
    return add("Mul", [total, reverse.number(1 / len(weights), total)])


def _gradient(reverse: Reverse, weights: str) -> str:
    gradient = reverse.gradient(weights)
    if not gradient:
        raise RelevanceError(f"{weights}: the score does not depend on it")
    return gradient


def _read_from(reverse: Reverse, gradient: str) -> str:
    """Weights of positions, [B, N], alike for those whose attention, of gradient [B, H, N, N], is read; 0 elsewhere."""
    add = reverse.add
    sums = reverse.reduce_sum(add("Abs", [gradient]), [1, 3], keepdims=0)
    read = add("Cast", [add("Greater", [sums, reverse.number(0.0, gradient)])], to=TensorProto.FLOAT)
    count = add("Max", [reverse.reduce_sum(read, [1], keepdims=1), reverse.number(1.0, gradient)])
    return add("Div", [read, count])


def _rows_of_identity(reverse: Reverse, places: str, weights: str) -> str:
    """1 where a place is a position, of weights [B, H, R, N]: [R, N]."""
    return reverse.add("Cast", [one_hot(reverse, places, weights, 3)], to=TensorProto.FLOAT)


def _looked_at(reverse: Reverse, weights: str) -> str:
    """1 where a position attends to another, 0 where a mask hides it: [B, N, N].

    Of what a mask hides, a gradient would be that of what cannot be: padding, later positions, and all beyond a window.
    """
    sums = reverse.reduce_sum(weights, [1], keepdims=0)
    return reverse.add("Cast", [reverse.add("Greater", [sums, reverse.number(0.0, weights)])], to=TensorProto.FLOAT)


def _last_but_one(reverse: Reverse) -> str:
    return reverse.view.add_numbers([1], reverse.name("axis"))


def _between(view: GraphView, state: str, output: str) -> list[NodeProto]:
    """The nodes that make an output of a state, in their order."""
    leading, depending, nodes = leading_to(view, output), {state}, list[NodeProto]()
    for node in view.model.graph.node:
        if any(name in depending for name in node.input) and any(name in leading for name in node.output):
            depending.update(node.output)
            nodes.append(node)
    return nodes


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    copied = NodeProto()
    copied.CopyFrom(node)
    copied.name = f"{names[node.output[0]]}/{node.op_type}"
    copied.input[:] = [names.get(name, name) for name in node.input]
    copied.output[:] = [names.get(name, name) for name in node.output]
    return copied
