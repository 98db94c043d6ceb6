"""Gives a graph its attention weights as further outputs; the one rewrite between the plain and the tapped graph."""

from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

# qk_matmul_output_mode 3: the fourth output holds the scores after the softmax.
# https://onnx.ai/onnx/operators/onnx__Attention.html
_AFTER_SOFTMAX = 3
_WEIGHTS_OUTPUT = 3

Shape = tuple[int | str, ...]


class TapError(ValueError):
    """A graph whose attention cannot be tapped; the message says why and names the node."""


@dataclass(frozen=True)
class Tap:
    """One attention output.

    Attributes:
        output: Its name in the graph.
        layer: Counted from 0, in the order of the graph.
        shape: The axes [batch, heads, query, key]; a size where fixed, a name where symbolic.
    """

    output: str
    layer: int
    shape: Shape


def tap(plain: ModelProto) -> tuple[ModelProto, list[Tap]]:
    """Ask every Attention node for its weights and make them outputs of the graph.

    Args:
        plain: A graph at opset 23 or later. It is not changed.

    Returns:
        The tapped graph, with further float32 outputs "attention.0", "attention.1" and so on, and what they are.

    Raises:
        TapError: There is no Attention node, or the shape of one is not known.
    """
    tapped = ModelProto()
    tapped.CopyFrom(plain)
    nodes = [node for node in tapped.graph.node if node.op_type == "Attention"]
    if not nodes:
        kinds = sorted({node.op_type for node in tapped.graph.node})
        raise TapError(f"no Attention node to tap; the graph has {', '.join(kinds)}")
    shapes, types = _known_shapes(tapped), _known_types(tapped)
    taps = [Tap(f"attention.{layer}", layer, _weights_shape(node, shapes)) for layer, node in enumerate(nodes)]
    for node, one in zip(nodes, taps, strict=True):
        weights = _ask_for_weights(node, one.output)
        if types.get(node.output[0], TensorProto.FLOAT) != TensorProto.FLOAT:
            cast = helper.make_node("Cast", [weights], [f"{weights}.float32"], to=TensorProto.FLOAT)
            cast.name = f"{one.output}/cast"
            tapped.graph.node.append(cast)
            weights = cast.output[0]
        tapped.graph.node.extend(_restate_shape(node, weights, one.output))
        tapped.graph.output.append(helper.make_tensor_value_info(one.output, TensorProto.FLOAT, one.shape))
    return tapped, taps


def _ask_for_weights(node: NodeProto, output: str) -> str:
    """Name the fourth output and set the mode, replacing the attribute that torch's exporter has already written."""
    weights = f"{output}.weights"
    kept = [attribute for attribute in node.attribute if attribute.name != "qk_matmul_output_mode"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("qk_matmul_output_mode", _AFTER_SOFTMAX)])
    node.output.extend([""] * (_WEIGHTS_OUTPUT + 1 - len(node.output)))
    node.output[_WEIGHTS_OUTPUT] = weights
    return weights


def _restate_shape(node: NodeProto, weights: str, output: str) -> list[NodeProto]:
    """Reshape the weights to what they are.

    Where the length is symbolic, shape inference takes the weights' last axis for 0, whatever is declared: a session
    then reports 0 and warns at every run. After a reshape to (query's batch, heads, length) and key's length it
    reports the symbolic axes.
    """
    query_axes, key_axes, axes = f"{output}.query_axes", f"{output}.key_axes", f"{output}.axes"
    return [
        helper.make_node("Shape", [node.input[0]], [query_axes], name=f"{output}/query_axes", start=0, end=3),
        helper.make_node("Shape", [node.input[1]], [key_axes], name=f"{output}/key_axes", start=2, end=3),
        helper.make_node("Concat", [query_axes, key_axes], [axes], name=f"{output}/axes", axis=0),
        helper.make_node("Reshape", [weights, axes], [output], name=f"{output}/reshape"),
    ]


def _weights_shape(node: NodeProto, shapes: dict[str, Shape]) -> Shape:
    query, key = (shapes.get(name, ()) for name in node.input[:2])
    if len(query) != 4 or len(key) != 4:
        raise TapError(f"{node.name}: query and key have shapes {query} and {key}; expected four known axes each")
    return query[0], query[1], query[2], key[2]


def _known_types(model: ModelProto) -> dict[str, int]:
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _known_shapes(model: ModelProto) -> dict[str, Shape]:
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in values
    }
