"""Plans a request for relevance: checked against a model and an input, before anything runs."""

import numpy as np

from artifact.contract import Contract
from server.attention.indices import without_special
from server.attention.planning import AttentionLimits, Positions
from server.errors import InvalidInput, NotPossible
from server.relevance.plan import RelevancePlan
from server.relevance.request import RelevanceRequest

_SHOWN_LABELS = 20


def plan_relevance(
    request: RelevanceRequest, contract: Contract, positions: Positions, limits: AttentionLimits
) -> RelevancePlan:
    """Check a request for relevance against a model and an input.

    Args:
        request: As the caller sent it.
        contract: The model's.
        positions: Of the input.
        limits: How much may be computed and sent, as of attention.

    Raises:
        NotPossible: The model was exported without a relevance graph of its logits, or has no labels.
        InvalidInput: There is no such label, or an answer is too large.
    """
    explained = contract.relevance
    if explained is None or not contract.explains_labels:
        expected = "a classifier with Model.can_explain"
        raise NotPossible(f"relevance: {contract.name} was exported without relevance of labels; expected {expected}")
    request.check()
    label = _index("relevance.label", request.label, contract.labels)
    against = _index("relevance.against", request.against, contract.labels)
    weights = np.zeros((positions.rows, len(contract.labels)), dtype=np.float32)
    if label is not None:
        weights[:, label] = 1
    if against is not None:
        weights[:, against] = -1
    axis = explained.position_axis
    count = axis if isinstance(axis, int) else positions.sizes.get(axis, positions.count)
    special = "relevance.drop_special"
    kept = without_special(special, positions.special, count) if request.drop_special else None
    plan = RelevancePlan(explained, weights, label, against, kept, count)
    if (size_bytes := plan.answer_bytes(positions.rows)) > limits.answer_bytes:
        raise InvalidInput("relevance", f"an answer of {size_bytes} bytes", f"at most {limits.answer_bytes}")
    return plan


def _index(field: str, label: str, labels: tuple[str, ...]) -> int | None:
    if not label:
        return None
    if label in labels:
        return labels.index(label)
    shown = ", ".join(labels[:_SHOWN_LABELS]) + (", ..." if len(labels) > _SHOWN_LABELS else "")
    raise InvalidInput(field, repr(label), f"one of Model.labels: {shown}")
