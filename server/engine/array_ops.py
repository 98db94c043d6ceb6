"""What can be made of attention weights before they travel: pure functions of numpy arrays.

`device_ops` has the same on a GPU.

Arrays keep their leading axes: B batch, H heads, Q queries, K keys.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from artifact.contract import PatchContract
from artifact.dtypes import Array

Floats = NDArray[np.float32]

KERNELS = Path(__file__).parent / "kernels"
_UINT8_STEPS = 255


def choose(weights: Floats, heads: Sequence[int] | None, queries: Sequence[int] | None) -> Floats:
    """Cut heads and queries out of [B, H, Q, K]; None stands for all, of which nothing is copied."""
    chosen = weights if heads is None else weights[:, list(heads)]
    return chosen if queries is None else chosen[:, :, list(queries)]


def choose_fused(values: Floats, firsts: Sequence[int] | None) -> Floats:
    """Cut places of the second axis out of [B, M, N]; None stands for all."""
    return values if firsts is None else values[:, list(firsts)]


def choose_keys(values: Floats, keys: Sequence[int]) -> Floats:
    """Cut keys out of [..., K]."""
    return values[..., list(keys)]


def weigh_by_values(weights: Floats, value_norms: Floats) -> Floats:
    """Multiply each weight by the length of the value vector that it weighs.

    Kobayashi et al. 2020, "Attention is Not Only a Weight", section 3: ||alpha f(x)||, where f(x) is the value vector
    after its head's part of the output projection.

    Args:
        weights: [B, H, Q, K].
        value_norms: [B, H, K].
    """
    return weights * value_norms[:, :, None]


def normalize_rows(weights: Floats) -> Floats:
    """Divide each row by its sum; rows of zeros stay. [..., Q, K]."""
    sums = weights.sum(axis=-1, keepdims=True)
    return np.asarray(weights / np.where(sums > 0, sums, np.float32(1)))


def fuse_heads(values: Floats, reduction: str) -> Floats:
    """Take the "mean", "max" or "min" over axis 1, the heads."""
    if reduction == "mean":
        return np.asarray(values.mean(axis=1, dtype=np.float32))
    return np.asarray(values.max(axis=1) if reduction == "max" else values.min(axis=1))


def rollout(layers: Sequence[Floats], residual_share: float, rows: Sequence[int] | None) -> Floats:
    """Multiply layers as information flows through them.

    Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3: the product, last layer first, of
    (1 - s) A + s I, where s is the share of the residual connection, 0.5 in the paper. Only the rows that are wanted
    are carried through, from the last layer down: a row costs N^2 a layer, all rows N^3.

    Args:
        layers: Each [B, N, N], heads already fused, the first layer first; rows are divided by their sums.
        residual_share: s, in [0, 1).
        rows: Which rows of the product; None for all.

    Returns:
        [B, rows, N].
    """
    flow = unit_rows(layers[0].shape, rows)
    share = np.float32(residual_share)
    for weights in reversed(layers):
        flow = (1 - share) * (flow @ normalize_rows(weights)) + share * flow
    return flow


def contribution_rollout(layers: Sequence[Floats], rows: Sequence[int] | None) -> Floats:
    """Multiply what positions contribute to each other through the layers.

    Modarressi et al. 2022, "GlobEnc", equation 12 with the contributions of equation 5: the product, last layer first.
    Rows are divided by their sums after each layer, which keeps the numbers small and changes no share within a row.

    Args:
        layers: Each [B, N, N], the first layer first.
        rows: Which rows of the product; None for all.

    Returns:
        [B, rows, N], each row summing to 1.
    """
    flow = unit_rows(layers[0].shape, rows)
    for contributions in reversed(layers):
        flow = normalize_rows(flow @ contributions)
    return flow


def unit_rows(shape: tuple[int, ...], rows: Sequence[int] | None) -> Floats:
    """What a rollout begins with: these rows of the identity for a layer of [B, N, N]; None stands for all."""
    batch, length = shape[:2]
    chosen = np.eye(length, dtype=np.float32)[slice(None) if rows is None else list(rows)]
    return np.broadcast_to(chosen, (batch, *chosen.shape))


def entropy(weights: Floats) -> Floats:
    """Shannon entropy of each row in nats, [..., Q]; 0 ln 0 is 0."""
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    sums = (weights * logs).sum(axis=-1, dtype=np.float64)
    return np.asarray(np.maximum(-sums, 0), dtype=np.float32)


def distances(queries: Sequence[int], keys: Sequence[int], patches: PatchContract | None) -> Floats:
    """How far apart positions lie, [Q, K]: in pixels of the network's input for patches, else in positions."""
    if patches is None:
        return np.abs(np.subtract.outer(queries, keys)).astype(np.float32)
    places = [np.divmod(np.asarray(chosen) - patches.prefix_tokens, patches.cols) for chosen in (queries, keys)]
    down, across = (np.subtract.outer(*on_axis).astype(np.float32) for on_axis in zip(*places, strict=True))
    return np.asarray(np.sqrt(down * down + across * across) * np.float32(patches.patch_size))


def mean_distance(weights: Floats, apart: Floats, counted: Floats, rows: Sequence[int]) -> Floats:
    """Average distance that a head looks over, weighted by its attention.

    Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", section 4.5 and figure 7.

    Args:
        weights: [B, H, Q, K].
        apart: [Q, K]; 0 for keys that do not count.
        counted: [K], 1 for keys that count and 0 for others: rows are divided by what is left of them.
        rows: Which rows are averaged.

    Returns:
        [B, H].
    """
    sums = np.einsum("bhqk,qk->bhq", weights, apart)
    left = weights @ counted
    means = (sums / np.where(left > 0, left, np.float32(1)))[:, :, list(rows)]
    return np.asarray(means.mean(axis=-1, dtype=np.float64), dtype=np.float32)


def as_one_head(values: Floats) -> Floats:
    """Take [B, Q, K] for what one head has, [B, 1, Q, K]."""
    return values[:, None]


def received(weights: Floats) -> Floats:
    """What each key gets, averaged over the rows: [B, H, Q, K] to [B, H, K]."""
    rows = weights.shape[-2]
    return np.asarray((np.full((1, rows), 1 / rows, dtype=np.float32) @ weights)[..., 0, :])


def sum_places(weights: Floats, places: NDArray[np.int64]) -> Floats:
    """Sum some weights of each head.

    Args:
        weights: [B, H, Q, K].
        places: int64 [P], query * K + key of each; at least one.

    Returns:
        [B, H].
    """
    flat = weights.reshape(*weights.shape[:2], -1)
    return np.asarray(flat[..., places].sum(axis=-1, dtype=np.float64), dtype=np.float32)


def largest(weights: Floats, count: int) -> tuple[Floats, NDArray[np.int32]]:
    """Keep the largest of each row, in falling order, equal ones in the order of their keys.

    Args:
        weights: [..., K].
        count: How many; more than there are gives all.

    Returns:
        Values and their places along the last axis, both [..., count].
    """
    kept = np.asarray([min(count, weights.shape[-1])], dtype=np.int64)
    session = _kernel("largest")
    values, places = session.run(None, _feed(session, np.ascontiguousarray(weights), kept))
    return np.asarray(values), np.asarray(places, dtype=np.int32)


@functools.cache
def _kernel(name: str) -> onnxruntime.InferenceSession:
    """A small graph on the CPU, where numpy takes ten times as long."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(KERNELS / f"{name}.onnx", options, providers=["CPUExecutionProvider"])


def _feed(session: onnxruntime.InferenceSession, *arrays: Array) -> dict[str, Array]:
    return {spec.name: array for spec, array in zip(session.get_inputs(), arrays, strict=True)}


def to_float16(values: Floats) -> NDArray[np.float16]:
    """Round to half precision; ONNX Runtime does it in a tenth of the time that numpy takes."""
    session = _kernel("to_float16")
    (rounded,) = session.run(None, _feed(session, np.ascontiguousarray(values)))
    return np.asarray(rounded)


def to_uint8(values: Floats) -> tuple[NDArray[np.uint8], float]:
    """Round to 255 steps of the largest value; returns them and the size of a step."""
    scale = float(np.float32(values.max(initial=0)) / np.float32(_UINT8_STEPS))
    if scale < np.finfo(np.float32).tiny:  # no step that float32 holds in full: nothing can be told from zero
        return np.zeros(values.shape, dtype=np.uint8), 1.0
    steps = values / np.float32(scale)
    np.rint(steps, out=steps)
    return steps.clip(0, _UINT8_STEPS, out=steps).astype(np.uint8), scale


def to_host(values: Array) -> Array:
    """Return what is to be sent, which lies here already."""
    return values
