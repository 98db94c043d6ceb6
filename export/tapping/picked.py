"""Tells which values are weights although the network picks them: those of the experts that a router chose.

An expert's MLP multiplies by W[expert], so that both sides of its products depend on the input. They are weights all
the same, and what is activated between two such products is no attention.
"""

from export.tapping.flow import Flow

_PICKS = frozenset({"Gather", "GatherND", "GatherElements"})
_FORMS = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Slice", "Split"}
    | {"Identity", "Cast", "DequantizeLinear"}
)
_OF_SEVERAL = frozenset({"Concat", "Add", "Mul", "Div"})  # of weights alone, as of picked ones and their scales


def find_weights(flow: Flow) -> set[str]:
    """Return the values that are constants, or picked from these, in whatever form."""
    weights = set(flow.constants)
    for one in flow.steps:
        taken = one.inputs[:1] if one.op_type in _PICKS | _FORMS else one.inputs
        if one.op_type in _PICKS | _FORMS | _OF_SEVERAL and weights.issuperset(taken):
            weights.update(one.outputs)
    return weights
