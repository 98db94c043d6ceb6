"""Cuts attention out and reduces it as it was planned, layer by layer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from artifact.contract import AttentionContract
from artifact.dtypes import Array
from server.attention.plan import AttentionPlan, every
from server.attention.statistics import head_statistics, mean_distance
from server.engine import array_ops as measures
from server.engine.device_ops import DeviceArray, Weights
from server.errors import InvalidInput


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


def reduce_attention(
    plan: AttentionPlan, weights: Mapping[str, Weights], let_go: Callable[[str], object] = lambda name: None
) -> Iterator[Reduced]:
    """Yield what is sent, layer by layer, each made when it is wanted, where the weights lie.

    Args:
        plan: What was asked for.
        weights: By output name, float32 [B, H, Q, K], value norms [B, H, K] and contributions [B, Q, K]; padding
            already cut off.
        let_go: Told the names of a layer that is not needed any more, before what is made of it is yielded.
    """
    found = next(iter(weights.values()))
    reducing = _Reducing(plan, weights, found.measures if isinstance(found, DeviceArray) else measures)
    if plan.is_rollout:
        yield reducing.rollout()
        return
    del found  # which would keep a layer
    for layer in plan.layers:
        yield reducing.one(layer, let_go)


class _Reducing:
    """What one request asked for, the weights, and who computes with them: array_ops or its like on a device."""

    def __init__(self, plan: AttentionPlan, weights: Mapping[str, Weights], on: Any) -> None:
        self._plan = plan
        self._weights = weights
        self._on = on

    def one(self, layer: AttentionContract, let_go: Callable[[str], object]) -> Reduced:
        """Make of one layer what was asked for, and let go of it."""
        if self._plan.statistics:
            reduced = self.statistics(layer)
        else:
            reduced = self.contribution(layer) if self._plan.takes_contributions else self.layer(layer)
        for name in (layer.output, layer.value_norms, layer.contribution):
            if name:
                let_go(name)
        return reduced

    def layer(self, layer: AttentionContract) -> Reduced:
        """Make of one layer what was asked for."""
        plan, on, chosen = self._plan, self._on, self._choose(layer)
        if plan.measure == "weights":
            return self._finish(layer, self._choose_keys(self._fuse(chosen)))
        if plan.measure == "entropy":
            return self._finish(layer, self._fuse(on.entropy(on.normalize_rows(self._choose_keys(chosen)))))
        count = chosen.shape[-1]  # a distance is one between positions of the same input
        queries, keys = every(plan.queries, count), every(plan.keys, count)
        chosen = self._cut_keys(chosen)
        values = mean_distance(chosen, queries, keys, plan.grid(layer), on)
        return self._finish(layer, self._fuse(values), plan.on_input(plan.queries, count))

    def statistics(self, layer: AttentionContract) -> Reduced:
        """Make numbers of one layer's rows."""
        plan, on = self._plan, self._on
        chosen = on.as_one_head(self._contributed(layer)) if plan.takes_contributions else self._choose(layer)
        assert plan.places is not None  # noqa: S101 -- as there are statistics
        sums_to_1 = plan.keys is None and not (plan.value_weighted or plan.takes_contributions or layer.window)
        chosen = self._cut_keys(chosen)
        found = head_statistics(
            chosen, plan.statistics, plan.places, plan.queries, plan.keys, sums_to_1=sums_to_1, on=on
        )
        values = found[:, 0] if plan.takes_contributions else found
        if plan.reduction:
            values = measures.fuse_heads(values, plan.reduction)
        sent, scale = self._round(layer, values, measures)
        return Reduced(layer, sent, scale, None, plan.queries or ())

    def contribution(self, layer: AttentionContract) -> Reduced:
        """Cut one layer's contributions out."""
        return self._finish(layer, self._choose_keys(self._contributed(layer)))

    def rollout(self) -> Reduced:
        """Multiply all layers."""
        plan, on = self._plan, self._on
        if plan.takes_contributions:
            layers = [on.choose_fused(self._weights[name], None) for name in plan.outputs]
            flow = on.contribution_rollout(layers, plan.queries)
        else:
            fused = [on.fuse_heads(self._choose(layer), plan.reduction or "mean") for layer in plan.layers]
            flow = on.rollout(fused, plan.residual_share, plan.queries)
        return self._finish(plan.layers[-1], self._choose_keys(flow))

    def _choose(self, layer: AttentionContract) -> Any:
        """Cut out heads and rows, and weigh by values; [B, heads, queries, K]. A rollout needs every row."""
        plan, on = self._plan, self._on
        chosen = on.choose(self._weights[layer.output], plan.heads, None if plan.is_rollout else plan.queries)
        if plan.value_weighted and layer.value_norms:
            chosen = on.weigh_by_values(chosen, on.choose_fused(self._weights[layer.value_norms], plan.heads))
        return chosen

    def _contributed(self, layer: AttentionContract) -> Any:
        """Cut rows out of one layer's contributions; [B, queries, K]."""
        return self._on.choose_fused(self._weights[layer.contribution or ""], self._plan.queries)

    def _fuse(self, values: Any) -> Any:
        return self._on.fuse_heads(values, self._plan.reduction) if self._plan.reduction else values

    def _cut_keys(self, values: Any) -> Any:
        return values if self._plan.keys is None else self._on.choose_keys(values, self._plan.keys)

    def _choose_keys(self, values: Any) -> Any:
        values = self._cut_keys(values)
        return self._on.normalize_rows(values) if self._plan.renormalize else values

    def _finish(self, layer: AttentionContract, values: Any, queries: Sequence[int] | None = None) -> Reduced:
        """Keep the largest, and round them; the queries are those of the plan unless others are given."""
        plan, on, indices = self._plan, self._on, None
        if queries is None:
            queries = every(plan.queries, values.shape[1 + plan.axes.index("query")])
        if "top" in plan.axes:
            values, indices = on.largest(values, plan.top_k)
            if plan.keys is not None:
                indices = np.asarray(plan.keys, dtype=np.int32)[indices]
        sent, scale = self._round(layer, values, on)
        return Reduced(layer, sent, scale, indices, queries)

    def _round(self, layer: AttentionContract, values: Any, on: Any) -> tuple[Array, float]:
        """Round to what travels, on the host, with what 1 stands for; `on` is where the values lie."""
        dtype, scale = self._plan.dtype, 0.0
        if dtype == "uint8":
            values, scale = on.to_uint8(values)
        elif dtype == "float16":
            values = on.to_float16(values)
        sent = on.to_host(values)
        if dtype == "float16":  # value norms and contributions have no bound
            refuse_infinite("attention.dtype", layer.layer, sent)
        return sent, scale


def refuse_infinite(field: str, layer: int, rounded: Array) -> None:
    """Refuse half precision where a number is too large for it.

    Raises:
        InvalidInput: One is; names the field.
    """
    if not np.isfinite(rounded).all():
        expected = f"FLOAT32: layer {layer} has values above {np.finfo(np.float16).max:g}"
        raise InvalidInput(field, "FLOAT16", expected)
