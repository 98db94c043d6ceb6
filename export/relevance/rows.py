"""Computes what an output is made of for those positions alone that it is read from, as a class token.

An output that takes fixed positions of a value [B, N, D] needs of all that maps each position on its own, back to the
attention by which positions meet, these positions alone; so does its gradient. The numbers are the same.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, helper

from export.relevance.flow import leading_to
from export.tapping.view import GraphView, attribute

_STATE_AXES, _POSITIONS = 3, 1
_BY_NUMBER = frozenset(
    {"Add", "Sub", "Mul", "Div", "Where", "Pow", "Identity", "Dropout", "Cast", "Gelu", "Relu", "LeakyRelu", "Tanh"}
    | {"Sigmoid", "Erf", "Neg", "Sqrt", "Exp", "Reciprocal"}
)
_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
_Axes = dict[int, int]  # by the place of an input, the axis of its positions


@dataclass(frozen=True)
class Rows:
    """What is computed of some positions alone.

    Attributes:
        places: Which positions, int64 [R]; empty where there are none that are fixed.
        made: By the name of a value, that of its rows.
    """

    places: str = ""
    made: Mapping[str, str] = field(default_factory=dict)

    def of(self, value: str) -> str:
        """The rows of a value that are computed, or the value itself."""
        return self.made.get(value, value)


def read_rows(view: GraphView, output: str, stop: Collection[str] = ()) -> Rows:
    """Rewrite a graph so that of what an output is read from only rows are computed.

    Args:
        view: Of the graph, whose nodes are in order; is added to, behind the others.
        output: Which.
        stop: Values of which rows are taken, and not computed.

    Returns:
        What is computed so; nothing where the output is not read from fixed positions.
    """
    leading = leading_to(view, output)
    reads = [node for node in view.model.graph.node if _reads(view, node) and node.output[0] in leading]
    read = reads[-1].input[0] if reads else ""
    takers = _takers(view, read, leading)
    numbers = [one for node in takers if node in reads and (one := view.constant(node.input[1])) is not None]
    if not takers or len(numbers) < len(takers) or any(not np.array_equal(one, numbers[0]) for one in numbers):
        return Rows()
    narrow, cut = _find(view, read, leading, len(takers), stop)
    if not narrow:
        return Rows()
    prefix = f"relevance.rows.{output}"
    places = view.add_numbers(np.reshape(numbers[0], -1), f"{prefix}.places")
    made = {value: f"{prefix}.{value}" for value in (*cut, *(name for name, _, _ in narrow))}
    for value, axis in cut.items():
        view.add("Gather", [value, places], made[value], axis=axis)
    for value, node, axes in narrow:
        _copy(view, node, axes, made, value)
    for node in takers:
        view.model.graph.node.remove(node)
        if np.ndim(numbers[0]):
            view.add("Identity", [made[read]], node.output[0])
        else:
            taken = view.add_numbers([_POSITIONS], f"{prefix}.{node.output[0]}.axis")
            view.add("Squeeze", [made[read], taken], node.output[0])
    return Rows(places, made)


def _reads(view: GraphView, node: NodeProto) -> bool:
    """Whether a node takes fixed positions of a value [B, N, D]."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) != _POSITIONS or view.is_constant(node.input[0]):
        return False
    places = view.constant(node.input[1])
    return view.rank(node.input[0]) == _STATE_AXES and places is not None and np.ndim(places) <= 1


def _takers(view: GraphView, value: str, leading: Collection[str]) -> list[NodeProto]:
    """What takes a value for what the output is made of, other than its sizes."""
    return [
        node
        for node in view.consumers(value)
        if node.op_type not in ("Shape", "Size") and any(name in leading for name in node.output)
    ]


def _find(
    view: GraphView, read: str, leading: Collection[str], reads: int, stop: Collection[str]
) -> tuple[list[tuple[str, NodeProto, _Axes]], dict[str, int]]:
    """Find what is computed for rows alone, in order: value, node and axes; and by value the axis of what is cut."""
    wanted = defaultdict[str, list[int]](list, {read: [_POSITIONS] * reads})
    narrow, seen = list[tuple[str, NodeProto, _Axes]](), set[str]()
    for node in reversed(list(view.model.graph.node)):
        value = node.output[0]
        if value not in wanted or value in stop:
            continue
        (axis, *others), takers = wanted[value], _takers(view, value, leading)
        uses = sum(Counter(taker.input)[value] for taker in {id(taker): taker for taker in takers}.values())
        axes = None if any(other != axis for other in others) or len(others) + 1 != uses else _axes(view, node, axis)
        if axes is None:
            continue
        narrow.append((value, node, axes))
        seen.add(value)
        for place, own in axes.items():
            wanted[node.input[place]].append(own)
    cut = {value: axes for value, axes in wanted.items() if value not in seen}
    if any(len(set(axes)) > 1 for axes in cut.values()):
        return [], {}
    return narrow[::-1], {value: axes[0] for value, axes in cut.items()}


def _axes(view: GraphView, node: NodeProto, axis: int) -> _Axes | None:
    """Which inputs have the positions, and where, of a node that maps each on its own; None of another."""
    rank, value = view.rank(node.output[0]), node.input[0]
    if rank is None or len([name for name in node.output if name]) > 1:
        return None
    if node.op_type in _BY_NUMBER:
        return _spread(view, node, axis, rank)
    if node.op_type in _NORMS or node.op_type == "Softmax":
        along = attribute(node, "axis", -1) % rank
        return {0: axis} if along == rank - 1 != axis else None
    if node.op_type == "MatMul":
        own, other = view.rank(value), view.rank(node.input[1])
        return {0: own - 2} if own and other and min(own, other) > 1 and axis == rank - 2 else None
    if node.op_type == "Transpose":
        turn = attribute(node, "perm") or list(reversed(range(rank)))
        return {0: turn[axis]}
    return {0: axis} if node.op_type == "Reshape" and _tail(view, node, axis) is not None else None


def _spread(view: GraphView, node: NodeProto, axis: int, rank: int) -> _Axes | None:
    """Of an operator that works number by number, inputs that are not spread along the positions."""
    made, axes = view.shape(node.output[0]) or (), _Axes()
    for place, name in enumerate(node.input):
        shape = view.shape(name) if name else ()
        own = None if shape is None else axis - (rank - len(shape))
        if shape is None or own is None or (own >= 0 and shape[own] is None):
            return None
        if own >= 0 and shape[own] != 1:
            if shape[own] != made[axis]:
                return None
            axes[place] = own
    return axes


def _tail(view: GraphView, node: NodeProto, axis: int) -> list[int] | None:
    """What a Reshape makes of the axes behind the positions, if those before and the positions stay; else None."""
    given, made = view.shape(node.input[0]), view.shape(node.output[0])
    if given is None or made is None or given[: axis + 1] != made[: axis + 1] or None in made[: axis + 1]:
        return None
    tail = [size if isinstance(size, int) else -1 for size in made[axis + 1 :]]
    return tail if tail.count(-1) < 2 else None  # one size may be told by the others


def _copy(view: GraphView, node: NodeProto, axes: _Axes, made: Mapping[str, str], value: str) -> None:
    """Append a node that does for rows what another does for all."""
    inputs = [made[name] if place in axes else name for place, name in enumerate(node.input)]
    if node.op_type == "Reshape":
        tail = _tail(view, node, axes[0]) or []
        inputs[1] = view.add_numbers([0] * (axes[0] + 1) + tail, f"{made[value]}.shape")
        view.add("Reshape", inputs, made[value])
        return
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    view.add(node.op_type, inputs, made[value], domain=node.domain, **attributes)
