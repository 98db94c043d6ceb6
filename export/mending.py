"""Mends what torch's exporter writes and ONNX Runtime or the rules of tapping do not take."""

from collections.abc import Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto

from export.tapping.tap import sort_nodes
from export.tapping.view import GraphView, bodies, optional_input
from export.traits import Traits

_MASK = 3


def mend(model: ModelProto, traits: Traits) -> None:
    """Change a graph so that it runs and can be tapped, and computes the same."""
    view = GraphView(model, Path())
    _fill_up_short(view, traits)
    _spread_masks(view)
    _drop_idle_reshapes(view)
    sort_nodes(model)
    drop_unused_weights(model)


def drop_unused_weights(model: ModelProto) -> None:
    """Leave out what no node takes, such as the shapes of reshapes that are gone: ONNX Runtime would warn of each."""
    taken = {value.name for value in model.graph.output} | set(_taken(model.graph))
    kept = [tensor for tensor in model.graph.initializer if tensor.name in taken]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _taken(graph: GraphProto) -> Iterator[str]:
    """Names that the nodes of a graph take, those in the bodies of branches and loops included."""
    for node in graph.node:
        yield from node.input
        for body in bodies(node):
            yield from _taken(body)
            yield from (value.name for value in body.output)


def least_size(traits: Traits, axis: str) -> int | None:
    """Fewest positions of an axis: two units, as torch takes one of one for fixed; None for torch's own choice."""
    unit = traits.unit(axis)
    return 2 * unit if unit > 1 else None


def _spread_masks(view: GraphView) -> None:
    """Give masks of Attention nodes their query axis: ONNX lets a mask of one row serve all, ONNX Runtime does not."""
    for node in view.nodes("Attention"):
        mask = optional_input(node, _MASK)
        shape = view.shape(mask) if mask else None
        if not shape or len(shape) != 4 or shape[2] != 1 or view.shape(node.input[0])[2:3] == (1,):  # type: ignore[index]
            continue
        name = f"{node.output[0]}.mask"
        queries, one = view.size_of(node.input[0], 2, f"{name}.queries"), view.add_numbers([1], f"{name}.one")
        axes = view.add("Concat", [one, one, queries, one], f"{name}.axes", axis=0)
        node.input[_MASK] = view.add("Expand", [mask, axes], f"{name}.spread")


def _drop_idle_reshapes(view: GraphView) -> None:
    """Leave out reshapes that change nothing, which would hide what the values of an attention go on to."""
    kept = {value.name for value in view.model.graph.output}
    for node in view.nodes("Reshape"):
        before, after = node.input[0], node.output[0]
        shape = view.shape(before)
        if shape and None not in shape and shape == view.shape(after) and after not in kept:
            view.model.graph.node.remove(node)
            for taker in view.model.graph.node:
                taker.input[:] = [before if name == after else name for name in taker.input]


def _fill_up_short(view: GraphView, traits: Traits) -> None:
    """Put zeros behind inputs that are too short to become anything, so that none can make a run fail."""
    for spec in traits.inputs:
        for place, axis in enumerate(spec.axes):
            if not isinstance(axis, str) or (least := least_size(traits, axis)) is None:
                continue
            takers, name = list(view.consumers(spec.name)), f"{spec.name}.filled"
            size = view.size_of(spec.name, place, f"{name}.size")
            zero, wanted, axes = (
                view.add_numbers([number], f"{name}.{what}")
                for what, number in (("none", 0), ("least", least), ("axis", place))
            )
            lacking = view.add("Max", [view.add("Sub", [wanted, size], f"{name}.short"), zero], f"{name}.lacking")
            pads = view.add("Concat", [zero, lacking], f"{name}.pads", axis=0)
            view.add("Pad", [spec.name, pads, "", axes], name)
            for taker in takers:
                taker.input[:] = [name if given == spec.name else given for given in taker.input]
