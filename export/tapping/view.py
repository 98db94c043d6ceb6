"""A graph to look around in and to add to: who makes a value, who takes it, what is constant."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifact.dtypes import Array
from export.tapping.shapes import Shape, infer

_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})


class GraphView:
    """A graph by its values. Nodes may be added while it is in use.

    Args:
        model: Is changed by what is added.
        folder: Where weights lie that are not in the graph itself.
    """

    def __init__(self, model: ModelProto, folder: Path) -> None:
        self.model, self._folder = model, folder
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._consumers = defaultdict[str, list[NodeProto]](list)
        for node in model.graph.node:
            for name in node.input:
                self._consumers[name].append(node)
        self._shapes, self._types = infer(model)
        self._constants = {"", *self._initializers}
        for node in model.graph.node:
            if all(name in self._constants for name in node.input) and computes_the_same(node):
                self._constants.update(node.output)

    def nodes(self, op_type: str, domain: str = "") -> list[NodeProto]:
        """All nodes of a kind, in the order of the graph."""
        return [
            node
            for node in self.model.graph.node
            if node.op_type == op_type and node.domain in ((domain,) if domain else ("", "ai.onnx"))
        ]

    def place(self, node: NodeProto) -> int:
        """Where in the graph a node stands, by its first output."""
        return next(i for i, other in enumerate(self.model.graph.node) if other.output[0] == node.output[0])

    def producer(self, value: str) -> NodeProto | None:
        """Which node makes a value; None for inputs and weights."""
        return self._producers.get(value)

    def consumers(self, value: str) -> list[NodeProto]:
        """Which nodes take a value."""
        return self._consumers.get(value, [])

    def is_known(self, value: str) -> bool:
        """Whether the graph has a value of that name."""
        return value in self._producers or value in self._initializers or value in self._shapes

    def is_used(self, value: str) -> bool:
        """Whether a node takes a value, or the graph gives it."""
        return bool(self.consumers(value)) or value in {output.name for output in self.model.graph.output}

    def is_constant(self, value: str) -> bool:
        """Whether a value is the same for every input; so is one that is left out."""
        return value in self._constants

    def constant(self, value: str) -> Array | None:
        """Return the content of a weight or constant; None for what is computed."""
        if value in self._initializers:
            return numpy_helper.to_array(self._initializers[value], str(self._folder))
        node = self._producers.get(value)
        if node is None or node.op_type not in ("Constant", "Identity", "Transpose"):
            return None
        if node.op_type == "Constant":
            tensor = attribute(node, "value")
            return numpy_helper.to_array(tensor) if isinstance(tensor, TensorProto) else None
        content = self.constant(node.input[0])
        if content is None or node.op_type == "Identity":
            return content
        return np.transpose(content, attribute(node, "perm"))

    def shape(self, value: str) -> Shape | None:
        """Axes of a value: sizes, names, None where unknown; None altogether where not even their number is known."""
        if value in self._initializers:
            return tuple(self._initializers[value].dims)
        return self._shapes.get(value)

    def rank(self, value: str) -> int | None:
        """Number of axes; None where unknown."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def dtype(self, value: str) -> int:
        """ONNX's number of a value's element type; 0 where unknown."""
        if value in self._initializers:
            return int(self._initializers[value].data_type)
        return self._types.get(value, TensorProto.UNDEFINED)

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), 1)

    def add(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node with one output, which also names it; returns that output."""
        node = helper.make_node(op_type, list(inputs), [output], name=f"{output}/{op_type}", **attributes)
        self.model.graph.node.append(node)
        self._producers[output] = node
        for name in inputs:
            self._consumers[name].append(node)
        return output

    def unsqueeze(self, value: str, axes: list[int], output: str) -> str:
        """Append new axes of size 1, which before opset 13 is written in another way."""
        if self.opset < 13:
            return self.add("Unsqueeze", [value], output, axes=axes)
        return self.add("Unsqueeze", [value, self.add_numbers(axes, f"{output}.axes")], output)

    def add_constant(self, content: Array, name: str) -> str:
        """Append a weight that lies in the graph itself."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(content), name)
        self.model.graph.initializer.append(tensor)
        self._initializers[name] = tensor
        self._constants.add(name)
        return name

    def add_numbers(self, numbers: "Sequence[int] | Array", name: str) -> str:
        """Append whole numbers, int64, as shapes and places are given."""
        return self.add_constant(np.array(numbers, dtype=np.int64), name)

    def size_of(self, value: str, axis: int, name: str) -> str:
        """Append the size of an axis, int64 [1]."""
        sizes = self.add("Shape", [value], f"{name}.shape")
        return self.add("Gather", [sizes, self.add_numbers([axis], f"{name}.place")], name, axis=0)

    def only_taker(self, value: str) -> NodeProto | None:
        """Which node alone takes a value, apart from those that ask for its shape."""
        takers = [node for node in self.consumers(value) if node.op_type not in ("Shape", "Size")]
        return takers[0] if len(takers) == 1 else None

    def describe(self, value: str, shape: Shape, dtype: int) -> str:
        """Say what an added value is, where a rule asks for it later; returns it."""
        self._shapes[value], self._types[value] = shape, dtype
        return value


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def optional_input(node: NodeProto, index: int) -> str:
    """Name of an input that may be left out; empty where it is."""
    return str(node.input[index]) if index < len(node.input) else ""


def name_of(node: NodeProto) -> str:
    """What messages call a node: its name, or its first output."""
    return str(node.name or node.output[0])


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the bodies of a branch or a loop; none of other nodes."""
    for entry in node.attribute:
        if entry.HasField("g"):
            yield entry.g
        yield from entry.graphs


def computes_the_same(node: NodeProto) -> bool:
    """Whether a node gives the same for the same inputs, and takes nothing else."""
    return node.op_type not in _RANDOM and not any(True for _ in bodies(node))


def walk_back(view: GraphView, value: str, through: frozenset[str] | None = None) -> Iterator[NodeProto]:
    """Yield the nodes a value is made from, the nearest first, going on through all or the operators given."""
    waiting, seen = [value], set[str]()
    while waiting:
        name = waiting.pop(0)
        node = view.producer(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        yield node
        if through is None or node.op_type in through:
            waiting += node.input
