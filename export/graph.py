"""Turns a network into an ONNX graph with dynamic batch and length; the first step of an export."""

import copy
import warnings
from pathlib import Path

import onnx
import torch
from onnx import ModelProto, TensorProto, external_data_helper
from torch import Tensor, nn

from model.checkpoint import Network
from model.text import TextNetwork
from server.contract import BATCH_AXIS, SEQUENCE_AXIS

# The first opset with the Attention operator, whose fourth output can be the weights.
# https://onnx.ai/onnx/operators/onnx__Attention.html
OPSET = 23
# Small tensors stay in the graph, where shape inference and constant folding can read them.
_INLINE_BYTES = 1024
# Page-aligned, so that a runtime can map each weight instead of reading it.
_ALIGNMENT_BYTES = 4096
# The exporter names inner values after torch's operators ("embedding") and does not see that an output has that name.
_OUTPUT_PREFIX = "output."


def example_inputs(network: Network, batch: int, seq_len: int, image_size: int | None) -> tuple[Tensor, ...]:
    """Make random inputs in the order of network.input_names.

    Returns:
        Text: token ids and an all-ones mask, int64 [batch, seq_len]. Image: float32 [batch, channels, size, size].
    """
    if isinstance(network, TextNetwork):
        shape = (batch, seq_len)
        return torch.randint(network.config.vocab_size, shape), torch.ones(shape, dtype=torch.int64)
    size = image_size or network.config.image_size
    return (torch.randn(batch, network.config.num_channels, size, size),)


class _LowerText(nn.Module):
    """A text network that computes in a lower precision and answers in float32."""

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(dtype)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        outputs = self.network(input_ids, attention_mask)
        return {name: tensor.to(torch.float32) for name, tensor in outputs.items()}


class _LowerImage(nn.Module):
    """Likewise for images, which come as float32."""

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self._dtype = copy.deepcopy(network).to(dtype), dtype

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        outputs = self.network(pixel_values.to(self._dtype))
        return {name: tensor.to(torch.float32) for name, tensor in outputs.items()}


def in_precision(network: Network, dtype: torch.dtype) -> nn.Module:
    """Return the network itself for float32, else a copy that computes in `dtype` with the same inputs and outputs."""
    if dtype == torch.float32:
        return network
    return (_LowerText if isinstance(network, TextNetwork) else _LowerImage)(network, dtype).eval()


def to_onnx(network: Network, image_size: int | None = None, dtype: torch.dtype = torch.float32) -> ModelProto:
    """Trace a network with torch's exporter.

    Args:
        network: In evaluation mode.
        image_size: Edge in pixels of the images the graph is for; None for the size the network was made for.
        dtype: What the graph computes in; its inputs and outputs are the same for all.

    Returns:
        A graph whose inputs are network.input_names and whose outputs are named as the network names them, with
        Attention nodes for fused attention. It holds no traces of the source tree that made it.
    """
    axes, seq_len = {0: torch.export.Dim(BATCH_AXIS)}, 0
    if isinstance(network, TextNetwork):
        longest = network.config.encoder.max_positions
        axes[1], seq_len = torch.export.Dim(SEQUENCE_AXIS, max=longest), min(16, longest)
    example = example_inputs(network, batch=2, seq_len=seq_len, image_size=image_size)
    with torch.inference_mode():
        output_names = list(network(*example))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations and of axes that share a name
        program = torch.onnx.export(
            in_precision(network, dtype),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(network.input_names),
            output_names=[f"{_OUTPUT_PREFIX}{name}" for name in output_names],
            dynamic_shapes=tuple(axes for _ in example),
            verbose=False,
        )
    assert program is not None  # noqa: S101 -- None only without dynamo
    model = program.model_proto
    _rename_values(model, {name: f"{name}.inner" for name in output_names})
    _rename_values(model, {f"{_OUTPUT_PREFIX}{name}": name for name in output_names})
    return _without_traces(model)


def externalize(graph: ModelProto, weights_file: Path) -> ModelProto:
    """Move the weights of a graph into a file of their own.

    Args:
        graph: With its weights inside.
        weights_file: Written; the graph will look for it by name in its own folder.

    Returns:
        A graph that refers to the file, so that copies of it share the weights.
    """
    light = ModelProto()
    light.CopyFrom(graph)
    with weights_file.open("wb") as file:
        for tensor in light.graph.initializer:
            data = _raw_bytes(tensor)
            if len(data) < _INLINE_BYTES:
                continue
            file.write(b"\0" * (-file.tell() % _ALIGNMENT_BYTES))
            external_data_helper.set_external_data(tensor, weights_file.name, offset=file.tell(), length=len(data))
            tensor.ClearField("raw_data")
            file.write(data)
    return light


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
