"""What a caller wants of the attention weights, checked before anything runs; the pipeline plans by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from artifact.contract import AttentionContract, Contract
from regard.v1 import types_pb2 as pb
from server.attention.plan import AttentionPlan
from server.errors import InvalidInput, NotPossible

_RESIDUAL_SHARE = 0.5  # Abnar and Zuidema 2020, section 3
KINDS = {
    "self": pb.ATTENTION_KIND_SELF,
    "causal": pb.ATTENTION_KIND_CAUSAL,
    "cross": pb.ATTENTION_KIND_CROSS,
}
_DTYPES: dict[int, type[np.generic]] = {
    pb.DATA_TYPE_UNSPECIFIED: np.float32,
    pb.DATA_TYPE_FLOAT32: np.float32,
    pb.DATA_TYPE_FLOAT16: np.float16,
    pb.DATA_TYPE_UINT8: np.uint8,
}
_REDUCTIONS = {
    pb.HEAD_REDUCTION_UNSPECIFIED: None,
    pb.HEAD_REDUCTION_MEAN: "mean",
    pb.HEAD_REDUCTION_MAX: "max",
    pb.HEAD_REDUCTION_MIN: "min",
}
_ROLLOUT = pb.ATTENTION_MEASURE_ROLLOUT
_ENTROPY, _DISTANCE = pb.ATTENTION_MEASURE_ENTROPY, pb.ATTENTION_MEASURE_DISTANCE
_CONTRIBUTION, _GLOBAL = pb.ATTENTION_MEASURE_CONTRIBUTION, pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT


@dataclass(frozen=True)
class AttentionLimits:
    """Most bytes of attention weights of one request.

    Attributes:
        answer_bytes: In one message.
        computed_bytes: While it is computed.
        layer_by_layer: Whether each layer has a message of its own.
    """

    answer_bytes: int
    computed_bytes: int
    layer_by_layer: bool = False


def plan_attention(
    request: pb.AttentionRequest,
    contract: Contract,
    *,
    rows: int,
    sizes: Mapping[str, int],
    positions: int,
    limits: AttentionLimits,
    special: Sequence[int] | None = None,
) -> AttentionPlan:
    """Check an attention request against a model and an input.

    Args:
        request: As the caller sent it.
        contract: The model's.
        rows: Rows of the input.
        sizes: Of its symbolic axes, by name.
        positions: Tokens of a text, or patches and class token of an image.
        limits: How much may be computed and sent.
        special: Positions that are no part of the input: special tokens, prefix tokens; None where nobody knows.

    Raises:
        NotPossible: The model was exported without attention, or without what a measure needs.
        InvalidInput: A layer, head, row or key that does not exist, is named twice, or an answer too large.
    """
    if not contract.attention:
        raise NotPossible(f"attention: {contract.name} was exported without attention")
    _check_choices(request)
    if request.cls_only and contract.patches and not contract.patches.prefix_tokens:
        raise NotPossible(f"attention.cls_only: {contract.name} has no class token; expected rows, or none for all")
    indices = _indices("layers", request.layers, len(contract.attention))
    layers = tuple(contract.attention[i] for i in indices)
    shapes = tuple(layer.shape(sizes, positions) for layer in layers)
    queries, keys = _choose_positions(request, layers, shapes, positions, special)
    plan = AttentionPlan(
        indices=indices,
        layers=layers,
        shapes=shapes,
        heads=_choose_heads(request, layers),
        reduction=_REDUCTIONS[request.head_reduction],
        queries=queries,
        keys=keys,
        dtype=_DTYPES[request.dtype],
        measure=request.measure,
        residual_share=request.residual_share if request.HasField("residual_share") else _RESIDUAL_SHARE,
        value_weighted=request.value_weighted,
        top_k=request.top_k,
        renormalize=request.renormalize,
        patches=contract.patches,
    )
    _check_measure(plan)
    _check_sizes(plan, rows, limits)
    return plan


def _check_choices(request: pb.AttentionRequest) -> None:
    """Refuse values that are none, and fields that contradict each other."""
    if request.dtype not in _DTYPES:
        name = pb.DataType.Name(request.dtype) if request.dtype in pb.DataType.values() else request.dtype
        raise InvalidInput("attention.dtype", name, "FLOAT32, FLOAT16 or UINT8")
    if request.head_reduction not in _REDUCTIONS:
        raise InvalidInput("attention.head_reduction", request.head_reduction, "one of the values of HeadReduction")
    if request.measure not in pb.AttentionMeasure.values():
        raise InvalidInput("attention.measure", request.measure, "one of the values of AttentionMeasure")
    if request.cls_only and request.rows:
        raise InvalidInput("attention.rows", list(request.rows), "no rows together with cls_only")
    if request.drop_special and (request.rows or request.cls_only or request.keys):
        raise InvalidInput("attention.drop_special", "true", "neither rows, cls_only nor keys together with it")
    if request.top_k < 0:
        raise InvalidInput("attention.top_k", request.top_k, "0 for all keys, or a positive number")
    if request.top_k and request.measure in (_ENTROPY, _DISTANCE):
        name = pb.AttentionMeasure.Name(request.measure)
        raise InvalidInput("attention.top_k", request.top_k, f"0 with {name}, which has no keys")
    if request.measure in (_CONTRIBUTION, _GLOBAL):
        for field in ("heads", "head_reduction", "value_weighted"):
            if value := getattr(request, field):
                name = pb.AttentionMeasure.Name(request.measure)
                shown = list(value) if field == "heads" else value
                raise InvalidInput(f"attention.{field}", shown, f"none with {name}, which sums the heads")
    if request.HasField("residual_share"):
        if request.measure != _ROLLOUT:
            raise InvalidInput("attention.residual_share", request.residual_share, "none but for a rollout")
        if not 0 <= request.residual_share < 1:
            raise InvalidInput("attention.residual_share", request.residual_share, "at least 0 and less than 1")


def _choose_heads(request: pb.AttentionRequest, layers: Sequence[AttentionContract]) -> tuple[int, ...] | None:
    """Resolve heads; None stands for all of each layer. What is named must be there in every layer."""
    counts = sorted({layer.num_heads for layer in layers})
    for head in request.heads:
        if head < 0 and len(counts) > 1:
            expected = f"heads counted from 0: these layers have {' or '.join(map(str, counts))}"
            raise InvalidInput("attention.heads", head, expected)
    return _indices("heads", request.heads, counts[0]) if request.heads else None


def _choose_positions(
    request: pb.AttentionRequest,
    layers: Sequence[AttentionContract],
    shapes: Sequence[tuple[int, int]],
    positions: int,
    special: Sequence[int] | None,
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Resolve query and key positions; None stands for all of them."""
    if request.drop_special:
        if special is None:
            expected = "false: only a text or an image says which positions are special"
            raise InvalidInput("attention.drop_special", "true", expected)
        if any(shape != (positions, positions) for shape in shapes):
            expected = "false, or layers whose queries and keys are the positions of the input"
            raise InvalidInput("attention.drop_special", "true", expected)
        kept = tuple(sorted(set(range(positions)) - set(special)))
        if not kept:
            expected = "an input with at least one position that is not special"
            raise InvalidInput("attention.drop_special", "true", expected)
        return kept, kept
    rows = [0] if request.cls_only else request.rows
    for field, wanted, axis in (("rows", rows, "query_axis"), ("keys", request.keys, "key_axis")):
        untold = [layer.layer for layer in layers if getattr(layer, axis) is None]
        if wanted and untold:
            expected = f"none: only a run tells how many positions layer {untold[0]} has"
            raise InvalidInput(f"attention.{field}", list(wanted), expected)
    queries, keys = (min(sizes) for sizes in zip(*shapes, strict=True))
    return (
        _indices("rows", rows, queries) if rows else None,
        _indices("keys", request.keys, keys) if request.keys else None,
    )


def _check_measure(plan: AttentionPlan) -> None:
    """Refuse what this model or these positions do not allow."""
    for index, layer in zip(plan.indices, plan.layers, strict=True):
        if plan.value_weighted and layer.value_norms is None:
            raise NotPossible(
                f"attention.value_weighted: the export of layer {index} does not show its output projection; "
                "expected layers with has_value_norms"
            )
        if plan.takes_contributions and layer.contribution is None:
            raise NotPossible(
                f"attention.measure: the export of layer {index} does not show its output projection and residual; "
                "expected layers with has_contributions"
            )
        if plan.measure in (_ROLLOUT, _DISTANCE) and layer.kind == "cross":
            name = pb.AttentionMeasure.Name(plan.measure)
            raise NotPossible(f"attention.measure: {name} of layer {index}, which is cross-attention; expected self")
    if plan.is_rollout and list(plan.indices) != sorted(plan.indices):
        raise InvalidInput("attention.layers", list(plan.indices), "rising numbers for a rollout")
    queries, keys = plan.shapes[0]
    if plan.is_rollout and any(shape != (queries, queries) for shape in plan.shapes):
        found = ", ".join(f"{one} x {other}" for one, other in dict.fromkeys(plan.shapes))
        raise InvalidInput("attention.layers", found, "layers over the same positions for a rollout")
    if plan.measure == _DISTANCE and not (plan.on_input(plan.queries, queries) and plan.on_input(plan.keys, keys)):
        raise InvalidInput("attention.rows", list(plan.queries or ()), "at least one row and key that is a patch")


def _check_sizes(plan: AttentionPlan, rows: int, limits: AttentionLimits) -> None:
    computed_bytes = plan.computed_bytes(rows)
    answer_bytes = max(plan.layers_bytes(rows)) if limits.layer_by_layer else plan.answer_bytes(rows)
    if answer_bytes > limits.answer_bytes:
        fewer = (
            "fewer heads or rows" if limits.layer_by_layer else "Attend, which sends each layer by itself; fewer layers"
        )
        expected = f"at most {limits.answer_bytes}: {fewer}, a mean over heads, or FLOAT16"
        what = "a layer" if limits.layer_by_layer else "an answer"
        raise InvalidInput("attention", f"{what} of {answer_bytes} bytes", expected)
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
