"""Makes the token relevance graph: what each position of the source, and of the text so far, did for a token's logit.

A network that writes reads two inputs, and the logit of the token that follows is, with "libra", affine in both: in
what enters the encoder's first layer, and in what enters the decoder's. Each, times its gradient, with what is added on
the way where it has positions, is the relevance of its positions; the rest belongs to none (see
export/relevance/graph.py).
"""

from pathlib import Path

from onnx import ModelProto, TensorProto, helper

from artifact.generation import TOKEN_RELEVANCE
from export.errors import RelevanceError
from export.relevance.graph import prune
from export.relevance.reverse import Reverse
from export.relevance.rules import RULES
from export.relevance.terms import sum_terms
from export.tapping.tap import sort_nodes
from export.tapping.view import GraphView

LOGIT, SOURCE, TARGET = "logit", "embedded_source", "embedded_target"  # what a traced graph gives


def add_token_relevance(traced: ModelProto, folder: Path) -> ModelProto:
    """Return a graph that gives TOKEN_RELEVANCE's outputs in place of a logit and what enters both first layers.

    Args:
        traced: Gives LOGIT, float32 [B], SOURCE, float32 [B, S, D], and TARGET, float32 [B, T, D]; it is not changed.
        folder: Where its weights lie, if not in itself.

    Raises:
        RelevanceError: An operator has no rule, or the logit does not depend on both.
    """
    model = ModelProto()
    model.CopyFrom(traced)
    view, names = GraphView(model, folder), TOKEN_RELEVANCE
    source, target = (_original(view, name) for name in (SOURCE, TARGET))
    reverse = Reverse(view, "libra", source, beside=(target,))
    for value in (source, target, LOGIT):
        if not reverse.varies(value):
            raise RelevanceError(f"{value}: the logit does not depend on it")
    nothing = reverse.add("Mul", [LOGIT, reverse.number(0.0, LOGIT)])
    reverse.walk(LOGIT, reverse.add("Add", [nothing, reverse.number(1.0, LOGIT)]), RULES)
    (of_source, of_target), rest, _ = sum_terms(reverse, source, target)
    made = {names.source: (of_source, 2), names.target: (of_target, 2), names.rest: (rest, 1), names.score: (LOGIT, 1)}
    del model.graph.output[:]
    for name, (value, rank) in made.items():
        view.add("Identity", [value], name)
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank))
    sort_nodes(model)
    prune(model)
    return model


def _original(view: GraphView, name: str) -> str:
    """The value that an output is a copy of."""
    node = view.producer(name)
    while node is not None and node.op_type == "Identity":
        name = node.input[0]
        node = view.producer(name)
    return name
