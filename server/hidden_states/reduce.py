"""Cuts hidden states out, pools and rounds them as it was planned, layer by layer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact.contract import HiddenStateContract
from artifact.dtypes import Array
from server.attention.reduce import refuse_infinite
from server.engine import array_ops
from server.engine.device_ops import DeviceArray, Weights
from server.hidden_states.plan import HiddenStatesPlan

Floats = NDArray[np.float32]

_STEPS = 255


@dataclass(frozen=True, eq=False)
class ReducedStates:
    """What is sent of one layer.

    Attributes:
        state: Which.
        values: Of the plan's dtype, [B, ..., D] with the plan's axes.
        scales: Of uint8, the size of a step of each vector, float32 [B, ...]; else None.
        offsets: Of uint8, what 0 stands for in each vector, likewise.
    """

    state: HiddenStateContract
    values: Array
    scales: Floats | None = None
    offsets: Floats | None = None


def reduce_states(
    plan: HiddenStatesPlan, states: Mapping[str, Weights], let_go: Callable[[str], object] = lambda name: None
) -> Iterator[ReducedStates]:
    """Yield what is sent, layer by layer, each made when it is wanted.

    Args:
        plan: What was asked for.
        states: By output name, float32 [B, N, D]; padding that batching added already cut off. Of those on a device
            only the positions wanted are copied from there.
        let_go: Told the name of a layer that is not needed any more, before what is made of it is yielded.
    """
    for state in plan.states:
        vectors = _pool(plan, _choose(plan, states[state.output]))
        let_go(state.output)
        yield _round(plan, state, _normalize(vectors) if plan.normalize else vectors)


def _choose(plan: HiddenStatesPlan, state: Weights) -> Floats:
    """Cut positions out, [B, positions, D]."""
    positions = (0,) if plan.pooling == "cls" else plan.positions
    if isinstance(state, DeviceArray):
        on = state.measures
        return on.to_host(on.choose_fused(state, positions))
    return array_ops.choose_fused(state, positions)


def _pool(plan: HiddenStatesPlan, vectors: Floats) -> Floats:
    """Make one vector [B, D] of those of each row's own positions [B, positions, D], where that is wanted."""
    real = plan.real
    if plan.pooling is None:
        return vectors
    if plan.pooling == "cls":
        return vectors[:, 0]
    if plan.pooling == "last":
        return vectors[:, -1] if real is None else vectors[np.arange(len(vectors)), _last(real)]
    kept = np.ones(vectors.shape[:2]) if real is None else array_ops.choose_fused(real, plan.positions)
    shares = kept / kept.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("bnd,bn->bd", vectors, shares, dtype=np.float64), dtype=np.float32)


def _last(real: Array) -> Array:
    """Find the last position of each row [B, N] that is no padding."""
    return np.asarray(real.shape[1] - 1 - np.argmax(real[:, ::-1], axis=1))


def _normalize(vectors: Floats) -> Floats:
    """Scale vectors [..., D] to Euclidean length 1; one of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, np.float32(1)))


def _round(plan: HiddenStatesPlan, state: HiddenStateContract, vectors: Floats) -> ReducedStates:
    """Round to what travels."""
    if plan.dtype == "uint8":
        return ReducedStates(state, *_to_uint8(vectors))
    if plan.dtype == "float32":
        return ReducedStates(state, vectors)
    rounded = array_ops.to_float16(vectors)
    refuse_infinite("hidden_states.dtype", state.layer, rounded)
    return ReducedStates(state, rounded)


def _to_uint8(vectors: Floats) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """Round each vector [..., D] to 255 steps from its smallest number to its largest; returns steps and their size.

    A scale for each vector, since a few large channels of some positions would leave no steps to the others.
    """
    offsets = vectors.min(axis=-1, keepdims=True)
    scales = (vectors.max(axis=-1, keepdims=True) - offsets) / np.float32(_STEPS)
    steps = np.rint((vectors - offsets) / np.where(scales > 0, scales, np.float32(1)))
    return steps.clip(0, _STEPS).astype(np.uint8), scales[..., 0], offsets[..., 0]
