"""Turns one step of a decoder into a graph: attention and caches as ONNX's own operators, or lowered.

The network's own code is traced with other functions in place of its attention and of its writing into caches; both get
lengths in place of masks: a row attends to so many keys, from the first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from onnx import ModelProto
from torch import Tensor, nn

from artifact.contract import BATCH_AXIS
from artifact.generation import CROSS_KEY, CROSS_VALUE, SELF_KEY, SELF_VALUE, GenerationContract
from export.graph import OPSET, rename_axes, trace
from export.mending import drop_unused_weights
from model.attention import KeysValues, explained_attention
from model.decoder import Write, write

# The first opset with TensorScatter, and with Attention's nonpad_kv_seqlen: keys of a row from there on are not read.
# https://onnx.ai/onnx/operators/onnx__TensorScatter.html
STEP_OPSET = 24
_CACHE_AXIS, _SOURCE_AXIS = "cache", "source"
_TAKEN = (SELF_KEY, SELF_VALUE, CROSS_KEY, CROSS_VALUE)
_ROWS, _CACHED, _SOURCE = 3, 11, 7  # of the example, no two the same


class StepAttend(Protocol):
    """One way for a step to attend; does for what model/ calls Attend, too."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        scale: float | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Take int64 [B] lengths for a mask; return the queries, float [B, H, 1, d], in place of weights.

        Scores are scale q k + bias, which is float [B, H, 1, K]; scale is 1 / sqrt(d) unless given.
        """
        ...


@dataclass(frozen=True)
class Form:
    """How a step attends and writes.

    Attributes:
        attend: See StepAttend.
        write: See model/decoder.py.
        opset: Which its operators are of.
    """

    attend: StepAttend
    write: Write
    opset: int


@dataclass(frozen=True)
class LayerCache:
    """What one decoder layer reads: its cached keys and values, float [B, H, L, d], and the source's [B, H, S, d]."""

    own: KeysValues
    source: KeysValues


@dataclass(frozen=True)
class LayerStep:
    """What one decoder layer gives: its cache with the new token, and its queries, float [B, H, 1, d].

    A layer may have a bias of self attention of its own, float [B, H, L]; what stands behind the token is not read.
    """

    written: KeysValues
    self_query: Tensor
    cross_query: Tensor
    self_bias: Tensor | None = None


class Step(Protocol):
    """A network that can write one token of each row."""

    def __call__(
        self, tokens: Tensor, lengths: Tensor, source_lengths: Tensor, layers: Sequence[LayerCache], form: Form
    ) -> tuple[Tensor, list[LayerStep]]:
        """Take int64 [B, 1] tokens behind int64 [B] cached ones; return the logits, float [B, V], and each layer's."""
        ...


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """ONNX's Attention over the first keys of each row."""
    del causal
    given = (query, key, value, bias, None, None, mask)
    attended = torch.onnx.ops.symbolic(
        "Attention",
        given,
        {} if scale is None else {"scale": scale},
        dtype=query.dtype,
        shape=query.shape,
        version=STEP_OPSET,
    )
    return attended, query


def _write(cached: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """ONNX's TensorScatter, which may write in place."""
    given = (cached, new, positions[:, 0])
    return torch.onnx.ops.symbolic(
        "TensorScatter", given, {"axis": 2}, dtype=cached.dtype, shape=cached.shape, version=24
    )


def _attend_lowered(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """MatMul, Where, Softmax, MatMul."""
    del causal
    real = None if mask is None else (torch.arange(key.shape[2]) < mask[:, None])[:, None, None]  # [B, 1, 1, K]
    if bias is not None:
        real = bias if real is None else bias.masked_fill(~real, -math.inf)  # [B, H, 1, K]
    return explained_attention(query, key, value, real, scale=scale)[0], query


FUSED = Form(_attend, _write, STEP_OPSET)
LOWERED = Form(_attend_lowered, write, OPSET)  # what torch can run, too


class Flat(nn.Module):
    """A step that takes and gives tensors in a row, as graphs do."""

    def __init__(self, step: Step, form: Form) -> None:
        """Fix the form; weights are found where the step is a module."""
        super().__init__()
        self.step, self.form = step, form

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Take and give what GenerationContract.step_inputs and step_outputs name."""
        (tokens, lengths, source_lengths), caches = inputs[:3], inputs[3:]
        layers = [
            LayerCache(KeysValues(*caches[place : place + 2]), KeysValues(*caches[place + 2 : place + 4]))
            for place in range(0, len(caches), len(_TAKEN))
        ]
        logits, given = self.step(tokens, lengths, source_lengths, layers, self.form)
        biases = [layer.self_bias for layer in given if layer.self_bias is not None]
        queries = ((*layer.written, layer.self_query, layer.cross_query) for layer in given)
        return logits, *(tensor for layer in queries for tensor in layer), *biases


def trace_step(step: Step, generation: GenerationContract, form: Form) -> ModelProto:
    """Trace one step, with any number of rows, cached tokens and source tokens.

    Raises:
        TraceError: Torch cannot export it.
    """
    layers, heads, dim = generation.num_layers, generation.num_heads, generation.head_dim
    sizes = {_CACHE_AXIS: _CACHED, _SOURCE_AXIS: _SOURCE}
    kinds = [axis for _ in range(layers) for axis in (_CACHE_AXIS, _CACHE_AXIS, _SOURCE_AXIS, _SOURCE_AXIS)]
    caches = [torch.zeros(_ROWS, heads, sizes[axis], dim) for axis in kinds]
    start = generation.beginnings()[0][0]
    tokens, lengths = torch.full((_ROWS, 1), start), torch.arange(_ROWS)
    dims = {name: torch.export.Dim(name) for name in (BATCH_AXIS, *sizes)}
    batch = dims[BATCH_AXIS]
    axes = ({0: batch}, {0: batch}, {0: batch}, *({0: batch, 2: dims[axis]} for axis in kinds))
    names = (generation.step_inputs, generation.step_outputs)
    model = trace(Flat(step, form).eval(), (tokens, lengths, lengths + 1, *caches), axes, *names, form.opset)
    _name_axes(model, kinds)
    drop_unused_weights(model)
    return model


def _name_axes(model: ModelProto, kinds: Sequence[str]) -> None:
    """Call the axes by our names."""
    caches = list(model.graph.input)[-len(kinds) :]
    renamed = {model.graph.input[0].type.tensor_type.shape.dim[0].dim_param: BATCH_AXIS}
    for value, axis in zip(caches, kinds, strict=True):
        renamed[value.type.tensor_type.shape.dim[2].dim_param] = axis
    rename_axes(model, renamed)
