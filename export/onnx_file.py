"""ONNX files as sources: what their inputs are is read off the graph, and from the files that lie beside them.

A folder of the transformers library's layout around the file says the rest: tokenizer.json, preprocessor_config.json,
and config.json with the names of the classes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS, EmbeddingContract
from artifact.dtypes import DType
from export.graph import rename_axes
from export.tapping.view import GraphView, attribute, walk_back
from export.traits import TOKEN_TYPES, InputSpec, Traits
from model.checkpoint import CheckpointError

_DTYPES = ("float32", "float16", "float64", "int64", "int32", "bool", "uint8", "int8")
_PASSES_IDS = frozenset({"Cast", "Identity", "Unsqueeze", "Reshape"})
_COUNTS_POSITIONS = frozenset({"Add", "Mul", "Cast", "Identity"})
_EMBEDDINGS = ("sentence_embedding", "embedding", "image_embeds", "text_embeds", "pooler_output")
DEFAULT_LONGEST = 512
_LEAST_IR = 4  # before it, weights had to be listed as inputs


def read_graph(path: Path, types: int = 0) -> ModelProto:
    """Read a file as a plain graph: axes named as here, no token types but those of pairs.

    Args:
        path: Of the file.
        types: Token types that its tokenizer tells apart in a pair; see count_pair_types.

    Raises:
        CheckpointError: It is no ONNX file, or its weights are not beside it.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # of protobuf, of onnx, and of the file system
        reason = str(error).strip().partition("\n")[0] or repr(error)
        raise CheckpointError(f"{path}: cannot be read as an ONNX file: {reason}") from error
    if not model.graph.node:
        raise CheckpointError(f"{path}: cannot be read as an ONNX file: it has no nodes")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    model.ir_version = max(model.ir_version, _LEAST_IR)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if not inputs:
        raise CheckpointError(f"{path}: has no inputs; expected at least one")
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    _fill_types(model, types)
    _name_axes(model)
    return model


def fix_image_size(model: ModelProto, edge: int) -> None:
    """Give the one image input of a graph, where its axes are symbolic, its channels and a fixed size in pixels."""
    if (
        len(model.graph.input) != 1
        or len(dims := _dims(model.graph.input[0])) != 4
        or _is_integer(model.graph.input[0])
    ):
        return
    view, value = GraphView(model, Path()), model.graph.input[0]
    kernels = [view.shape(node.input[1]) for node in view.consumers(value.name) if node.op_type == "Conv"]
    channels = kernels[0][1] if kernels and kernels[0] else dims[1]
    for dim, size in zip(value.type.tensor_type.shape.dim, (dims[0], channels, edge, edge), strict=True):
        if not dim.HasField("dim_value") and isinstance(size, int):
            dim.dim_value = size


def read_traits(model: ModelProto, other_axis: int = DEFAULT_LONGEST) -> Traits:
    """Describe a graph's inputs and its vector.

    Args:
        model: From read_graph.
        other_axis: Most positions of an axis where the graph has no table of positions.

    Raises:
        CheckpointError: An input has no known number of axes, or a type that cannot be served.
    """
    view = GraphView(model, Path())
    inputs = tuple(_describe(view, value) for value in model.graph.input)
    return Traits(inputs, _most_positions(view) or other_axis, _embedding(model))


def _embedding(model: ModelProto) -> EmbeddingContract | None:
    """Find an output that exporters name so for a vector."""
    widths = {value.name: dims[1] for value in model.graph.output if len(dims := _dims(value)) == 2}
    found = next((name for name in _EMBEDDINGS if isinstance(widths.get(name), int)), None)
    return EmbeddingContract(output=found, dim=int(widths[found] or 0), normalized=False) if found else None


def _name_axes(model: ModelProto) -> None:
    """Name axes as contracts do.

    The first of all inputs is the batch where it is one for all of them; the second of a mask is the sequence, which
    the server pads. So a graph without a mask has none.
    """
    for value in model.graph.input:
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and not dim.dim_param:
                shared = place == 0 or (place == 1 and _is_integer(value))
                dim.dim_param = f"axis_{place}" if shared else f"{value.name}_{place}"
    names = {reserved: f"{reserved}_of_graph" for reserved in (BATCH_AXIS, SEQUENCE_AXIS)}
    firsts = {dims[0] for value in model.graph.input if (dims := _dims(value))}
    if len(firsts) == 1 and isinstance(first := firsts.pop(), str):
        names[first] = BATCH_AXIS
    lengths = [_dims(value)[1] for value in model.graph.input if _is_mask(value)]
    if lengths and isinstance(length := lengths[0], str) and names.get(length) != BATCH_AXIS:
        names[length] = SEQUENCE_AXIS
    rename_axes(model, names)


def _fill_types(model: ModelProto, types: int) -> None:
    """Make token_type_ids zeros of the shape of the token ids, as for a single text, where no pair is told by them."""
    found = [value for value in model.graph.input if value.name == TOKEN_TYPES]
    ids = next((value.name for value in model.graph.input if value.name == "input_ids"), None)
    if not found or ids is None or 1 < types <= _table_rows(GraphView(model, Path()), TOKEN_TYPES):
        return
    model.graph.input.remove(found[0])
    zero = numpy_helper.from_array(_zeros(found[0]))
    nodes = [
        helper.make_node("Shape", [ids], [f"{TOKEN_TYPES}.shape"], name=f"{TOKEN_TYPES}/Shape"),
        helper.make_node(
            "ConstantOfShape", [f"{TOKEN_TYPES}.shape"], [TOKEN_TYPES], name=f"{TOKEN_TYPES}/zeros", value=zero
        ),
    ]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _zeros(value: ValueInfoProto) -> NDArray[Any]:
    return np.zeros(1, dtype=helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _describe(view: GraphView, value: ValueInfoProto) -> InputSpec:
    dims, name = _dims(value), value.name
    if not dims:
        raise CheckpointError(f"input {name}: has no axes; expected the batch first")
    axes = tuple(axis or f"{name}_{place}" for place, axis in enumerate(dims))
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    if dtype not in _DTYPES:
        raise CheckpointError(f"input {name}: is {dtype}; expected one of {', '.join(_DTYPES)}")
    if not _is_integer(value):
        return InputSpec(name, axes, dtype)  # type: ignore[arg-type]
    bound = 2 if _is_mask(value) else _table_rows(view, name)
    return InputSpec(name, axes, _integer(dtype), bound, mask=_is_mask(value), token_types=name == TOKEN_TYPES)


def _integer(dtype: str) -> DType:
    return "int32" if dtype == "int32" else "int64"


def _table_rows(view: GraphView, ids: str) -> int:
    """Rows of the smallest table that ids are looked up in; 0 where there is none."""
    shapes = [view.shape(table) for table in _tables(view, ids)]
    return min((shape[0] for shape in shapes if shape and isinstance(shape[0], int)), default=0)


def _tables(view: GraphView, ids: str) -> Iterator[str]:
    """Follow ids to the weights they are looked up in."""
    for node in view.consumers(ids):
        if node.op_type == "Gather" and node.input[1] == ids and attribute(node, "axis", 0) == 0:
            if view.is_constant(node.input[0]):
                yield node.input[0]
        elif node.op_type == "EmbedLayerNormalization" and node.input[0] == ids:
            yield node.input[2]
        elif node.op_type in _PASSES_IDS:
            yield from _tables(view, node.output[0])


def _most_positions(view: GraphView) -> int:
    """Rows of a table of positions, by its name; 0 where there is none."""
    for tensor in view.model.graph.initializer:
        if "position_embedding" in tensor.name and len(tensor.dims) == 2:
            return int(tensor.dims[0]) - 2 * _starts_at_two(view, tensor.name)
    return 0


def _starts_at_two(view: GraphView, table: str) -> bool:
    """Whether positions are counted as in RoBERTa: over the real tokens, from 2 on (fairseq's padding_idx + 1)."""
    lookups = [node for node in view.consumers(table) if node.op_type == "Gather"]
    return any(
        made.op_type == "CumSum" for node in lookups for made in walk_back(view, node.input[1], _COUNTS_POSITIONS)
    )


def _is_mask(value: ValueInfoProto) -> bool:
    """Whether an input says of positions [batch, length] which are real; it is known by its name alone."""
    return _is_integer(value) and value.name.lower().endswith("mask") and len(_dims(value)) == 2


def _is_integer(value: ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.INT32)


def _dims(value: ValueInfoProto) -> list[int | str | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]
