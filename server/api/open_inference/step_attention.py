"""What each step of a text that is written attended to, by the Open Inference Protocol: parameters and outputs.

Each kind and layer is one output, as attention.LAYER is: cross_attention.LAYER and self_attention.LAYER.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from artifact.dtypes import Array
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.parameter_values import Parameters, choose, read_list
from server.api.open_inference.parameters import REDUCTIONS, STEP_PREFIXES, is_asked, read_layers, read_named
from server.attention.request import AttentionRequest
from server.context import RpcContext
from server.generation.request import AttentionKind, GeneratedToken
from server.repository.loading import LoadedModel

_KINDS: tuple[AttentionKind, ...] = ("cross", "self")


def read_step_attention(
    parameters: Parameters, outputs: Sequence[str], context: RpcContext
) -> dict[AttentionKind, AttentionRequest]:
    """Read what is wanted of each step's attention, by parameters, by outputs named KIND_attention.LAYER, or by both.

    Args:
        parameters: Of each kind, cross_attention and self_attention (bool), all layers, implied by the others;
            KIND_attention_layers and KIND_attention_heads, integers separated by commas, or one integer;
            KIND_attention_reduce, "none", "mean", "max" or "min" over the heads. They mean what the fields of
            regard.v1.GenerateRequest mean.
        outputs: Names of the outputs asked for.
        context: Whose caller may see attention, or not.

    Raises:
        InvalidInput: A value cannot be read, or layers are named in both ways.
        PermissionDenied: The caller may not see attention, which is asked for.
    """
    wanted: dict[AttentionKind, AttentionRequest] = {}
    for kind in _KINDS:
        field = f"{kind}_attention"
        if not is_asked(field, parameters, outputs):
            continue
        context.caller.require("attention", field)
        wanted[kind] = AttentionRequest(
            layers=read_layers(field, parameters, read_named(f"{field}.", outputs)),
            heads=tuple(read_list(parameters, f"{field}_heads")),
            head_reduction=choose(parameters, f"{field}_reduce", REDUCTIONS, "none"),
        )
    return wanted


def step_arrays(tokens: Sequence[GeneratedToken], named: Sequence[str]) -> Mapping[str, Array]:
    """Make the outputs of some tokens' attention, each float32 [1, H, T, K], or [1, T, K] where heads were reduced.

    Self attention has a key more with each token: those that a token had not yet are 0.

    Args:
        tokens: At least one; of each the same layers.
        named: The outputs that were asked for by name: kinds whose layers they name have these names, in their order.
    """
    arrays = dict[str, Array]()
    by_kind = {kind: [name for name in named if name.startswith(f"{kind}_attention.")] for kind in _KINDS}
    for place, first in enumerate(tokens[0].attention):
        own = by_kind[first.kind]
        name = own.pop(0) if own else f"{first.kind}_attention.{first.layer}"
        arrays[name] = _stack([token.attention[place].weights for token in tokens])
    return arrays


def steps_bytes(tokens: Sequence[GeneratedToken]) -> int:
    """Return how many bytes step_arrays makes of some tokens: each row is as long as the last one's."""
    return sum(one.weights.nbytes for one in tokens[-1].attention) * len(tokens) if tokens else 0


def _stack(rows: Sequence[Array]) -> Array:
    """Put the rows of tokens, [H, keys] or [keys] each, below one another."""
    stacked = np.zeros((1, *rows[0].shape[:-1], len(rows), rows[-1].shape[-1]), dtype=np.float32)
    for place, row in enumerate(rows):
        stacked[0, ..., place, : row.shape[-1]] = row
    return stacked


def describe_steps(model: LoadedModel) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    """Describe the attention of a model's decoder: text, heads, tokens written, keys."""
    generation = model.contract.generation
    assert generation is not None  # noqa: S101 -- it writes
    make = pb.ModelMetadataResponse.TensorMetadata
    return [
        make(name=f"{prefix}{layer}", datatype="FP32", shape=[-1, generation.num_heads, -1, -1])
        for prefix in STEP_PREFIXES
        for layer in range(generation.num_layers)
    ]
