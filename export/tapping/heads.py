"""Joins heads that a graph computes one by one, as a loop over heads leaves it, to the layer that they are.

Their outputs meet in one Concat, along features or along an axis of heads, with nothing on the way but what gives them
another form; or each has one head, is projected by weights of its own, and they are summed, which is the same. Outputs
that meet along positions are no heads. None of them depends on another: each goes to that one place alone. All see the
same (export/tapping/sources.py): attention to another sequence, or to other positions of it, is another layer.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from onnx import NodeProto

from export.errors import TapError
from export.tapping.rule import Found
from export.tapping.shapes import Shape
from export.tapping.sources import Value, find_sources
from export.tapping.view import GraphView, attribute, name_of

Sources = tuple[frozenset[Value], ...]
_UNCHANGED = frozenset({"Identity", "Cast", "Dropout"})
_BATCH, _HEADS, _QUERIES, _DIM = "BHQd"
_AXES = {3: [_BATCH, _QUERIES, _DIM], 4: [_BATCH, _HEADS, _QUERIES, _DIM]}


def join_heads(view: GraphView, found: Sequence[Found]) -> Iterator[Found]:
    """Yield what was found, in its order; of heads that were found one by one the layer, where its first stands.

    Raises:
        TapError: What is summed may be heads or layers of several heads: the graph does not say.
    """
    meetings = {id(one): _meeting(view, one) for one in found}
    counts = Counter(_place_name(meeting) for meeting in meetings.values())
    groups = defaultdict[tuple[str, Shape, Sources], list[Found]](list)
    for one in found:
        meeting = meetings[id(one)]
        if meeting is not None and counts[_place_name(meeting)] > 1 and (seen := _seen(view, one, meeting[0])):
            groups[_place_name(meeting), *seen].append(one)
    joined = {id(one): group for group in groups.values() if len(group) > 1 for one in group}
    for one in found:
        group = joined.get(id(one), [one])
        if len(group) == 1:
            yield one
        elif one is group[0]:
            _check_counts(view, meetings[id(one)], group)
            yield _join(view, sorted(group, key=lambda head: _place(meetings[id(head)])))


def _seen(view: GraphView, one: Found, meeting: NodeProto) -> tuple[Shape, Sources] | None:
    """What tells heads of one layer from others: how many rows and keys there are, and of what; None of no head."""
    shape, sources = view.shape(one.weights), find_sources(view, one)
    if shape is None or not sources or (meeting.op_type != "Concat" and shape[1] not in (1, None)):
        return None
    told = _told(view, shape[2:])
    if any(axis is None and not of for axis, of in zip(told, (sources[0], sources[-1]), strict=True)):
        return None  # of what is learned, too, there may be as many as one likes
    return told, sources


def _check_counts(view: GraphView, meeting: tuple[NodeProto, int] | None, group: Sequence[Found]) -> None:
    summed = meeting is not None and meeting[0].op_type != "Concat"
    if summed and any((view.shape(one.weights) or (None, None))[1] is None for one in group):
        names = f"{name_of(group[0].node)} and {name_of(group[1].node)}"
        raise TapError(f"{names}: are summed, and the graph does not say how many heads each has; expected fixed sizes")


def _told(view: GraphView, shape: Shape) -> Shape:
    """Axes by sizes and by the names that inputs have; those that inference made up say nothing of another value's."""
    given = {dim.dim_param for value in view.model.graph.input for dim in value.type.tensor_type.shape.dim}
    return tuple(axis if isinstance(axis, int) or axis in given else None for axis in shape)


def _join(view: GraphView, heads: Sequence[Found]) -> Found:
    """Make one layer of heads, in the order of their outputs."""
    weights = view.add("Concat", [head.weights for head in heads], f"{heads[0].weights}.heads", axis=1)
    rows_and_keys = (view.shape(heads[0].weights) or (None,) * 4)[2:]
    view.describe(weights, (None, None, *rows_and_keys), view.dtype(heads[0].weights))
    return Found(heads[0].node, weights, mixes_heads=any(head.mixes_heads for head in heads))


def _place_name(meeting: tuple[NodeProto, int] | None) -> str:
    return str(meeting[0].output[0]) if meeting else ""


def _place(meeting: tuple[NodeProto, int] | None) -> int:
    return meeting[1] if meeting else 0


def _meeting(view: GraphView, found: Found) -> tuple[NodeProto, int] | None:
    """Follow attended values to what puts heads beside each other, or sums them, and to their place in it."""
    value, axes = found.attended, list(_AXES.get(view.rank(found.attended) or 0, []))
    while axes and (node := view.only_taker(value)) is not None:
        if node.op_type == "Concat":
            met = dict(enumerate(axes)) | {place - len(axes): axis for place, axis in enumerate(axes)}
            beside = met.get(int(attribute(node, "axis", 0))) in (_HEADS, _DIM)
            return (node, list(node.input).index(value)) if beside else None
        if _is_projection(view, node, value):
            return _sum(view, node)
        axes = _followed(view, node, axes)
        value = node.output[0]
    return None


def _is_projection(view: GraphView, node: NodeProto, value: str) -> bool:
    return node.op_type in ("MatMul", "Gemm") and node.input[0] == value and view.is_constant(node.input[1])


def _sum(view: GraphView, projection: NodeProto) -> tuple[NodeProto, int] | None:
    """The last of the sums that a projected head enters; heads stay in the order of the graph."""
    node, last = view.only_taker(projection.output[0]), None
    while node is not None and node.op_type in ("Add", "Sum"):
        if not any(map(view.is_constant, node.input)):  # no bias
            last = node
        node = view.only_taker(node.output[0])
    return (last, 0) if last is not None else None


def _followed(view: GraphView, node: NodeProto, axes: list[str]) -> list[str]:
    """What axes become; empty where a node does more than give another form."""
    if node.op_type in _UNCHANGED:
        return axes
    if node.op_type == "Transpose":
        return [axes[axis] for axis in attribute(node, "perm", range(len(axes))[::-1])]
    if node.op_type in ("Squeeze", "Unsqueeze"):
        return _with_or_without_heads(view, node, axes)
    if node.op_type == "Gather" and view.rank(node.input[1]) == 0:  # the only one of an axis, as torch writes [:, 0]
        place, shape = int(attribute(node, "axis", 0)) % len(axes), view.shape(node.input[0])
        alone = axes[place] == _HEADS and shape is not None and shape[place] == 1
        return [*axes[:place], *axes[place + 1 :]] if alone else []
    if node.op_type == "Reshape" and axes == [_BATCH, _QUERIES, _HEADS, _DIM] and view.rank(node.output[0]) == 3:
        return [_BATCH, _QUERIES, _DIM]
    return []


def _with_or_without_heads(view: GraphView, node: NodeProto, axes: list[str]) -> list[str]:
    told = view.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
    if told is None or np.size(told) != 1:
        return []
    place = int(np.ravel(told)[0]) % 4
    if node.op_type == "Unsqueeze":
        return [*axes[:place], _HEADS, *axes[place:]] if len(axes) == 3 else []
    return [*axes[:place], *axes[place + 1 :]] if len(axes) == 4 and axes[place] == _HEADS else []
