"""Finds in a graph where all of the input passes by: what enters the first layer, and what leaves each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import NodeProto

from export.errors import RelevanceError
from export.relevance.reverse import varying
from export.tapping.view import GraphView

_STATE_AXES = 3  # [B, N, D]
_WEIGHTS_AXES = 4  # [B, H, N, N]


def find_embedded(view: GraphView, output: str) -> str:
    """Find what enters the first layer: the last value before any attention through which all of the input goes.

    Raises:
        RelevanceError: There is none of three axes.
    """
    flow, last = _Flow.of(view, output), ""
    for node, state in flow.passages():
        if _attends(view, node, flow.through):
            break
        last = state or last
    if not last:
        raise RelevanceError("no value [B, N, D] through which all of the input goes to the layers")
    return last


def find_weights(view: GraphView, output: str, attention: Sequence[str], embedded: str) -> list[str]:
    """Find the attention weights by which an output is made, [B, H, N, N] each; those given may be copies of them.

    Args:
        view: Of the graph.
        output: What is made.
        attention: The weights as they are given.
        embedded: What enters the first layer, [B, N, D].

    Raises:
        RelevanceError: There are none, or some that only look at the network, of other axes, or of windows.
    """
    if not attention:
        raise RelevanceError("no attention, whose gradient this would be")
    leading = leading_to(view, output)
    found = [_original(view, name, leading) for name in attention]
    positions = (view.shape(embedded) or (None, None))[1]
    for name, weights in zip(attention, found, strict=True):
        keys = (view.shape(weights) or (None,))[-1]
        if isinstance(keys, int) and isinstance(positions, int) and keys != positions:
            raise RelevanceError(f"{name}: attends to {keys} positions; expected all {positions}")
    return found


def _original(view: GraphView, name: str, leading: set[str]) -> str:
    found, node = name, view.producer(name)
    while found not in leading and node is not None and node.op_type in ("Identity", "Cast", "Reshape"):
        found = node.input[0]
        node = view.producer(found)
    if found not in leading:
        raise RelevanceError(f"{name}: the output is not made by it as it is")
    if view.rank(found) != _WEIGHTS_AXES:
        raise RelevanceError(f"{name}: {view.shape(found)}; expected [batch, head, query, key] where it is used")
    return found


def find_states(view: GraphView, output: str, weights: Sequence[str]) -> list[str]:
    """Find what leaves each layer, [B, N, D]: the last value before the next attention through which all goes.

    Of the last layer, behind which there is no attention, it is that which comes as late in it as in the others.

    Args:
        view: Of the graph.
        output: What the network is for.
        weights: The attention weights of each layer; see find_weights.

    Raises:
        RelevanceError: Layers are not made alike, so that nothing tells where the last one ends.
    """
    if len(weights) == 1:
        raise RelevanceError("one layer, so that nothing tells where it ends")
    passed: list[list[str]] = [[]]
    for node, state in _Flow.of(view, output).passages():
        if node.op_type == "MatMul" and node.input[0] in weights:
            passed.append([])
        if state:
            passed[-1].append(state)
    _, *layers = passed
    counts = {len(states) for states in layers[:-1]}
    if len(layers) != len(weights) or len(counts) != 1 or len(layers[-1]) < (count := counts.pop()) or not count:
        raise RelevanceError("layers are not made alike, so that the end of the last one cannot be told")
    states = [layer[count - 1] for layer in layers]
    made = {node.op_type for node in map(view.producer, states) if node is not None}
    if len(made) != 1:
        raise RelevanceError(f"layers end with {', '.join(sorted(made))}; expected one operator of all")
    return states


@dataclass(frozen=True)
class _Flow:
    """The way of the input to an output.

    Attributes:
        view: Of the graph.
        sources: Where the input becomes numbers.
        through: What it goes through, attention's weights and other gates not counted.
    """

    view: GraphView
    sources: Sequence[str]
    through: set[str]

    @classmethod
    def of(cls, view: GraphView, output: str) -> "_Flow":
        """Find it."""
        sources = [node.output[0] for node in view.model.graph.node if _embeds(view, node)]
        ahead = varying(view, sources, "libra")
        return cls(view, sources, ahead & _leading_to(view, output, ahead))

    def passages(self) -> Iterator[tuple[NodeProto, str]]:
        """Yield every node, and the value [B, N, D] through which all goes behind it; empty where there is none."""
        view, through = self.view, self.through
        left = {name: sum(_reaches(taker, through) for taker in view.consumers(name)) for name in through}
        live = {name for name in self.sources if name in through}
        for node in list(view.model.graph.node):
            if not _reaches(node, through):
                yield node, ""
                continue
            for name in node.input:
                if name in left:
                    left[name] -= 1
                    if not left[name]:
                        live.discard(name)
            live.update(name for name in node.output if name in through)
            only = next(iter(live)) if len(live) == 1 else ""
            yield node, only if only and view.rank(only) == _STATE_AXES else ""


def _embeds(view: GraphView, node: NodeProto) -> bool:
    """Whether a node looks rows of a table up, or makes features of what is no text."""
    if node.op_type == "Gather":
        return view.is_constant(node.input[0]) and not view.is_constant(node.input[1])
    given = {value.name for value in view.model.graph.input}
    return any(name in given for name in node.input) and node.op_type in (
        "Conv",
        "MatMul",
        "Gemm",
        "Reshape",
        "Transpose",
    )


def _attends(view: GraphView, node: NodeProto, through: set[str]) -> bool:
    """Whether a node weighs positions: a product of what is held with what varies."""
    if node.op_type != "MatMul" or not _reaches(node, through):
        return False
    held = [name for name in node.input if name not in through]
    return bool(held) and not view.is_constant(held[0])


def _reaches(node: NodeProto, through: set[str]) -> bool:
    return any(name in through for name in node.output)


def leading_to(view: GraphView, output: str) -> set[str]:
    """All values that an output is made of."""
    return _leading_to(view, output, None)


def _leading_to(view: GraphView, output: str, among: set[str] | None) -> set[str]:
    """The values, among some or all, that an output is made of by way of them."""
    found, waiting = set[str](), [output]
    while waiting:
        name = waiting.pop()
        if name in found or (among is not None and name not in among):
            continue
        found.add(name)
        node = view.producer(name)
        waiting += list(node.input) if node is not None else []
    return found
