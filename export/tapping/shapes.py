"""Tells shapes and types of a graph's values.

ONNX's own inference does not know the operators of ONNX Runtime and gives up behind the first of them: what it leaves
open, ONNX Runtime is asked for.
"""

import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from export.errors import ProbeError
from export.session import make_options, open_session

Shape = tuple[int | str | None, ...]
# Smaller tensors stay: shapes are computed from them.
_LARGE_BYTES = 4096


def infer(model: ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    """Infer what can be.

    Returns:
        By name the axes (sizes, names, None where unknown) of values whose number of axes is known; and ONNX's numbers
        of the types of elements.
    """
    shapes, types = dict[str, Shape](), dict[str, int]()
    light = _without_weights(model)
    _infer_by_onnx(light, shapes, types)
    if _describe_reshapes(light, shapes, types):
        _infer_by_onnx(light, shapes, types)
    if any(name and name not in shapes for node in model.graph.node for name in node.output):
        _ask_runtime(light, shapes, types)
    return shapes, types


def _without_weights(model: ModelProto) -> ModelProto:
    """Copy a graph with large weights as inputs, so that it is small and needs no files."""
    light = ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, given = light.graph, {value.name for value in model.graph.input}
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() < _LARGE_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return light


def _infer_by_onnx(light: ModelProto, shapes: dict[str, Shape], types: dict[str, int]) -> None:
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # its errors have no common base, and it fails as a whole
        inferred = light.graph
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim
            )


def _describe_reshapes(light: ModelProto, shapes: dict[str, Shape], types: dict[str, int]) -> bool:
    """Declare what is reshaped to a row of single numbers, where inference before opset 13 gives up."""
    made = {node.output[0]: node for node in light.graph.node if node.op_type == "Concat"}
    numbers, described = _single_numbers(light), False
    for node in light.graph.node:
        if node.op_type != "Reshape" or node.output[0] in shapes or node.input[1] not in made:
            continue
        parts = list(made[node.input[1]].input)
        if all(shapes.get(part) == (1,) for part in parts):
            sizes = [numbers.get(part) for part in parts]
            value = helper.make_tensor_value_info(node.output[0], types.get(node.input[0], 0), sizes)
            light.graph.value_info.append(value)
            described = True
    return described


def _single_numbers(light: ModelProto) -> dict[str, int]:
    """Return the constants that are one number above 0, as sizes of axes are."""
    tensors = {tensor.name: tensor for tensor in light.graph.initializer}
    for node in light.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    single = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items() if list(tensor.dims) == [1]}
    return {name: int(array[0]) for name, array in single.items() if array.dtype.kind == "i" and array[0] > 0}


def _ask_runtime(light: ModelProto, shapes: dict[str, Shape], types: dict[str, int]) -> None:
    """Add what ONNX Runtime knows of values that have no shape yet; it reports only what is an output."""
    open_values = {name for node in light.graph.node for name in node.output if name} - shapes.keys()
    given = {value.name for value in light.graph.output}
    light.graph.output.extend(ValueInfoProto(name=name) for name in sorted(open_values - given))
    options = make_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = open_session(light.SerializeToString(), options)
    except ProbeError:  # what is wrong with the graph is found when it runs
        return
    for value in session.get_outputs():
        if value.name in open_values and value.type.startswith("tensor("):
            types[value.name] = TensorProto.DataType.Value(value.type[len("tensor(") : -1].upper())
            if value.shape:  # empty as well where the number of axes is unknown
                shapes[value.name] = tuple(value.shape)
