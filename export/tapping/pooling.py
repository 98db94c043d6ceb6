"""Rule: positions are scored by weights, softmax, and the values of the positions are summed so weighed.

A pooling by attention with learned queries (Lee et al. 2019, "Set Transformer"), whatever product the scores come from.
Where they are constant queries times turned keys, the rule for eager attention takes it.
"""

from collections.abc import Iterator

from onnx import NodeProto

from export.tapping.eager_attention import is_taken
from export.tapping.holes import Suspects
from export.tapping.rule import Found
from export.tapping.tokens import PRODUCTS
from export.tapping.view import GraphView

# What may stand between the softmax and the product: only what gives the weights another form.
_CHANGES_FORM = frozenset({"Unsqueeze", "Squeeze", "Transpose", "Reshape", "Expand", "Cast", "Identity", "Dropout"})
# By number of axes and the one that is normalised: how axes are turned, and where those of size 1 come in.
_FORMS: dict[tuple[int, int], tuple[list[int], list[int]]] = {
    (2, -1): ([], [1, 2]),
    (3, -1): ([], [1]),
    (3, -2): ([0, 2, 1], [1]),
    (4, -1): ([], []),
    (4, -2): ([0, 1, 3, 2], []),
}


def tap_pooling(view: GraphView) -> Iterator[Found]:
    """Find every softmax over positions that weights score; those in other forms are left."""
    suspects = Suspects(view)
    steps = [one for one in suspects.steps if one.op_type == "Softmax" and not one.inside]
    for one in steps:
        shape, axes = view.shape(one.outputs[0]), suspects.normalised(one)
        form = _FORMS.get((len(shape), min(axes))) if shape is not None else None
        if form is None or is_taken(view, one.node) or not suspects.has_learned_queries(one):
            continue
        if _enters_product(view, suspects, one.outputs[0]):
            yield Found(one.node, _bring(view, one.node, *form))


def _enters_product(view: GraphView, suspects: Suspects, weights: str) -> bool:
    """Whether weights multiply what is computed, as they leave the softmax."""
    for node in view.consumers(weights):
        if node.op_type in _CHANGES_FORM and _enters_product(view, suspects, node.output[0]):
            return True
        if node.op_type in (*PRODUCTS, "Mul") and any(suspects.is_product(step) for step in suspects.takers[weights]):
            return True
    return False


def _bring(view: GraphView, softmax: NodeProto, turned: list[int], added: list[int]) -> str:
    """Bring weights into the form [B, H, Q, K]."""
    weights = str(softmax.output[0])
    dtype = view.dtype(weights)
    if turned:
        weights = view.add("Transpose", [weights], f"{weights}.turned", perm=turned)
    if added:
        weights = view.unsqueeze(weights, added, f"{weights}.by_head")
    return view.describe(weights, (None,) * 4, dtype)
