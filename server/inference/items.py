"""What a prepared request is for the scheduler: its attention or hidden states planned, its graph chosen."""

from typing import Any

from artifact.images import Pixels
from artifact.text import Tokens
from server.attention.plan import AttentionPlan
from server.attention.planning import AttentionLimits, plan_attention
from server.attention.positions import Positions
from server.context import RpcContext
from server.errors import InvalidInput
from server.hidden_states.plan import HiddenStatesPlan
from server.hidden_states.planning import plan_hidden_states
from server.inference.preprocess import pair_positions, special_positions
from server.inference.request import InferenceRequest, Plan, PreparedInput
from server.scheduling.batch import BatchItem, Runner


def plan_request(request: InferenceRequest, prepared: PreparedInput, limits: AttentionLimits) -> Plan | None:
    """Plan the attention or the hidden states of a request, if it wants any.

    Raises:
        ServerError: As plan_attention and plan_hidden_states; or both are wanted.
    """
    if not request.further_field:
        return None
    if request.attention and request.hidden_states:
        raise InvalidInput("hidden_states", "beside attention", "one of both, or a call for each")
    contract = request.model.contract
    special = special_positions(request.model, prepared)
    sizes, pair = contract.axis_sizes(prepared.inputs), pair_positions(prepared)
    positions = Positions(prepared.rows, sizes, prepared.length, special, pair, **_origin(prepared))
    if request.hidden_states:
        return plan_hidden_states(request.hidden_states, contract, prepared.inputs, positions, limits)
    assert request.attention  # noqa: S101 -- or there is no field
    return plan_attention(request.attention, contract, positions, limits, layer_by_layer=request.layer_by_layer)


def _origin(prepared: PreparedInput) -> dict[str, Any]:
    """Say what a single text's or image's positions came from, as fields of Positions."""
    match prepared.source:
        case Tokens() as tokens:
            return {"token_ids": tokens.ids, "offsets": tokens.offsets}
        case Pixels() as pixels:
            return {"seen": pixels.box}
    return {}


def make_item(request: InferenceRequest, prepared: PreparedInput, plan: Plan | None, context: RpcContext) -> BatchItem:
    """Choose the graph that gives no more than what is wanted."""
    engine, contract = request.model.engine, request.model.contract
    graph: Runner | None = None
    match plan:
        case AttentionPlan():
            graph = engine.contributing if plan.takes_contributions else engine.tapped
        case HiddenStatesPlan():
            graph = engine.hidden
    further = plan.outputs if plan else ()
    return BatchItem(
        graph or engine.plain,
        contract,
        prepared.inputs,
        prepared.rows,
        prepared.length,
        request.outputs,
        further,
        context,
    )
