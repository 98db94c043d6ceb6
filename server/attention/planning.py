"""Plans an attention request: checked against a model and an input, before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from artifact.contract import AttentionContract, Contract
from server.attention.indices import resolve, resolve_in_each, without_special
from server.attention.plan import AttentionPlan
from server.attention.positions import Positions
from server.attention.request import AttentionRequest, Measure, TextOfPair, shown, shown_statistic
from server.attention.statistics_planning import find_places
from server.errors import InvalidInput, NotPossible

_OF_WINDOWS: tuple[Measure, ...] = ("weights", "entropy")  # others go from layer to layer, or to places on the input
_RESIDUAL_SHARE = 0.5  # Abnar and Zuidema 2020, section 3


@dataclass(frozen=True)
class AttentionLimits:
    """Most bytes of attention weights of one request.

    Attributes:
        answer_bytes: In one message.
        computed_bytes: While it is computed.
        pair_tokens: Most tokens or patches in all runs that pairs take of an input.
    """

    answer_bytes: int
    computed_bytes: int
    pair_tokens: int = 2**14


def plan_attention(
    request: AttentionRequest,
    contract: Contract,
    positions: Positions,
    limits: AttentionLimits,
    *,
    layer_by_layer: bool,
) -> AttentionPlan:
    """Check an attention request against a model and an input.

    Args:
        request: As the caller sent it.
        contract: The model's.
        positions: Of the input.
        limits: How much may be computed and sent.
        layer_by_layer: Whether each layer has a message of its own.

    Raises:
        NotPossible: The model was exported without attention, or without what a measure needs.
        InvalidInput: A layer, head, row or key that does not exist, is named twice, or an answer too large.
    """
    if not contract.attention:
        raise NotPossible(f"attention: {contract.name} was exported without attention")
    request.check()
    plan = _choose(request, contract, positions)
    _check_measure(plan)
    _check_mixed_heads(plan)
    _check_sizes(plan, positions.rows, limits, layer_by_layer=layer_by_layer)
    return plan


def _choose(request: AttentionRequest, contract: Contract, positions: Positions) -> AttentionPlan:
    """Resolve every index."""
    indices = resolve("attention.layers", request.layers, len(contract.attention))
    layers = tuple(contract.attention[i] for i in indices)
    if request.cls_only:
        _check_class_token(contract, indices)
    _check_windows(request, dict(zip(indices, layers, strict=True)))
    shapes = tuple(layer.shape(positions.sizes, positions.count) for layer in layers)
    queries, keys = _choose_positions(request, layers, shapes, positions)
    return AttentionPlan(
        indices=indices,
        layers=layers,
        shapes=shapes,
        heads=_choose_heads(request, layers),
        reduction=request.head_reduction,
        queries=queries,
        keys=keys,
        dtype=request.dtype,
        measure=request.measure,
        residual_share=_RESIDUAL_SHARE if request.residual_share is None else request.residual_share,
        value_weighted=request.value_weighted,
        top_k=request.top_k,
        renormalize=request.renormalize,
        patches=contract.patches,
        statistics=request.statistics,
        places=find_places(request, contract, list(zip(indices, layers, shapes, strict=True)), positions),
    )


def _check_class_token(contract: Contract, indices: Sequence[int]) -> None:
    """Refuse the class token's row of layers without one, which are those of patches alone but for class attention."""
    if contract.patches is None or contract.patches.prefix_tokens:
        return
    without = [index for index in indices if not contract.attention[index].class_attention]
    if without and any(layer.class_attention for layer in contract.attention):
        which = f"layer {without[0]} of {contract.name} has no class token"
        raise NotPossible(f"attention.cls_only: {which}; expected layers with class_attention")
    if without:
        raise NotPossible(f"attention.cls_only: {contract.name} has no class token; expected rows, or none for all")


def _check_windows(request: AttentionRequest, layers: Mapping[int, AttentionContract]) -> None:
    """Refuse of layers with windows, by their indices, what takes the same keys for all queries, or values.

    A window that is the whole grid has the same keys for all.
    """
    windowed = next((index for index, layer in layers.items() if layer.window and not layer.window.is_whole), None)
    if windowed is None:
        return
    expected = f"none of layer {windowed}, which attends in windows"
    if request.measure not in _OF_WINDOWS:
        raise NotPossible(f"attention.measure: {shown(request.measure)}; expected {expected}")
    for field in ("value_weighted", "cls_only", "drop_special"):
        if getattr(request, field):
            raise NotPossible(f"attention.{field}: true; expected {expected}")


def _choose_heads(request: AttentionRequest, layers: Sequence[AttentionContract]) -> tuple[int, ...] | None:
    """Resolve heads; None stands for all of each layer."""
    return resolve_in_each("attention.heads", request.heads, [layer.num_heads for layer in layers])


def _choose_positions(
    request: AttentionRequest,
    layers: Sequence[AttentionContract],
    shapes: Sequence[tuple[int, int]],
    positions: Positions,
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Resolve query and key positions; None stands for all of them."""
    queries, keys = zip(*shapes, strict=True)
    kept = _not_special(shapes, positions) if request.drop_special else None
    rows = (0,) if request.cls_only else request.rows

    def choose(
        field: str, wanted: Sequence[int], text: TextOfPair | None, counts: Sequence[int], axis: str
    ) -> tuple[int, ...] | None:
        if text:
            return _of_text(f"attention.{field}_of_text", text, shapes, positions)
        untold = [layer.layer for layer in layers if getattr(layer, axis) is None]
        if wanted and untold:
            expected = f"none: only a run tells how many positions layer {untold[0]} has"
            raise InvalidInput(f"attention.{field}", list(wanted), expected)
        return kept or resolve_in_each(f"attention.{field}", wanted, counts)

    return (
        choose("rows", rows, request.rows_of_text, queries, "query_axis"),
        choose("keys", request.keys, request.keys_of_text, keys, "key_axis"),
    )


def _not_special(shapes: Sequence[tuple[int, int]], positions: Positions) -> tuple[int, ...]:
    """Return the positions that are part of the input."""
    field = "attention.drop_special"
    kept = without_special(field, positions.special, positions.count)
    _check_on_input(field, "true", shapes, positions)
    return kept


def _of_text(field: str, text: TextOfPair, shapes: Sequence[tuple[int, int]], positions: Positions) -> tuple[int, ...]:
    """Return the positions of one text of a pair."""
    if positions.rows > 1:
        raise InvalidInput(field, text, f"none for {positions.rows} rows: only a single pair's texts are told apart")
    if positions.pair is None:
        raise InvalidInput(field, text, "none: only a pair of texts has a first and a second one")
    _check_on_input(field, text, shapes, positions)
    found = tuple(positions.pair[text == "second"])
    if not found:
        raise InvalidInput(field, text, f"a {text} text with at least one token")
    return found


def _check_on_input(field: str, value: str, shapes: Sequence[tuple[int, int]], positions: Positions) -> None:
    if any(shape != (positions.count, positions.count) for shape in shapes):
        raise InvalidInput(field, value, "layers whose queries and keys are the positions of the input")


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
        if plan.measure in ("rollout", "distance") and layer.kind == "cross":
            what = f"{shown(plan.measure)} of layer {index}, which is cross-attention"
            raise NotPossible(f"attention.measure: {what}; expected self")
    if plan.is_rollout and list(plan.indices) != sorted(plan.indices):
        raise InvalidInput("attention.layers", list(plan.indices), "rising numbers for a rollout")
    queries, keys = plan.shapes[0]
    if plan.is_rollout and any(shape != (queries, queries) for shape in plan.shapes):
        found = ", ".join(f"{one} x {other}" for one, other in dict.fromkeys(plan.shapes))
        raise InvalidInput("attention.layers", found, "layers over the same positions for a rollout")
    has_distance = plan.measure == "distance" or "distance" in plan.statistics
    if has_distance and not (plan.on_input(plan.queries, queries) and plan.on_input(plan.keys, keys)):
        raise InvalidInput("attention.rows", list(plan.queries or ()), "at least one row and key that is a patch")


def _check_mixed_heads(plan: AttentionPlan) -> None:
    """Refuse of layers whose heads are mixed what takes rows for shares of 1, or numbers for none below 0."""
    mixed = next((index for index, layer in zip(plan.indices, plan.layers, strict=True) if layer.mixes_heads), None)
    if mixed is None or plan.takes_contributions:
        return
    expected = f"of layer {mixed}, which mixes its heads: its rows need not sum to 1, and may hold negative numbers"
    if plan.measure != "weights":
        raise NotPossible(f"attention.measure: {shown(plan.measure)}; expected none {expected}")
    if plan.statistics:
        raise NotPossible(f"attention.statistics: {shown_statistic(plan.statistics[0])}; expected none {expected}")
    if plan.renormalize:
        raise NotPossible(f"attention.renormalize: true; expected false {expected}")
    if plan.dtype == "uint8":
        raise NotPossible(f"attention.dtype: UINT8; expected FLOAT32 or FLOAT16 {expected}")


def _check_sizes(plan: AttentionPlan, rows: int, limits: AttentionLimits, *, layer_by_layer: bool) -> None:
    computed_bytes = plan.computed_bytes(rows)
    answer_bytes = max(plan.layers_bytes(rows)) if layer_by_layer else plan.answer_bytes(rows)
    if answer_bytes > limits.answer_bytes:
        fewer = "fewer heads or rows" if layer_by_layer else "Attend, which sends each layer by itself; fewer layers"
        expected = f"at most {limits.answer_bytes}: {fewer}, a mean over heads, or FLOAT16"
        what = "a layer" if layer_by_layer else "an answer"
        raise InvalidInput("attention", f"{what} of {answer_bytes} bytes", expected)
    if computed_bytes > limits.computed_bytes:
        expected = (
            f"at most {limits.computed_bytes} (the server's --max-attention-bytes): fewer layers or a smaller input"
        )
        raise InvalidInput("attention", f"{computed_bytes} bytes of weights to compute", expected)
