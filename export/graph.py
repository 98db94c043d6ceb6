"""Turns a network into an ONNX graph with dynamic batch and length; the first step of an export."""

import copy
import hashlib
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import torch
from onnx import ModelProto, TensorProto, external_data_helper
from torch import Tensor, nn

from artifact.contract import BATCH_AXIS
from export.errors import TraceError
from export.mending import least_size, mend
from export.traits import Traits

# The first opset with the Attention operator, whose fourth output can be the weights.
# https://onnx.ai/onnx/operators/onnx__Attention.html
OPSET = 23
# Small tensors stay in the graph, where shape inference and constant folding can read them.
_INLINE_BYTES = 1024
# Page-aligned, so that a runtime can map each weight instead of reading it.
_ALIGNMENT_BYTES = 4096
# The exporter names inner values after torch's operators ("embedding") and does not see that an output has that name.
_OUTPUT_PREFIX = "output."
_REASON_CHARACTERS = 300
# What torch says of an axis where code asks for its size, and where it works at one size only.
_GUARDED, _FIXED = "satisfy the generated guard", "specialized it to be a constant"
_BY_VALUES = "Could not guard on data-dependent expression "


class _Traced(nn.Module):
    """A network as it is traced: inputs by position, as it may compute in a lower precision, answers in float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)
        self._dtype = dtype

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        if self._dtype == torch.float32:
            return dict(self.network(*inputs))
        lower = [one.to(self._dtype) if one.is_floating_point() else one for one in inputs]
        return {name: tensor.to(torch.float32) for name, tensor in self.network(*lower).items()}


def to_onnx(network: nn.Module, traits: Traits, dtype: torch.dtype = torch.float32) -> ModelProto:
    """Trace a network with torch's exporter.

    Args:
        network: In evaluation mode; takes its inputs in the order of the traits and returns tensors by name.
        traits: Of it.
        dtype: What the graph computes in; its inputs and outputs are the same for all.

    Returns:
        A graph whose inputs are those of the traits and whose outputs are named as the network names them, with
        Attention nodes for fused attention. It holds no traces of the source tree that made it.

    Raises:
        TraceError: Torch cannot export it.
    """
    example = [torch.from_numpy(array) for array in traits.example(2, _example_sizes(traits)).values()]
    dims = {name: torch.export.Dim(name, min=least_size(traits, name), max=traits.limit(name)) for name in traits.axes}
    dims[BATCH_AXIS] = torch.export.Dim(BATCH_AXIS)
    axes = tuple(
        {place: dims[axis] for place, axis in enumerate(spec.axes) if isinstance(axis, str)} for spec in traits.inputs
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations and of axes that share a name
        try:
            output_names = list(network(*example))
        except Exception as error:  # torch raises whatever its parts raise
            raise TraceError(f"torch cannot export it: {_reason(error)}") from error
    names = [spec.name for spec in traits.inputs]
    model = trace(_Traced(network, dtype).eval(), tuple(example), axes, names, output_names)
    rename_axes(model, _given_names(model, traits))
    mend(model, traits)
    return model


def trace(
    traced: nn.Module,
    example: tuple[Tensor, ...],
    axes: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int = OPSET,
) -> ModelProto:
    """Trace a module that takes tensors by position and returns a tuple or a dict of them.

    Args:
        traced: In evaluation mode.
        example: What it takes.
        axes: Of each input, torch's dimensions by place.
        input_names: What the graph's inputs are called.
        output_names: Likewise its outputs.
        opset: Of the graph.

    Raises:
        TraceError: Torch cannot export it.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exported = _export(traced, example, axes)
            _say_what_is_grouped(exported)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=opset,
                input_names=list(input_names),
                output_names=[f"{_OUTPUT_PREFIX}{name}" for name in output_names],
                verbose=False,
            )
        except Exception as error:  # torch raises whatever its parts raise
            raise TraceError(f"torch cannot export it: {_reason(error)}") from error
    assert program is not None  # noqa: S101 -- None only without dynamo
    model = program.model_proto
    _rename_values(model, {name: f"{name}.inner" for name in output_names})
    _rename_values(model, {f"{_OUTPUT_PREFIX}{name}": name for name in output_names})
    return _without_traces(model)


def _given_names(model: ModelProto, traits: Traits) -> dict[str, str]:
    """Map torch's names of axes to ours."""
    names = dict[str, str]()
    for value, spec in zip(model.graph.input, traits.inputs, strict=True):
        for dim, axis in zip(value.type.tensor_type.shape.dim, spec.axes, strict=True):
            if isinstance(axis, str) and not dim.dim_param:
                raise TraceError(f"torch cannot export it: {spec.name} would have to have {axis} {dim.dim_value}")
            if isinstance(axis, str):
                names[dim.dim_param] = axis
    return names


def _example_sizes(traits: Traits) -> dict[str, int]:
    """Make no two axes of one size, which torch would take for the same."""
    return traits.fit({name: 16 + 3 * place for place, name in enumerate(traits.axes)})


def _export(traced: nn.Module, example: tuple[Tensor, ...], axes: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """Export for all sizes; where torch finds some that the code treats in a way of its own, for those it can."""
    try:
        return torch.export.export(traced, example, dynamic_shapes=(axes,))
    except torch._dynamo.exc.UserError as error:
        if _GUARDED not in str(error) or _FIXED in str(error):
            raise
        free = tuple(dict.fromkeys(named, torch.export.Dim.AUTO) for named in axes)
        return torch.export.export(traced, example, dynamic_shapes=(free,))


def _say_what_is_grouped(program: torch.export.ExportedProgram) -> None:
    """Tell where one key head serves all query heads: torch repeats it silently, its exporter wants to be told."""
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.scaled_dot_product_attention.default:
            query, key = (value.meta["val"].shape for value in node.args[:2])
            if len(query) == len(key) == 4 and key[1] == 1 != query[1]:
                node.kwargs = {**node.kwargs, "enable_gqa": True}


def _reason(error: BaseException) -> str:
    """What an error of torch's exporter says in one line: its first cause, without advice on logging."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    first, advice, _ = (lines or [type(error).__name__])[0].partition(" For more information")
    detail = f" {lines[1].partition(' If you')[0]}" if advice and len(lines) > 1 else ""
    if first.startswith(_BY_VALUES):
        first = f"its code takes another way by the values of what it is given: {first.removeprefix(_BY_VALUES)}"
    return textwrap.shorten(first + detail, _REASON_CHARACTERS, placeholder=" ...")


def rename_axes(model: ModelProto, names: Mapping[str, str]) -> None:
    """Give symbolic axes other names, everywhere in a graph."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def externalize(graph: ModelProto, weights_file: Path, beside: ModelProto | None = None) -> ModelProto:
    """Move the weights of a graph into a file of their own, or behind those of another graph.

    Args:
        graph: With its weights inside.
        weights_file: Written; the graph will look for it by name in its own folder.
        beside: A graph whose weights the file holds already. What both have is not written again.

    Returns:
        A graph that refers to the file, so that copies of it share the weights.
    """
    light = ModelProto()
    light.CopyFrom(graph)
    places = _find_places(beside, weights_file) if beside is not None else {}
    with weights_file.open("wb" if beside is None else "ab") as file:
        for tensor in light.graph.initializer:
            data = _raw_bytes(tensor)
            if len(data) < _INLINE_BYTES:
                continue
            offset = places.get(hashlib.sha256(data).digest())
            if offset is None:
                offset = append_weights(file, data)
            external_data_helper.set_external_data(tensor, weights_file.name, offset=offset, length=len(data))
            tensor.ClearField("raw_data")
    return light


def append_weights(file: BinaryIO, data: bytes) -> int:
    """Write at the next page; returns the offset."""
    file.write(b"\0" * (-file.tell() % _ALIGNMENT_BYTES))
    offset = file.tell()
    file.write(data)
    return offset


def _find_places(graph: ModelProto, weights_file: Path) -> dict[bytes, int]:
    """Where the weights of a graph lie in their file, by sha256."""
    places = dict[bytes, int]()
    with weights_file.open("rb") as file:
        for tensor in graph.graph.initializer:
            if external_data_helper.uses_external_data(tensor):
                info = external_data_helper.ExternalDataInfo(tensor)
                file.seek(info.offset or 0)
                places[hashlib.sha256(file.read(info.length)).digest()] = info.offset or 0
    return places


def _raw_bytes(tensor: TensorProto) -> bytes:
    if not tensor.HasField("raw_data"):
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    return tensor.raw_data


def _rename_values(model: ModelProto, names: dict[str, str]) -> None:
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.value_info, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def _without_traces(model: ModelProto) -> ModelProto:
    """Drop the exporter's notes: stack traces name files of the machine that exported."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    return model
