"""Rule: ONNX's Attention (opset 23 and 24) gives its weights as its fourth output, in mode 3 after the softmax.

https://onnx.ai/onnx/operators/onnx__Attention.html
"""

from collections.abc import Iterator

from onnx import NodeProto, helper

from export.errors import TapError
from export.tapping.decompose import split_heads
from export.tapping.rule import Found
from export.tapping.view import GraphView, attribute, name_of, optional_input

_MODE, _AFTER_SOFTMAX, _WEIGHTS_OUTPUT = "qk_matmul_output_mode", 3, 3
_PAST_KEY = 4


def tap_attention_nodes(view: GraphView) -> Iterator[Found]:
    """Ask every Attention node for its weights."""
    for node in view.nodes("Attention"):
        if optional_input(node, _PAST_KEY):
            raise TapError(f"{name_of(node)}: takes a key-value cache; expected a graph over the whole sequence")
        weights = _restate_shape(view, node, _ask_for_weights(view, node))
        _hide_length(view, node)
        values, heads = node.input[2], attribute(node, "kv_num_heads")
        yield Found(
            node, weights, split_heads(view, values, heads, f"{weights}.values") if heads else values, node.output[0]
        )


def _ask_for_weights(view: GraphView, node: NodeProto) -> str:
    """Name the fourth output and set the mode, replacing the attribute that torch's exporter has already written."""
    given = node.output[_WEIGHTS_OUTPUT] if len(node.output) > _WEIGHTS_OUTPUT else ""
    if given and attribute(node, _MODE, 0) != _AFTER_SOFTMAX and view.is_used(given):
        raise TapError(f"{name_of(node)}: gives its scores before the softmax already; expected none, or its weights")
    kept = [entry for entry in node.attribute if entry.name != _MODE]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(_MODE, _AFTER_SOFTMAX)])
    node.output.extend([""] * (_WEIGHTS_OUTPUT + 1 - len(node.output)))
    node.output[_WEIGHTS_OUTPUT] = given or f"{node.output[0]}.weights"
    return str(node.output[_WEIGHTS_OUTPUT])


def _restate_shape(view: GraphView, node: NodeProto, weights: str) -> str:
    """Reshape the weights to what they are.

    Where the length is symbolic, shape inference takes the weights' last axis for 0, whatever is declared: a session
    then reports 0 and warns at every run. After a reshape to (batch, heads, query's length, key's length) it reports
    the symbolic axes.
    """
    (query, key), heads = node.input[:2], attribute(node, "q_num_heads")
    length = 1 if heads else 2
    sizes = [
        view.size_of(query, 0, f"{weights}.batch"),
        view.add_numbers([heads], f"{weights}.heads") if heads else view.size_of(query, 1, f"{weights}.heads"),
        view.size_of(query, length, f"{weights}.queries"),
        view.size_of(key, length, f"{weights}.keys"),
    ]
    axes = view.add("Concat", sizes, f"{weights}.axes", axis=0)
    shaped = view.add("Reshape", [weights, axes], f"{weights}.shaped")
    return view.describe(shaped, (None,) * 4, view.dtype(query))


def _hide_length(view: GraphView, node: NodeProto) -> None:
    """Keep a session from guessing how many queries there are, where keys come from another sequence.

    Since the last axis counts as 0 (see above), it would take the weights of self- and of cross-attention with the same
    queries for equally large, and give the second the memory of the first: runs with more keys than queries then fail.
    """
    query, key = node.input[:2]
    length = 1 if attribute(node, "q_num_heads") else 2
    sizes = [(view.shape(value) or (None,) * (length + 2))[length] for value in (query, key)]
    if sizes[0] == sizes[1] or all(isinstance(size, int) for size in sizes):
        return
    name = f"{node.output[0]}.query"
    same = [-1 if axis == length else 0 for axis in range(length + 2)]
    node.input[0] = view.add("Reshape", [query, view.add_numbers(same, f"{name}.axes")], name)
    view.describe(name, view.shape(query) or (None,) * (length + 2), view.dtype(query))
