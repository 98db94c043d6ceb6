"""What a caller wants of the attention weights: checked before anything runs, cut out and reduced before it is sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.v1 import types_pb2 as pb
from server.contract import AttentionContract, Contract
from server.errors import InvalidInput, NotPossible
from server.tensors import write_tensor

Array = NDArray[Any]

_COMPUTED_ITEM_BYTES = 4
KINDS = {"self": pb.ATTENTION_KIND_SELF, "cross": pb.ATTENTION_KIND_CROSS}
_DTYPES: dict[int, type[np.floating[Any]]] = {
    pb.DATA_TYPE_UNSPECIFIED: np.float32,
    pb.DATA_TYPE_FLOAT32: np.float32,
    pb.DATA_TYPE_FLOAT16: np.float16,
}


@dataclass(frozen=True)
class AttentionPlan:
    """A checked attention request.

    Attributes:
        indices: Which layers, counted from 0, in the order asked for.
        layers: These.
        heads: Indices, counted from 0, in the order asked for.
        mean_heads: Whether the mean over these heads is sent instead of each.
        queries: Query positions, counted from 0; None for all.
        dtype: Of what is sent.
    """

    indices: tuple[int, ...]
    layers: tuple[AttentionContract, ...]
    heads: tuple[int, ...]
    mean_heads: bool
    queries: tuple[int, ...] | None
    dtype: type[np.floating[Any]]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The tapped graph's outputs to fetch."""
        return tuple(layer.output for layer in self.layers)

    def answer_bytes(self, rows: int, length: int) -> int:
        """Size of the weights that will be sent for a request of so many rows and positions."""
        heads = 1 if self.mean_heads else len(self.heads)
        queries = length if self.queries is None else len(self.queries)
        return len(self.layers) * rows * heads * queries * length * np.dtype(self.dtype).itemsize

    def computed_bytes(self, rows: int, length: int) -> int:
        """Size of the weights that are computed for it, float32, before anything is cut out or reduced."""
        return sum(layer.num_heads for layer in self.layers) * rows * length * length * _COMPUTED_ITEM_BYTES


@dataclass(frozen=True)
class AttentionLimits:
    """Most bytes of attention weights of one request: in its answer, and while it is computed."""

    answer_bytes: int
    computed_bytes: int


def plan_attention(
    request: pb.AttentionRequest, contract: Contract, *, rows: int, length: int, limits: AttentionLimits
) -> AttentionPlan:
    """Check an attention request against a model and an input.

    Args:
        request: As the caller sent it.
        contract: The model's.
        rows: Rows of the input.
        length: Its positions: tokens, or patches and class token.
        limits: How much may be computed and sent.

    Raises:
        NotPossible: The model was exported without attention.
        InvalidInput: A layer, head or row that does not exist, is named twice, or an answer too large.
    """
    if not contract.attention:
        raise NotPossible(f"attention: {contract.name} was exported without attention")
    if request.cls_only and request.rows:
        raise InvalidInput("attention.rows", list(request.rows), "no rows together with cls_only")
    if request.dtype not in _DTYPES:
        name = pb.DataType.Name(request.dtype) if request.dtype in pb.DataType.values() else request.dtype
        raise InvalidInput("attention.dtype", name, "FLOAT32 or FLOAT16")
    if request.head_reduction not in pb.HeadReduction.values():
        raise InvalidInput("attention.head_reduction", request.head_reduction, "one of the values of HeadReduction")
    indices = _indices("layers", request.layers, len(contract.attention))
    layers = tuple(contract.attention[i] for i in indices)
    fewest_heads = min(layer.num_heads for layer in layers)
    chosen_rows = [0] if request.cls_only else request.rows
    plan = AttentionPlan(
        indices=indices,
        layers=layers,
        heads=_indices("heads", request.heads, fewest_heads),
        mean_heads=request.head_reduction == pb.HEAD_REDUCTION_MEAN,
        queries=_indices("rows", chosen_rows, length) if chosen_rows else None,
        dtype=_DTYPES[request.dtype],
    )
    _check_sizes(plan, rows, length, limits)
    return plan


def _check_sizes(plan: AttentionPlan, rows: int, length: int, limits: AttentionLimits) -> None:
    answer_bytes, computed_bytes = plan.answer_bytes(rows, length), plan.computed_bytes(rows, length)
    if answer_bytes > limits.answer_bytes:
        expected = f"at most {limits.answer_bytes}: fewer layers, heads or rows, a mean over heads, or FLOAT16"
        raise InvalidInput("attention", f"an answer of {answer_bytes} bytes", expected)
    if computed_bytes > limits.computed_bytes:
        expected = (
            f"at most {limits.computed_bytes} (the server's --max-attention-bytes): fewer layers or a smaller input"
        )
        raise InvalidInput("attention", f"{computed_bytes} bytes of weights to compute", expected)


def _indices(field: str, wanted: Sequence[int], count: int) -> tuple[int, ...]:
    """Resolve negative indices; none wanted means all of them."""
    for index in wanted:
        if not -count <= index < count:
            raise InvalidInput(f"attention.{field}", index, f"from {-count} to {count - 1}")
    resolved = tuple(index % count for index in wanted) or tuple(range(count))
    if len(set(resolved)) < len(resolved):
        raise InvalidInput(f"attention.{field}", list(wanted), "each at most once")
    return resolved


def reduce_weights(weights: Array, plan: AttentionPlan) -> Array:
    """Cut out and reduce one layer.

    Args:
        weights: float32 [B, H, Q, K].
        plan: What was asked for.

    Returns:
        [B, heads, queries, K], or [B, queries, K] after a mean over heads, of the plan's dtype.
    """
    if plan.heads != tuple(range(weights.shape[1])):
        weights = weights[:, list(plan.heads)]
    if plan.queries is not None:
        weights = weights[:, :, list(plan.queries)]
    if plan.mean_heads:
        weights = weights.mean(axis=1, dtype=np.float32)
    return weights.astype(plan.dtype, copy=False)


def write_attention(plan: AttentionPlan, weights: Mapping[str, Array], *, batched: bool) -> pb.Attention:
    """Turn fetched weights into the answer.

    Args:
        plan: What was asked for.
        weights: float32 [B, H, Q, K] by output name, padding already cut off.
        batched: Whether to keep the batch axis; otherwise B is 1.
    """
    axes = ["batch"] if batched else []
    axes += ["query", "key"] if plan.mean_heads else ["head", "query", "key"]
    answer = pb.Attention()
    for layer in plan.layers:
        array = weights[layer.output]
        reduced = reduce_weights(array, plan)
        answer.layers.add(
            layer=layer.layer,
            kind=KINDS[layer.kind],
            axes=axes,
            heads=plan.heads,
            queries=range(array.shape[2]) if plan.queries is None else plan.queries,
            weights=write_tensor(reduced if batched else reduced[0]),
        )
    return answer
