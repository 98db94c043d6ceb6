"""Outputs of the Open Inference Protocol besides a graph's own: attention, hidden states, vectors cut and rounded."""

from collections.abc import Sequence

import numpy as np

from artifact.dtypes import Array
from server.api.open_inference.parameters import ATTENTION_PREFIX, HIDDEN_STATES_PREFIX
from server.attention.plan import AttentionPlan
from server.errors import InvalidInput, NotPossible
from server.hidden_states.plan import HiddenStatesPlan
from server.inference.request import InferenceResponse
from server.inference.vectors import VectorRequest, make_vectors
from server.repository.loading import LoadedModel


def name_attention(found: InferenceResponse, named: Sequence[str]) -> dict[str, Array]:
    """Cut out and reduce what was asked for of each layer, under the names asked for, else attention.LAYER.

    A rollout is attention.rollout. With top_k there is NAME.indices beside each, INT32, and for UINT8 NAME.scale, FP32
    [1].
    """
    if not isinstance(found.plan, AttentionPlan):
        return {}
    indices = ["rollout"] if found.plan.is_rollout else found.plan.indices
    names = named or [f"{ATTENTION_PREFIX}{index}" for index in indices]
    arrays = dict[str, Array]()
    for name, reduced in zip(names, found.attention(), strict=True):
        arrays[name] = reduced.values
        if reduced.indices is not None:
            arrays[f"{name}.indices"] = reduced.indices
        if reduced.scale:
            arrays[f"{name}.scale"] = np.asarray([reduced.scale], dtype=np.float32)
    return arrays


def name_states(found: InferenceResponse, named: Sequence[str]) -> dict[str, Array]:
    """Do the same for hidden states, hidden_states.LAYER; for UINT8 with NAME.scale and NAME.offset, FP32."""
    if not isinstance(found.plan, HiddenStatesPlan):
        return {}
    names = named or [f"{HIDDEN_STATES_PREFIX}{state.layer}" for state in found.plan.states]
    arrays = dict[str, Array]()
    for name, reduced in zip(names, found.hidden_states(), strict=True):
        arrays[name] = reduced.values
        if reduced.scales is not None and reduced.offsets is not None:
            arrays |= {f"{name}.scale": reduced.scales, f"{name}.offset": reduced.offsets}
    return arrays


def kept_name(model: LoadedModel) -> str:
    """Name the output that says which vectors of tokens count, of models that have them; empty for others."""
    return f"{model.contract.late.output}.kept" if model.contract.late else ""


def check_vectors(wanted: VectorRequest, model: LoadedModel, outputs: Sequence[str]) -> None:
    """Refuse what cannot be had of vectors, or where none is asked for; see VectorRequest.check."""
    if model.contract.late:
        wanted.check(model.contract)
    embedding = model.contract.embedding
    parameter = "vector_dimensions" if wanted.dimensions else "vector_format"
    if embedding is None:
        raise NotPossible(f"parameters[{parameter}]: {model.name} gives no embedding; expected a model with one")
    if embedding.output not in outputs:
        raise InvalidInput("outputs", list(outputs), f"{embedding.output} among them, beside {parameter}")
    wanted.check(model.contract)


def name_vectors(found: InferenceResponse, wanted: VectorRequest) -> dict[str, Array]:
    """Cut and round the vectors, under their output's name; for INT8 with NAME.scale, FP32 [B]."""
    embedding = found.model.contract.embedding
    assert embedding is not None  # noqa: S101 -- as check_vectors says
    made = make_vectors(found.outputs[embedding.output], wanted, embedding)
    scales = {} if made.scales is None else {f"{embedding.output}.scale": made.scales}
    return {embedding.output: made.values, **scales}
