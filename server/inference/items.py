"""What a prepared request is for the scheduler: its attention or hidden states planned, its graph chosen."""

import numpy as np

from server.attention.plan import AttentionPlan
from server.attention.planning import AttentionLimits, Positions, plan_attention
from server.context import RpcContext
from server.errors import InvalidInput
from server.hidden_states.plan import HiddenStatesPlan
from server.hidden_states.planning import plan_hidden_states
from server.inference.preprocess import pair_positions, special_positions
from server.inference.request import InferenceRequest, Plan, PreparedInput
from server.relevance.plan import RelevancePlan
from server.relevance.planning import plan_relevance
from server.relevance.similarity import SimilarityPlan, plan_similarity
from server.scheduling.batch import BatchItem, Runner


def plan_request(request: InferenceRequest, prepared: PreparedInput, limits: AttentionLimits) -> Plan | None:
    """Plan the attention, the hidden states or the relevance of a request, if it wants any.

    Raises:
        ServerError: As plan_attention, plan_hidden_states, plan_relevance and plan_similarity; or several are wanted.
    """
    if not request.further_field:
        return None
    asked = [field for field in ("attention", "hidden_states", "relevance") if getattr(request, field)]
    if len(asked) > 1:
        raise InvalidInput(asked[1], f"beside {asked[0]}", "one of both, or a call for each")
    contract = request.model.contract
    special = special_positions(request.model, prepared)
    sizes, pair = contract.axis_sizes(prepared.inputs), pair_positions(prepared)
    positions = Positions(prepared.rows, sizes, prepared.length, special, pair)
    if request.hidden_states:
        return plan_hidden_states(request.hidden_states, contract, prepared.inputs, positions, limits)
    if request.relevance:
        return plan_relevance(request.relevance, contract, positions, limits)
    if request.similarity:
        return plan_similarity(request.similarity, contract, positions, limits)
    assert request.attention  # noqa: S101 -- or there is no field
    return plan_attention(request.attention, contract, positions, limits, layer_by_layer=request.layer_by_layer)


def make_item(request: InferenceRequest, prepared: PreparedInput, plan: Plan | None, context: RpcContext) -> BatchItem:
    """Choose the graph that gives no more than what is wanted."""
    engine, contract = request.model.engine, request.model.contract
    graph: Runner | None = None
    inputs, rows = prepared.inputs, prepared.rows
    match plan:
        case AttentionPlan():
            graph = engine.contributing if plan.takes_contributions else engine.tapped
        case HiddenStatesPlan():
            graph = engine.hidden
        case RelevancePlan():
            graph = engine.explaining
            inputs = {**inputs, plan.contract.weights: plan.weights}
        case SimilarityPlan():
            graph = engine.parting if plan.weights is None else engine.comparing
            rows = plan.runs
            repeated = {name: np.broadcast_to(array, (rows, *array.shape[1:])) for name, array in inputs.items()}
            inputs = {**repeated, **plan.further_inputs}
    further = plan.outputs if plan else ()
    return BatchItem(
        graph or engine.plain,
        contract,
        inputs,
        rows,
        prepared.length,
        request.outputs,
        further,
        context,
    )
