"""Parts ONNX Runtime's Attention, which holds its projection, into that projection and a MultiHeadAttention.

Both graphs get this form, so that they share the projection's weights, the plain one stays fused, and the tapped one
can be had by the rule of multi_head.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Attention
"""

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.errors import TapError
from export.tapping.multi_head import DOMAIN
from export.tapping.view import GraphView, attribute, name_of, optional_input

_INPUT, _WEIGHTS, _BIAS, _MASK, _PAST, _SCORE_BIAS, _PAST_LENGTH = range(7)
_KEPT = ("num_heads", "scale", "unidirectional", "mask_filter_value")


def part_packed_attention(model: ModelProto) -> int:
    """Rewrite every such node of a graph in place; returns how many there were.

    Raises:
        TapError: One works on a cache, turns positions, or multiplies with what is no weight.
    """
    view = GraphView(model, Path())
    parted = {node.output[0]: _part(view, node) for node in view.nodes("Attention", DOMAIN)}
    nodes = [one for node in model.graph.node for one in parted.get(node.output[0], [node])]
    if parted:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return len(parted)


def _part(view: GraphView, node: NodeProto) -> list[NodeProto]:
    name = node.output[0]
    if optional_input(node, _PAST) or optional_input(node, _PAST_LENGTH) or any(node.output[1:]):
        raise TapError(f"{name_of(node)}: works on a key-value cache; expected a graph over the whole sequence")
    if attribute(node, "do_rotary", 0):
        raise TapError(f"{name_of(node)}: turns query and key by their positions (do_rotary): cannot be tapped")
    shape = view.shape(node.input[_WEIGHTS])
    if not view.is_constant(node.input[_WEIGHTS]) or shape is None or not isinstance(shape[-1], int):
        raise TapError(f"{name_of(node)}: its projection is computed; expected a weight")
    widths = list(attribute(node, "qkv_hidden_sizes", [])) or [shape[-1] // 3] * 3
    whole = f"{name}.projected"
    made = [helper.make_node("MatMul", [node.input[_INPUT], node.input[_WEIGHTS]], [whole])]
    if bias := optional_input(node, _BIAS):
        made.append(helper.make_node("Add", [whole, bias], [f"{name}.biased"]))
        whole = f"{name}.biased"
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    made.append(_split(view, whole, widths, parts))
    made.append(_fused(node, parts))
    for index, one in enumerate(made):
        one.name = f"{name_of(node)}/{index}_{one.op_type}"
    return made


def _split(view: GraphView, whole: str, widths: list[int], parts: list[str]) -> NodeProto:
    """Part the last axis; before opset 13 the widths are an attribute."""
    if view.opset < 13:
        return helper.make_node("Split", [whole], parts, axis=-1, split=widths)
    sizes = numpy_helper.from_array(np.array(widths, dtype=np.int64), f"{whole}.widths")
    view.model.graph.initializer.append(sizes)
    return helper.make_node("Split", [whole, sizes.name], parts, axis=-1)


def _fused(node: NodeProto, parts: list[str]) -> NodeProto:
    inputs = [*parts, "", optional_input(node, _MASK), optional_input(node, _SCORE_BIAS)]
    while not inputs[-1]:
        inputs.pop()
    given = {key: value for key in _KEPT if (value := attribute(node, key)) is not None}
    return helper.make_node("MultiHeadAttention", inputs, list(node.output[:1]), domain=DOMAIN, **given)
