"""Cuts attention out and reduces it as it was planned, layer by layer, and writes it down; the protocols call it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.v1 import types_pb2 as pb
from server import measures
from server.attention import KINDS, AttentionPlan, on_input
from server.contract import AttentionContract
from server.tensors import write_tensor

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Reduced:
    """What is sent of one layer, or of a rollout.

    Attributes:
        layer: The last that it covers.
        values: Of the plan's dtype, [B, ...] with the plan's axes.
        scale: What uint8 values are multiplied by; 0 for other dtypes.
        indices: After top_k, the key position of each value, int32; else None.
        queries: Positions along "query", or averaged.
    """

    layer: AttentionContract
    values: Array
    scale: float
    indices: Array | None
    queries: Sequence[int]


def reduce_attention(plan: AttentionPlan, weights: Mapping[str, Array]) -> Iterator[Reduced]:
    """Yield what is sent, layer by layer, each made when it is wanted.

    Args:
        plan: What was asked for.
        weights: By output name, float32 [B, H, Q, K], value norms [B, H, K] and contributions [B, Q, K]; padding
            already cut off.
    """
    if plan.is_rollout:
        yield _rollout(plan, weights)
        return
    for layer in plan.layers:
        if plan.takes_contributions:
            yield _cut_contribution(plan, layer, weights)
        else:
            yield _reduce(plan, layer, _choose_heads(plan, layer, weights))


def _choose_heads(plan: AttentionPlan, layer: AttentionContract, weights: Mapping[str, Array]) -> Array:
    """Cut out heads and rows, and weigh by values; [B, heads, queries, K]. A rollout needs every row."""
    heads = slice(None) if plan.heads == tuple(range(layer.num_heads)) else list(plan.heads)
    chosen = weights[layer.output][:, heads]
    if plan.queries is not None and not plan.is_rollout:
        chosen = chosen[:, :, list(plan.queries)]
    if plan.value_weighted and layer.value_norms:
        chosen = measures.weigh_by_values(chosen, weights[layer.value_norms][:, heads])
    return chosen


def _reduce(plan: AttentionPlan, layer: AttentionContract, chosen: Array) -> Reduced:
    queries: Sequence[int] = range(chosen.shape[2]) if plan.queries is None else plan.queries
    if plan.measure == pb.ATTENTION_MEASURE_UNSPECIFIED:
        values = measures.fuse_heads(chosen, plan.reduction) if plan.reduction else chosen
        return _finish(plan, layer, _choose_keys(plan, values), queries)
    if plan.measure == pb.ATTENTION_MEASURE_ENTROPY:
        values = measures.entropy(measures.normalize_rows(_choose_keys(plan, chosen)))
    else:
        placed = on_input(plan, plan.queries, chosen.shape[2])
        places, queries = [list(queries).index(query) for query in placed], placed
        keys = on_input(plan, plan.keys, chosen.shape[3])
        looked_at = measures.normalize_rows(chosen[:, :, places][..., keys])
        values = measures.mean_distance(looked_at, measures.distances(queries, keys, plan.patches))
    return _finish(plan, layer, measures.fuse_heads(values, plan.reduction) if plan.reduction else values, queries)


def _rollout(plan: AttentionPlan, weights: Mapping[str, Array]) -> Reduced:
    if plan.takes_contributions:
        flow = measures.contribution_rollout([weights[name] for name in plan.outputs], plan.queries)
    else:
        fused = [
            measures.fuse_heads(_choose_heads(plan, layer, weights), plan.reduction or "mean") for layer in plan.layers
        ]
        flow = measures.rollout(fused, plan.residual_share, plan.queries)
    queries = range(flow.shape[1]) if plan.queries is None else plan.queries
    return _finish(plan, plan.layers[-1], _choose_keys(plan, flow), queries)


def _cut_contribution(plan: AttentionPlan, layer: AttentionContract, weights: Mapping[str, Array]) -> Reduced:
    values = weights[layer.contribution or ""]
    queries: Sequence[int] = range(values.shape[1]) if plan.queries is None else plan.queries
    return _finish(plan, layer, _choose_keys(plan, values[:, list(queries)]), queries)


def _choose_keys(plan: AttentionPlan, values: Array) -> Array:
    if plan.keys is not None:
        values = values[..., list(plan.keys)]
    return measures.normalize_rows(values) if plan.renormalize else values


def _finish(plan: AttentionPlan, layer: AttentionContract, values: Array, queries: Sequence[int]) -> Reduced:
    """Keep the largest, and round to what travels."""
    indices, scale = None, 0.0
    if "top" in plan.axes:
        values, indices = measures.largest(values, plan.top_k)
        if plan.keys is not None:
            indices = np.asarray(plan.keys, dtype=np.int32)[indices]
    if plan.dtype is np.uint8:
        values, scale = measures.to_uint8(values)
    return Reduced(layer, values.astype(plan.dtype, copy=False), scale, indices, queries)


def write_attention(plan: AttentionPlan, weights: Mapping[str, Array], *, batched: bool) -> Iterator[pb.LayerAttention]:
    """Turn fetched weights into the entries of the answer, each made when it is wanted.

    Args:
        plan: What was asked for.
        weights: As for reduce_attention.
        batched: Whether to keep the batch axis; otherwise B is 1.
    """
    return (_write_layer(plan, reduced, batched=batched) for reduced in reduce_attention(plan, weights))


def _write_layer(plan: AttentionPlan, reduced: Reduced, *, batched: bool) -> pb.LayerAttention:
    message = pb.LayerAttention(
        layer=reduced.layer.layer,
        kind=KINDS[reduced.layer.kind],
        axes=[*(["batch"] if batched else []), *plan.axes],
        heads=plan.heads,
        queries=reduced.queries,
        weights=write_tensor(reduced.values if batched else reduced.values[0]),
        keys=plan.keys or (),
        scale=reduced.scale,
        measure=plan.measure,
        covered_layers=plan.indices if plan.is_rollout else (),
    )
    if reduced.indices is not None:
        message.indices.CopyFrom(write_tensor(reduced.indices if batched else reduced.indices[0]))
    return message
