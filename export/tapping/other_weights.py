"""Refuses a softmax that weighs by more than what is tapped, as by relu(a) beside a: half of a layer would be shown.

The same weights may be used as often as a graph likes, in any form and in parts. What sums them over an axis, as a mean
over the heads does, makes another thing of them, which may be used for anything.
"""

from collections.abc import Sequence

from export.errors import TapError
from export.tapping.flow import Step
from export.tapping.holes import Suspects, read_by, written_by
from export.tapping.rule import Found
from export.tapping.view import GraphView, name_of

_FORMS = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Slice", "Split", "Pad"}
    | {"Gather", "GatherND", "GatherElements", "Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"}
)
_BESIDE_CONSTANTS = frozenset({"Where", "Concat", "Clip"})


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
            if product := _weighing(flow, softmax, tapped):
                raise TapError(
                    f"{name_of(one.node)}: {name_of(product.node)} ({product.op_type}) weighs by what is made of "
                    "its weights; expected those that are tapped"
                )


def _weighing(flow: Suspects, softmax: Step, tapped: set[str]) -> Step | None:
    """Find a product of something with what is made of a softmax, but for what is tapped.

    A product of two such is made of it as well: an entropy is, and the inverse in Nystromformer's attention.
    """
    made, before = set(softmax.outputs), 0
    while len(made) > before:  # again where a loop carries something back
        before = len(made)
        for one in flow.steps:
            if made.isdisjoint(read_by(one)) or one.op_type.startswith("Reduce"):
                continue
            if not flow.is_product(one):
                made.update(written_by(one) if flow.carries(one, softmax) else ())
            elif made.issuperset(one.inputs[:2]):
                made.update(one.outputs)
            elif tapped.isdisjoint(one.inputs):
                return one
    return None


def _forms_of(flow: Suspects, values: set[str]) -> set[str]:
    """Return values with all other forms of them."""
    forms = set(values)
    for one in flow.steps:
        if _source_of(flow, one) in forms:
            forms.update(one.outputs)
    return forms


def _source_of(flow: Suspects, one: Step) -> str:
    """What a step gives another form of, or puts beside constants, or in place of what is no number; else nothing."""
    if one.op_type in _FORMS:
        return one.inputs[0]
    computed = [name for name in one.inputs[one.op_type == "Where" :] if name and name not in flow.constants]
    return computed[0] if one.op_type in _BESIDE_CONSTANTS and len(computed) == 1 else ""
