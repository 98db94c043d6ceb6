"""Hidden states: traced with a network's outputs, taken off the plain graph again, and put on the hidden one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnx import ModelProto, NodeProto, ValueInfoProto
from torch import Tensor, nn

from artifact.contract import BATCH_AXIS, HiddenStateContract
from export.errors import TraceError
from export.graph import to_onnx
from export.probe import Axes
from export.tapping.view import bodies
from export.traits import Traits

PREFIX = "hidden_states."
PROJECTED = f"{PREFIX}projected"  # of two towers; among the outputs that come with the states
_ROWS, _SIZE = 2, 8  # of the batch, and of symbolic axes, when a network is asked for its states


@dataclass(frozen=True, eq=False)
class States:
    """The hidden states of a graph that does not give them.

    Attributes:
        values: What they would be as outputs, in the order of the layers.
        nodes: What makes them of the graph's own values and is needed for nothing else: casts and the like.
    """

    values: Sequence[ValueInfoProto]
    nodes: Sequence[NodeProto]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs."""
        return tuple(value.name for value in self.values)


NO_STATES = States((), ())


class WithStates(nn.Module):
    """A network whose outputs include its hidden states, as it is traced."""

    def __init__(self, network: Any) -> None:
        """Wrap a network (Exportable)."""
        super().__init__()
        self.network: Any = network

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run; returns outputs and states by name."""
        outputs, states = self.network.show_states(*inputs)
        return {**outputs, **name_states(states)}


def name_states(states: Sequence[Tensor]) -> dict[str, Tensor]:
    """Name hidden states as the hidden graph's outputs: "hidden_states.0" and so on."""
    return {f"{PREFIX}{layer}": state for layer, state in enumerate(states)}


def trace(network: Any, traits: Traits, dtype: torch.dtype = torch.float32) -> tuple[ModelProto, States]:
    """Trace a network as to_onnx does; returns the plain graph and its hidden states, if they can be had.

    Raises:
        TraceError: Torch cannot export it.
    """
    if _has_states(network, traits):
        try:
            graph = to_onnx(WithStates(network), traits, dtype)
            return graph, take_off(graph)
        except TraceError:  # it may be that the states alone cannot be traced
            pass
    return to_onnx(network, traits, dtype), NO_STATES


def take_off(graph: ModelProto) -> States:
    """Take the hidden states off a graph's outputs, and off its nodes what nothing else needs; changes the graph."""
    states = [value for value in graph.graph.output if value.name.startswith(PREFIX)]
    others = [value for value in graph.graph.output if not value.name.startswith(PREFIX)]
    needed = {value.name for value in others}
    kept, left = list[NodeProto](), list[NodeProto]()
    for node in reversed(graph.graph.node):
        is_needed = not needed.isdisjoint(node.output)
        needed.update(_taken(node) if is_needed else ())
        (kept if is_needed else left).append(node)
    del graph.graph.node[:], graph.graph.output[:]
    graph.graph.node.extend(reversed(kept))
    graph.graph.output.extend(others)
    return States(states, left[::-1])


def put_on(plain: ModelProto, states: States) -> ModelProto:
    """Return the hidden graph: the plain one, which is not changed, with the states as further outputs."""
    hidden = ModelProto()
    hidden.CopyFrom(plain)
    hidden.graph.node.extend(states.nodes)
    hidden.graph.output.extend(states.values)
    return hidden


def describe_states(names: Sequence[str], axes: Mapping[str, Axes]) -> tuple[HiddenStateContract, ...]:
    """Describe hidden states; none where one is not [batch, position, dim] with a known number of each."""
    found = list[HiddenStateContract]()
    for layer, name in enumerate(name for name in names if name != PROJECTED):
        match axes[name]:
            case (first, int() | str() as positions, int() as dim) if first == BATCH_AXIS != positions:
                found.append(HiddenStateContract(output=name, layer=layer, position_axis=positions, dim=dim))
            case _:
                return ()
    return tuple(found)


def describe_projected(names: Sequence[str], axes: Mapping[str, Axes]) -> HiddenStateContract | None:
    """Describe what of each position is compared with the other tower; None where there is none such."""
    if PROJECTED not in names:
        return None
    match axes[PROJECTED]:
        case (first, int() | str() as positions, int() as dim) if first == BATCH_AXIS != positions:
            return HiddenStateContract(output=PROJECTED, layer=len(names) - 2, position_axis=positions, dim=dim)
    return None


def _taken(node: NodeProto) -> Iterator[str]:
    """Names of what a node takes, the bodies of its branches and loops included."""
    yield from node.input
    for body in bodies(node):
        for inner in body.node:
            yield from _taken(inner)


def _has_states(network: Any, traits: Traits) -> bool:
    """Whether a network gives states that are a vector for each position."""
    feed = traits.example(_ROWS, traits.fit(dict.fromkeys(traits.axes, _SIZE)))
    try:
        with torch.inference_mode():
            _, states = network.show_states(*map(torch.from_numpy, feed.values()))
    except Exception:  # the library raises whatever its parts raise; without states the network may be exported still
        return False
    return bool(states) and all(one.ndim == 3 and len(one) == _ROWS for one in states)
