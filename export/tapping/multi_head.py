"""Rule: ONNX Runtime's MultiHeadAttention keeps its fused node; its weights are computed beside it, from its inputs.

So the ordinary outputs stay as they are, and whoever asks for attention pays for one more product of query and key.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto, helper

from export.errors import TapError
from export.tapping.decompose import Heads, places_of, split_heads, write_weights
from export.tapping.rule import Found
from export.tapping.view import GraphView, attribute, name_of, optional_input

DOMAIN = "com.microsoft"
_QUERY, _KEY, _VALUE, _BIAS, _KEY_PADDING, _SCORE_BIAS, _PAST = range(7)
_LOWEST = -1e4  # what ONNX Runtime adds where a mask hides, mask_filter_value
# A mask of keys by its number of axes, as axes of the scores.
_MASK_AXES = {2: [1, 2], 3: [1]}
# Of the same library, and why they cannot be tapped.
_REFUSED = {
    "GroupQueryAttention": "works on a key-value cache, a step at a time",
    "DecoderMaskedMultiHeadAttention": "works on a key-value cache, a step at a time",
    "DecoderMaskedSelfAttention": "works on a key-value cache, a step at a time",
    "DecoderAttention": "works on a key-value cache, a step at a time",
    "PackedAttention": "has the rows of a batch packed into one sequence",
    "PackedMultiHeadAttention": "has the rows of a batch packed into one sequence",
    "PagedAttention": "works on a paged key-value cache",
    "LongformerAttention": "never computes whole rows",
    "SparseAttention": "never computes whole rows",
    "QAttention": "multiplies in integers with packed weights",
    "QOrderedAttention": "multiplies in integers with packed weights",
    "QOrderedLongformerAttention": "multiplies in integers with packed weights",
    "LinearAttention": "has no softmax",
}


def refuse_others(view: GraphView) -> None:
    """Say of an attention node of ONNX Runtime that none of the rules takes why that is so.

    A graph that has one is refused as a whole: layers are counted, and a list with a hole would mislead.

    Raises:
        TapError: There is one; names it.
    """
    for node in view.model.graph.node:
        if node.domain == DOMAIN and node.op_type in _REFUSED:
            raise TapError(f"{name_of(node)}: {node.op_type} {_REFUSED[node.op_type]}: cannot be tapped")


def tap_multi_head(view: GraphView) -> Iterator[Found]:
    """Compute the weights of every MultiHeadAttention beside it."""
    for node in view.nodes("MultiHeadAttention", DOMAIN):
        _refuse(view, node)
        heads = _heads(view, node)
        yield Found(node, write_weights(view, heads, f"{node.output[0]}.tap"), heads.value, node.output[0])


def _refuse(view: GraphView, node: NodeProto) -> None:
    if any(node.input[_PAST:]) or any(node.output[1:]):
        raise TapError(f"{name_of(node)}: works on a key-value cache; expected a graph over the whole sequence")
    ranks = [view.rank(optional_input(node, index)) for index in (_QUERY, _KEY, _VALUE)]
    if ranks != [3, 3, 3]:
        raise TapError(
            f"{name_of(node)}: query, key and value are packed, or split by head already; expected three inputs "
            "[batch, length, width]"
        )
    lengths = {shape[1] for index in (_QUERY, _KEY) if (shape := view.shape(node.input[index]))}
    if attribute(node, "unidirectional", 0) and len(lengths) > 1:
        # ONNX Runtime 1.31 hides nothing from the last query of a batch then.
        raise TapError(f"{name_of(node)}: is causal between sequences of two lengths; expected one sequence")


def _heads(view: GraphView, node: NodeProto) -> Heads:
    name, count = f"{node.output[0]}.tap", attribute(node, "num_heads")
    parts = _add_bias(view, node, name)
    query, key, value = (
        split_heads(view, one, count, f"{name}.{part}") for one, part in zip(parts, "qkv", strict=True)
    )
    masks = tuple(mask for mask in (_padding(view, node, f"{name}.padding"), optional_input(node, _SCORE_BIAS)) if mask)
    scale = attribute(node, "scale", 0.0) or None
    return Heads(query, key, value, scale=scale, masks=masks, causal=bool(attribute(node, "unidirectional", 0)))


def _add_bias(view: GraphView, node: NodeProto, name: str) -> list[str]:
    """Add the bias of query, key and value, which comes as one vector."""
    bias, parts = optional_input(node, _BIAS), list(node.input[:_BIAS])
    if not bias:
        return parts
    whole = view.constant(bias)
    query, _, value = (shape[-1] if (shape := view.shape(part)) else None for part in parts)
    if whole is None or not isinstance(query, int) or not isinstance(value, int):
        raise TapError(f"{name_of(node)}: its bias is computed; expected a weight, and known widths")
    pieces = np.split(whole, [query, 2 * query])
    added = list[str]()
    for part, piece, letter in zip(parts, pieces, "qkv", strict=True):
        total = view.add("Add", [part, view.add_constant(piece, f"{name}.bias_{letter}")], f"{name}.biased_{letter}")
        added.append(view.describe(total, view.shape(part) or (None,) * 3, view.dtype(part)))
    return added


def _padding(view: GraphView, node: NodeProto, name: str) -> str:
    """Turn int32 ones at real keys, [B, K] or [B, Q, K], or their counts [B], into what is added to the scores."""
    mask = optional_input(node, _KEY_PADDING)
    if not mask:
        return ""
    if view.rank(mask) == 1:
        mask = _from_counts(view, mask, node.input[_KEY], name)
    elif view.rank(mask) not in _MASK_AXES:
        raise TapError(f"{name_of(node)}: key_padding_mask has other axes; expected batch, [query,] key")
    real = view.add("Cast", [mask], f"{name}.real", to=TensorProto.BOOL)
    dtype = helper.tensor_dtype_to_np_dtype(view.dtype(node.input[_QUERY]) or TensorProto.FLOAT)
    nothing = view.add_constant(np.array(0, dtype=dtype), f"{name}.nothing")
    lowest = view.add_constant(np.array(attribute(node, "mask_filter_value", _LOWEST), dtype=dtype), f"{name}.lowest")
    added = view.add("Where", [real, nothing, lowest], f"{name}.added")
    return view.unsqueeze(added, _MASK_AXES[view.rank(mask) or 2], name)


def _from_counts(view: GraphView, counts: str, key: str, name: str) -> str:
    """Turn the numbers of real keys, int32 [B], into a mask of keys, bool [B, K]."""
    places = view.add("Cast", [places_of(view, key, 1, f"{name}.places")], f"{name}.numbers", to=TensorProto.INT32)
    column = view.add_numbers([-1, 1], f"{name}.column")
    return view.add("Less", [places, view.add("Reshape", [counts, column], f"{name}.counts")], f"{name}.within")
