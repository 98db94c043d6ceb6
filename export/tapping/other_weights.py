"""Refuses a softmax that weighs by more than what is tapped, as by relu(a) beside a: half of a layer would be shown.

The same weights may be used as often as a graph likes, in any form and in parts. What sums them over an axis, as a mean
over the heads does, makes another thing of them, which may be used for anything.
"""

from collections.abc import Sequence

from export.errors import TapError
from export.tapping.holes import Suspects
from export.tapping.rule import Found
from export.tapping.view import GraphView, name_of

_FORMS = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Slice", "Split", "Pad"}
    | {"Gather", "GatherND", "GatherElements", "Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"}
)


def origin(view: GraphView, value: str) -> str:
    """Return what a value is another form of, or a part."""
    while (node := view.producer(value)) is not None and node.op_type in _FORMS:
        value = str(node.input[0])
    return value


def refuse_other_weights(flow: Suspects, found: Sequence[Found]) -> None:
    """Refuse what a softmax weighs by other weights than those found.

    Args:
        flow: Of the graph before the rules.
        found: By the rules.

    Raises:
        TapError: Names the softmax and the product.
    """
    tapped = _forms_of(flow, {origin(flow.view, one.weights) for one in found})
    for one in found:
        if one.node.op_type != "Softmax":
            continue
        for softmax in flow.makers[one.node.output[0]]:
            for product in flow.products(softmax, backward=False, summed=False):
                if tapped.isdisjoint(product.inputs):
                    raise TapError(
                        f"{name_of(one.node)}: {name_of(product.node)} ({product.op_type}) weighs by what is made of "
                        "its weights; expected those that are tapped"
                    )


def _forms_of(flow: Suspects, values: set[str]) -> set[str]:
    """Return values with all other forms of them."""
    forms = set(values)
    for one in flow.steps:
        if one.op_type in _FORMS and one.inputs[0] in forms:
            forms.update(one.outputs)
    return forms
