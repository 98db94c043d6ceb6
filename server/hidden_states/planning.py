"""Plans a request for hidden states: checked against a model and an input, before anything runs."""

from collections.abc import Mapping, Sequence

import numpy as np

from artifact.contract import Contract, HiddenStateContract
from artifact.dtypes import Array
from server.attention.indices import resolve, resolve_in_each, without_special
from server.attention.planning import AttentionLimits
from server.attention.positions import Positions
from server.errors import InvalidInput, NotPossible
from server.hidden_states.plan import HiddenStatesPlan
from server.hidden_states.request import HiddenStatesRequest


def plan_hidden_states(
    request: HiddenStatesRequest,
    contract: Contract,
    inputs: Mapping[str, Array],
    positions: Positions,
    limits: AttentionLimits,
) -> HiddenStatesPlan:
    """Check a request for hidden states against a model and an input.

    Args:
        request: As the caller sent it.
        contract: The model's.
        inputs: By name, each [rows, ...].
        positions: Of these.
        limits: How much may be computed and sent, as of attention.

    Raises:
        NotPossible: The model was exported without hidden states, or has no class token.
        InvalidInput: A layer or a position that does not exist, is named twice, or an answer too large.
    """
    if not contract.hidden_states:
        expected = (
            "a model with hidden_state_layers: a network's export, not that of an ONNX file or an encoder-decoder"
        )
        raise NotPossible(f"hidden_states: {contract.name} was exported without hidden states; expected {expected}")
    request.check()
    if request.pooling == "cls" and contract.patches and not contract.patches.prefix_tokens:
        raise NotPossible(f"hidden_states.pooling: {contract.name} has no class token; expected another than CLS")
    plan = _choose(request, contract, inputs, positions)
    _check_padding(plan)
    _check_sizes(plan, positions.rows, limits, sent=not request.projected)
    return plan


def _choose(
    request: HiddenStatesRequest, contract: Contract, inputs: Mapping[str, Array], positions: Positions
) -> HiddenStatesPlan:
    """Resolve every index."""
    states = _choose_states(request, contract)
    counts = tuple(state.positions(positions.sizes, positions.count) for state in states)
    return HiddenStatesPlan(
        states=states,
        counts=counts,
        positions=_choose_positions(request, counts, positions),
        pooling=request.pooling,
        normalize=request.normalize,
        dtype=request.dtype,
        real=_find_real(contract, inputs, counts),
    )


def _choose_states(request: HiddenStatesRequest, contract: Contract) -> tuple[HiddenStateContract, ...]:
    if request.projected:
        assert contract.projected  # noqa: S101 -- who asks for it has looked
        return (contract.projected,)
    places = resolve("hidden_states.layers", request.layers, len(contract.hidden_states))
    return tuple(contract.hidden_states[place] for place in places)


def _choose_positions(
    request: HiddenStatesRequest, counts: Sequence[int], positions: Positions
) -> tuple[int, ...] | None:
    """Resolve positions; None stands for all."""
    if not request.drop_special:
        return resolve_in_each("hidden_states.positions", request.positions, counts)
    kept = without_special("hidden_states.drop_special", positions.special, positions.count)
    if any(count != positions.count for count in counts):
        expected = "false, or layers whose positions are those of the input"
        raise InvalidInput("hidden_states.drop_special", "true", expected)
    return kept


def _find_real(contract: Contract, inputs: Mapping[str, Array], counts: Sequence[int]) -> Array | None:
    """Tell which positions of rows of several lengths are no padding, bool [B, N]; None where all are."""
    masks = (inputs[spec.name] != 0 for spec in contract.inputs if spec.mask)
    return next((mask for mask in masks if set(counts) == {mask.shape[1]} and not mask.all()), None)


def _check_padding(plan: HiddenStatesPlan) -> None:
    """Refuse a mean over positions of which a row has none."""
    if plan.pooling != "mean" or plan.real is None or plan.positions is None:
        return
    empty = np.flatnonzero(~plan.real[:, list(plan.positions)].any(axis=1))
    if empty.size:
        expected = f"at least one that is no padding in row {empty[0]}"
        raise InvalidInput("hidden_states.positions", list(plan.positions), expected)


def _check_sizes(plan: HiddenStatesPlan, rows: int, limits: AttentionLimits, *, sent: bool) -> None:
    answer_bytes, computed_bytes = plan.answer_bytes(rows) if sent else 0, plan.computed_bytes(rows)
    if answer_bytes > limits.answer_bytes:
        expected = f"at most {limits.answer_bytes}: fewer layers or positions, pooling, FLOAT16 or UINT8"
        raise InvalidInput("hidden_states", f"an answer of {answer_bytes} bytes", expected)
    if computed_bytes > limits.computed_bytes:
        most = f"at most {limits.computed_bytes} (the server's --max-attention-bytes)"
        raise InvalidInput(
            "hidden_states", f"{computed_bytes} bytes to compute", f"{most}: fewer layers or a smaller input"
        )
