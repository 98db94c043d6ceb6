"""Makes the parts graph: what each position of the input adds to a vector, so that two compare by pairs of parts.

With "libra" a vector is affine in what enters the first layer, so it is the sum of a part for each position and of one
that belongs to none, each of its own dimensions. The relevance of a position, for weights w of the vector's numbers, is
its part times w: linear in w. The parts are that map turned around, which is the gradient of what positions sum to with
respect to w: the reverse rules again, on the nodes that they made (Townsend 2017, "A new trick for calculating Jacobian
vector products"). What the first walk made but the numbers that it held then falls away.

A row gives one part, so all of an input take a row for each of its positions and one more. Walking back instead would
take a row for each of the vector's numbers, which are more than the positions of what is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from export.relevance.flow import find_embedded
from export.relevance.graph import check_output, prune
from export.relevance.reverse import Reverse
from export.relevance.rules import RULES
from export.relevance.terms import sum_terms
from export.tapping.shapes import Shape
from export.tapping.tap import sort_nodes
from export.tapping.view import GraphView

CHOSEN, PART = "relevance.chosen", "relevance.part"
NO_POSITION = -1


@dataclass(frozen=True)
class Parts:
    """What a parts graph has, by name.

    Attributes:
        chosen: An input, int64 [B]: whose part a row gives, counted from 0; below 0 what belongs to no position, as
            where it is left out.
        part: Float32 [B, D].
    """

    chosen: str
    part: str


class _Turned(Reverse):
    """The gradient of a gradient; sizes are asked of the graph itself, so that what the first walk made falls away."""

    def __init__(self, view: GraphView, source: str) -> None:
        super().__init__(view, "gradient", source)
        names = [value.name for value in view.model.graph.input]
        names += [name for node in view.model.graph.node for name in node.output]
        shapes = {name: view.shape(name) for name in names if not self.varies(name)}
        self._alike: dict[Shape, str] = {
            shape: name for name, shape in reversed(shapes.items()) if shape and None not in shape
        }

    def add(self, op_type: str, inputs: Sequence[str], **attributes: object) -> str:
        """As in Reverse."""
        if op_type in ("Shape", "Size") and self.varies(inputs[0]):
            inputs = [self._alike.get(self.view.shape(inputs[0]) or (), inputs[0])]
        return super().add(op_type, inputs, **attributes)


def add_parts(lowered: ModelProto, folder: Path, output: str) -> tuple[ModelProto, Parts]:
    """Give a graph, as a further output, what chosen positions add to one of its own.

    Args:
        lowered: As of add_relevance.
        folder: Likewise.
        output: What is made of parts, float32 [B, D].

    Raises:
        RelevanceError: As add_relevance.
    """
    model = ModelProto()
    model.CopyFrom(lowered)
    embedded, weights, positions, rest = _walk_back(model, folder, output)
    view = GraphView(model, folder)
    turned = _Turned(view, weights)
    chosen, none = _choose(turned, embedded)
    turned.give(rest, none)
    turned.walk(positions, chosen, RULES)
    view.add("Identity", [turned.gradient(weights)], PART)
    model.graph.output.append(helper.make_tensor_value_info(PART, TensorProto.FLOAT, [None] * 2))
    sort_nodes(model)
    prune(model)
    return model, Parts(CHOSEN, PART)


def _walk_back(model: ModelProto, folder: Path, output: str) -> tuple[str, str, str, str]:
    """Add the relevance for weights; name what enters the layers, the weights, relevance by position, and the rest."""
    view = GraphView(model, folder)
    check_output(view, output)
    embedded = find_embedded(view, output)
    reverse = Reverse(view, "libra", embedded)
    weights = reverse.add("Mul", [output, reverse.number(0.0, output)])  # nothing depends on what they are
    reverse.reduce_sum(embedded, [-1], keepdims=0)  # [B, N], a size that no value of the graph itself may have
    reverse.walk(output, weights, RULES)
    (positions,), rest, _ = sum_terms(reverse, embedded)
    known = [(gradient, view.shape(value)) for value, gradient in reverse.given]
    infos = {gradient: helper.make_tensor_value_info(gradient, TensorProto.FLOAT, shape) for gradient, shape in known}
    model.graph.value_info.extend(infos.values())
    sort_nodes(model)
    return embedded, weights, positions, rest


def _choose(turned: Reverse, embedded: str) -> tuple[str, str]:
    """Declare which part is wanted of each row: 1 at its position [B, N], and 1 where it belongs to none [B]."""
    add, view = turned.add, turned.view
    view.model.graph.input.append(helper.make_tensor_value_info(CHOSEN, TensorProto.INT64, ["rows"]))
    view.add_constant(np.array([NO_POSITION], dtype=np.int64), CHOSEN)
    sizes = add("Shape", [embedded])
    first, second = (view.add_numbers([place], turned.name("place")) for place in (0, 1))
    rows, count = (add("Gather", [sizes, place]) for place in (first, second))  # [1] each
    each = add("Expand", [CHOSEN, rows])  # [B]
    column = add("Unsqueeze", [each, second])
    places = add("Range", [turned.whole(0), add("Squeeze", [count]), turned.whole(1)])  # [N]
    here = add("Cast", [add("Equal", [column, places])], to=TensorProto.FLOAT)
    return here, add("Cast", [add("Less", [each, turned.whole(0)])], to=TensorProto.FLOAT)
