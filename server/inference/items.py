"""What a prepared request is for the scheduler: its attention or hidden states planned, its graph chosen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

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
from server.relevance.plan import RelevancePlan
from server.relevance.planning import plan_relevance
from server.relevance.similarity import SimilarityPlan, plan_similarity
from server.relevance.tokens import TokenRelevancePlan, plan_tokens
from server.scheduling.batch import BatchItem, Result, Runner
from server.scheduling.grouping import Each

_LOGITS = "logits"


def plan_request(request: InferenceRequest, prepared: PreparedInput, limits: AttentionLimits) -> Plan | None:
    """Plan the attention, the hidden states or the relevance of a request, if it wants any.

    Raises:
        ServerError: As plan_attention and the others for what else may be wanted; or several are wanted.
    """
    if not request.further_field:
        return None
    asked = [field for field in ("attention", "hidden_states", "relevance") if getattr(request, field)]
    if len(asked) > 1:
        raise InvalidInput(asked[1], f"beside {asked[0]}", "one of both, or a call for each")
    contract = request.model.contract
    special = special_positions(request.model, prepared)
    sizes, pair = contract.axis_sizes(prepared.inputs), pair_positions(prepared)
    positions = Positions(prepared.rows, sizes, prepared.length, special, pair, **_origin(prepared))
    if request.hidden_states:
        return plan_hidden_states(request.hidden_states, contract, prepared.inputs, positions, limits)
    if request.relevance:
        return plan_relevance(request.relevance, contract, positions, limits)
    if request.token_relevance:
        return plan_tokens(request.token_relevance, contract, sizes, prepared.length, limits)
    if request.similarity:
        return plan_similarity(request.similarity, contract, positions, limits)
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
    """Choose the graph that gives no more than what is wanted; that of logits alone where these have to come first."""
    engine, contract = request.model.engine, request.model.contract
    graph: Runner | None = None
    inputs, rows = prepared.inputs, prepared.rows
    match plan:
        case AttentionPlan():
            graph = engine.contributing if plan.takes_contributions else engine.tapped
        case HiddenStatesPlan():
            graph = engine.hidden
        case RelevancePlan() if not plan.is_open:
            graph = engine.explaining[plan.contract.graph]
            inputs, rows = plan.spread(inputs), rows * plan.rows_each
        case SimilarityPlan():
            graph = engine.parting if plan.weights is None else engine.comparing
            inputs, rows = plan.spread(inputs), plan.runs
        case TokenRelevancePlan():
            graph, contract = engine.explaining_tokens, plan.contract
            inputs, rows = plan.spread(inputs), plan.rows
    further = plan.outputs if plan and graph else ()
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


def settle(plan: Plan | None, computed: Result) -> Plan | None:
    """Return the plan that goes on from what was computed of an input: None where that was all."""
    if isinstance(plan, RelevancePlan) and plan.is_open:
        return plan.settled(computed.outputs[_LOGITS])
    return None


def rows_of(item: BatchItem) -> list[BatchItem]:
    """Return an item for each row of one."""
    if item.rows == 1:
        return [item]
    rows = ({name: array[row : row + 1] for name, array in item.inputs.items()} for row in range(item.rows))
    return [replace(item, inputs=own, rows=1) for own in rows]


def join_rows(found: Sequence[Each]) -> Each:
    """Put what became of an item's rows together, in their order: the error of one is that of all."""
    results = [one for one in found if isinstance(one, Result)]
    if len(found) == 1 or len(results) < len(found):
        return next((one for one in found if not isinstance(one, Result)), found[0])
    first = results[0]
    return replace(
        first,
        outputs={name: np.concatenate([one.outputs[name] for one in results]) for name in first.outputs},
        further={name: np.concatenate([np.asarray(one.further[name]) for one in results]) for name in first.further},
        queue_ns=max(one.queue_ns for one in results),
        compute_ns=max(one.compute_ns for one in results),
        batch_size=max(one.batch_size for one in results),
    )
