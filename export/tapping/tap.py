"""Makes the tapped graph from the plain one: runs the rules and declares what they find as outputs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, helper

from artifact.contract import WindowContract
from export.errors import TapError
from export.tapping.attention_node import tap_attention_nodes
from export.tapping.eager_attention import tap_eager_attention
from export.tapping.heads import join_heads
from export.tapping.holes import Suspects, find_attention_like, refuse_holes
from export.tapping.lower import lower
from export.tapping.multi_head import refuse_others, tap_multi_head
from export.tapping.other_weights import refuse_other_weights
from export.tapping.pooling import tap_pooling
from export.tapping.rule import Found
from export.tapping.talking_heads import tap_talking_heads
from export.tapping.value_norms import add_value_norms
from export.tapping.view import GraphView, bodies, name_of
from export.tapping.windows import unwindow

Rule = Callable[[GraphView], Iterator[Found]]

RULES: tuple[Rule, ...] = (tap_attention_nodes, tap_multi_head, tap_eager_attention, tap_talking_heads, tap_pooling)
FUSED_RULES: tuple[Rule, ...] = (tap_attention_nodes,)


@dataclass(frozen=True)
class Tap:
    """One attention output.

    Attributes:
        output: Its name in the graph; float32 [batch, heads, query, key].
        layer: Counted from 0, in the order of the graph.
        node: Which node of the plain graph it was found at.
        value_norms: A further output, float32 [batch, heads, key]; None where the graph does not allow it.
        mixes_heads: Whether its weights are sums over heads of what a softmax gave (talking heads).
    """

    output: str
    layer: int
    node: str
    value_norms: str | None
    mixes_heads: bool = False


def tap(
    plain: ModelProto,
    folder: Path,
    rules: tuple[Rule, ...] = RULES,
    windows: Sequence[WindowContract | None] = (),
) -> tuple[ModelProto, list[Tap]]:
    """Give a graph its attention weights, and what value-weighted norms need, as further outputs.

    Args:
        plain: It is not changed.
        folder: Where its weights lie, if not in itself.
        rules: Which ways of writing attention to look for.
        windows: In which layers attend; empty where none does.

    Returns:
        The tapped graph, with further float32 outputs "attention.0", "attention.1" and so on, and "value_norms.0"
        where these can be had; and what they are.

    Raises:
        TapError: There is no attention, or one that cannot be tapped; names the node.
    """
    tapped = ModelProto()
    tapped.CopyFrom(plain)
    view = GraphView(tapped, folder)
    found = find_attention(view, rules)
    if windows and len(windows) != len(found):
        raise TapError(f"the network has {len(windows)} layers, its graph {len(found)}")
    taps = [_declare(view, one, layer) for layer, one in enumerate(unwindow(view, found, windows))]
    sort_nodes(tapped)
    return tapped, taps


def find_attention(view: GraphView, rules: tuple[Rule, ...]) -> list[Found]:
    """Let the rules find every attention of a graph, in its order; heads that are computed one by one are one layer.

    Raises:
        TapError: There is none, or one that cannot be tapped; names the node.
    """
    refuse_others(view)
    flow = Suspects(view)
    suspects = find_attention_like(flow)
    found = sorted((one for rule in rules for one in rule(view)), key=lambda one: view.place(one.node))
    refuse_holes(suspects, {one.node.output[0] for one in found})
    refuse_other_weights(flow, found)
    if not found:
        kinds = sorted({node.op_type for node in view.model.graph.node})
        raise TapError(f"no attention to tap; the graph has {', '.join(kinds)}")
    return list(join_heads(view, found))


def tap_lowered(tapped: ModelProto, folder: Path) -> ModelProto | None:
    """Write the Attention nodes of a tapped graph out.

    Returns:
        The same graph in its lowered form; None where it has no such nodes, or one that has no such form.
    """
    lowered = ModelProto()
    lowered.CopyFrom(tapped)
    try:
        if not lower(lowered, GraphView(lowered, folder)):
            return None
    except TapError:
        return None
    sort_nodes(lowered)
    return lowered


def _declare(view: GraphView, found: Found, layer: int) -> Tap:
    """Make the weights an output of the graph, as float32."""
    output, norms = f"attention.{layer}", f"value_norms.{layer}"
    for name in (output, norms):
        if view.is_known(name):
            raise TapError(f"{name_of(found.node)}: the graph has a value named {name} already; has it been tapped?")
    if view.dtype(found.weights) != TensorProto.FLOAT:
        view.add("Cast", [found.weights], output, to=TensorProto.FLOAT)
    elif found.weights in {value.name for value in view.model.graph.output}:
        view.add("Identity", [found.weights], output)
    else:
        _rename(view.model, found.weights, output)
    has_norms = bool(found.values) and add_value_norms(view, found, norms)
    for name, axes in ((output, 4), (norms, 3)) if has_norms else ((output, 4),):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * axes, doc_string=name_of(found.node))
        view.model.graph.output.append(value)
    return Tap(output, layer, name_of(found.node), norms if has_norms else None, found.mixes_heads)


def _rename(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    kept = [value for value in model.graph.value_info if value.name != old]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def sort_nodes(model: ModelProto) -> None:
    """Put nodes behind those whose values they take, as ONNX demands; what is in order stays in it."""
    made = {name for node in model.graph.node for name in node.output if name}
    ready = {""} | ({name for node in model.graph.node for name in node.input} - made)
    waiting, ordered = list(model.graph.node), list[NodeProto]()
    while waiting:
        later = list[NodeProto]()
        for node in waiting:
            if all(name in ready for name in _taken(node, made)):
                ordered.append(node)
                ready.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise TapError(f"{name_of(later[0])}: takes a value that nothing makes")
        waiting = later
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def _taken(node: NodeProto, made: set[str]) -> Iterator[str]:
    """Names of what a node needs, the bodies of its branches and loops included."""
    yield from node.input
    for body in bodies(node):
        inner = {name for one in body.node for name in one.output}
        for one in body.node:
            yield from (name for name in _taken(one, made) if name in made and name not in inner)
