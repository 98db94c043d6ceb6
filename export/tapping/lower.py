"""Writes the Attention nodes of a tapped graph out: its lowered form, where a fused node gives no weights."""

from onnx import ModelProto, NodeProto, helper

from export.errors import TapError
from export.tapping.decompose import Heads, merge_heads, split_heads, write_attended, write_weights
from export.tapping.view import GraphView, attribute, name_of, optional_input

_MASK, _WEIGHTS_OUTPUT = 3, 3
_REAL_KEYS = 6  # nonpad_kv_seqlen, of opset 24


def lower(tapped: ModelProto, view: GraphView) -> bool:
    """Replace Attention nodes by MatMul, Softmax and MatMul with the same outputs.

    Args:
        tapped: Is changed: a graph whose Attention nodes name their weights.
        view: Of it.

    Returns:
        Whether there was any.

    Raises:
        TapError: A node caps its scores, counts real keys, or gives a cache.
    """
    nodes = view.nodes("Attention")
    for node in nodes:
        _refuse(node)
        _decompose(view, node)
    for node in nodes:
        tapped.graph.node.remove(node)
    return bool(nodes)


def _refuse(node: NodeProto) -> None:
    reasons = {
        "caps its scores (softcap)": attribute(node, "softcap", 0.0),
        "counts its real keys (nonpad_kv_seqlen)": optional_input(node, _REAL_KEYS),
        "gives a key-value cache": any(node.output[1:_WEIGHTS_OUTPUT]),
    }
    for reason, applies in reasons.items():
        if applies:
            raise TapError(f"{name_of(node)}: {reason}; has no lowered form")


def _decompose(view: GraphView, node: NodeProto) -> None:
    mask, (output, given) = optional_input(node, _MASK), (node.output[0], node.output[_WEIGHTS_OUTPUT])
    flat = attribute(node, "q_num_heads")
    query, key, value = _split(view, node)
    heads = Heads(
        query,
        key,
        value,
        scale=attribute(node, "scale"),
        masks=(mask,) if mask else (),
        causal=bool(attribute(node, "is_causal", 0)),
        zero_rows=True,
    )
    weights = write_weights(view, heads, f"{output}.lowered")
    view.model.graph.node.append(helper.make_node("Identity", [weights], [given], name=f"{name_of(node)}/weights"))
    if flat:
        merge_heads(view, write_attended(view, heads, weights, f"{output}.by_head"), output)
    else:
        write_attended(view, heads, weights, output)


def _split(view: GraphView, node: NodeProto) -> list[str]:
    """Query, key and value, each [B, heads, N, d]."""
    parts = list(node.input[:3])
    if not (queries := attribute(node, "q_num_heads")):
        return parts
    counts = (queries, *[attribute(node, "kv_num_heads")] * 2)
    names = (f"{node.output[0]}.lowered.{part}" for part in ("query", "key_heads", "value_heads"))
    return [split_heads(view, part, count, name) for part, count, name in zip(parts, counts, names, strict=True)]
