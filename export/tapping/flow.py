"""Where every value of a model goes, through branches and loops as well."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from export.tapping.shapes import Shape
from export.tapping.view import GraphView, bodies, computes_the_same, name_of

PASSAGE = "(passage)"  # from a node into the bodies of its branches, and out of them


@dataclass(frozen=True, eq=False)
class Step:
    """A node at any depth, or a passage; its values have names that are unique in the whole model."""

    node: NodeProto
    op_type: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    inside: str


class Flow:
    """Where every value of a model goes, through branches and loops as well."""

    def __init__(self, view: GraphView) -> None:
        self.view, graph = view, view.model.graph
        self._given = {dim.dim_param for value in graph.input for dim in value.type.tensor_type.shape.dim}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.steps = list(self._steps(graph, {}, ""))
        self.makers, self.takers = defaultdict[str, list[Step]](list), defaultdict[str, list[Step]](list)
        for one in self.steps:
            for name in filter(None, one.outputs):
                self.makers[name].append(one)
            for name in filter(None, one.inputs):
                self.takers[name].append(one)
        self.constants = {"", *self.shapes}
        for one in self.steps:
            if one.op_type != PASSAGE and computes_the_same(one.node) and self.constants.issuperset(one.inputs):
                self.constants.update(one.outputs)

    def _steps(self, graph: GraphProto, seen: Mapping[str, str], inside: str) -> Iterator[Step]:
        """Yield the nodes of a graph and of the bodies in it, which see the values around them."""
        own = [*(value.name for value in graph.input), *(name for node in graph.node for name in node.output)]
        own += [tensor.name for tensor in graph.initializer]
        names = {**seen, **{name: f"{inside}/{name}" if inside and name else name for name in own}}
        self.shapes |= {names[tensor.name]: tuple(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            inputs, outputs = ([names.get(name, name) for name in part] for part in (node.input, node.output))
            yield Step(node, node.op_type, inputs, outputs, inside)
            for place, body in enumerate(bodies(node)):
                within = f"{inside}/{name_of(node)}" if inside else name_of(node)
                within += f".{place}" if place else ""
                entries = [f"{within}/{value.name}" for value in body.input]
                yield Step(node, PASSAGE, inputs, entries, inside)
                steps = list(self._steps(body, names, within))
                yield from steps
                made = {name for one in steps for name in one.outputs} | {*entries}
                results = (f"{within}/{value.name}" for value in body.output)
                seen_outside = (names.get(value.name, value.name) for value in body.output)
                ends = [own if own in made else other for own, other in zip(results, seen_outside, strict=True)]
                yield Step(node, PASSAGE, ends, [*outputs, *entries], inside)

    def shape(self, value: str) -> Shape | None:
        """Axes of a value, as a view says them; None where not even their number is known."""
        return self.shapes.get(value) or self.view.shape(value)
