"""What a prepared request is for the scheduler: its attention planned, its graph chosen."""

from server.attention.plan import AttentionPlan
from server.attention.planning import AttentionLimits, Positions, plan_attention
from server.context import RpcContext
from server.inference.preprocess import pair_positions, special_positions
from server.inference.request import InferenceRequest, PreparedInput
from server.scheduling.batch import BatchItem, Runner


def plan_request(request: InferenceRequest, prepared: PreparedInput, limits: AttentionLimits) -> AttentionPlan | None:
    """Plan the attention of a request, if it wants any; raises as plan_attention."""
    if request.attention is None:
        return None
    contract = request.model.contract
    special = special_positions(request.model, prepared)
    sizes, pair = contract.axis_sizes(prepared.inputs), pair_positions(prepared)
    positions = Positions(prepared.rows, sizes, prepared.length, special, pair)
    return plan_attention(request.attention, contract, positions, limits, layer_by_layer=request.layer_by_layer)


def make_item(
    request: InferenceRequest, prepared: PreparedInput, plan: AttentionPlan | None, context: RpcContext
) -> BatchItem:
    """Choose the graph that gives no more than what is wanted."""
    engine, contract = request.model.engine, request.model.contract
    graph: Runner = engine.plain
    if plan and (tapped := engine.contributing if plan.takes_contributions else engine.tapped):
        graph = tapped
    attentions = plan.outputs if plan else ()
    return BatchItem(
        graph, contract, prepared.inputs, prepared.rows, prepared.length, request.outputs, attentions, context
    )
