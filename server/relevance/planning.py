"""Plans a request for relevance: checked against a model and an input, before anything runs."""

import math

from artifact.contract import Contract, RelevanceContract, TensorContract
from artifact.dtypes import dtype_of
from server.attention.indices import without_special
from server.attention.planning import AttentionLimits
from server.attention.positions import Positions
from server.errors import InvalidInput, NotPossible
from server.relevance.path import straight_path
from server.relevance.plan import RelevancePlan, Target
from server.relevance.request import DEFAULT_STEPS, INTEGRATED, LIBRA, RelevanceRequest

_SHOWN_LABELS = 20
MAX_ROWS = 1024  # of a call that explains many labels, at many points: 8 labels at 126, say


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
        NotPossible: The model was exported without a relevance graph of its logits for this method, or by layer, or
            has no labels.
        InvalidInput: There is no such label, or an answer is too large, or too much is to be computed.
    """
    explained = _find_graph(request, contract)
    request.check()
    labels = contract.labels
    if request.labels:
        found = [_index(f"relevance.labels[{place}]", one, labels) for place, one in enumerate(request.labels)]
        targets = tuple(Target(label) for label in found)
    else:
        label = _index("relevance.label", request.label, labels)
        targets = (Target(label, _index("relevance.against", request.against, labels)),)
    count = explained.num_positions(positions.sizes, positions.count)
    plan = RelevancePlan(
        contract=explained,
        method=request.method,
        targets=targets,
        top=min(request.top, len(labels)),
        num_labels=len(labels),
        is_list=request.is_list,
        path=straight_path(request.steps or DEFAULT_STEPS) if request.method == INTEGRATED else None,
        positions=without_special("relevance.drop_special", positions.special, count) if request.drop_special else None,
        count=count,
        row_bytes=_row_bytes(contract, positions),
    )
    check_rows(plan, positions.rows)
    if (size_bytes := plan.answer_bytes(positions.rows)) > limits.answer_bytes:
        raise InvalidInput("relevance", f"an answer of {size_bytes} bytes", f"at most {limits.answer_bytes}")
    if (size_bytes := plan.computed_bytes(positions.rows)) > limits.computed_bytes:
        most = f"at most {limits.computed_bytes} (the server's --max-attention-bytes): fewer labels or steps"
        raise InvalidInput("relevance", f"{size_bytes} bytes to compute", most)
    return plan


def check_rows(plan: RelevancePlan, inputs: int) -> None:
    """Refuse more rows than one call may compute, of so many inputs; an input that becomes one row is never refused.

    Raises:
        InvalidInput: They are more.
    """
    if plan.rows_each > 1 and (rows := inputs * plan.rows_each) > MAX_ROWS:
        of = f"{rows} rows to compute ({inputs} x {plan.rows_each} by labels and steps)"
        raise InvalidInput("relevance", of, f"at most {MAX_ROWS}: fewer inputs, labels or steps")


def _row_bytes(contract: Contract, positions: Positions) -> int:
    """Size of the inputs of a row."""

    def size_bytes(spec: TensorContract) -> int:
        sizes = (axis if isinstance(axis, int) else positions.sizes.get(axis, 1) for axis in spec.axes[1:])
        return dtype_of(spec.dtype).itemsize * math.prod(sizes)

    return sum(map(size_bytes, contract.inputs))


def _find_graph(request: RelevanceRequest, contract: Contract) -> RelevanceContract:
    methods = contract.label_methods
    if not methods:
        expected = "a classifier with Model.can_explain"
        raise NotPossible(f"relevance: {contract.name} was exported without relevance of labels; expected {expected}")
    if request.method not in methods:
        raise NotPossible(
            f"relevance.method: {contract.name} was exported without {request.method}; expected {', '.join(methods)}"
        )
    if not request.by_layer or request.method != LIBRA:
        return methods[request.method]
    if contract.label_layers is None:
        expected = "a model with Model.can_explain_layers"
        raise NotPossible(f"relevance.by_layer: {contract.name} was exported without it; expected {expected}")
    return contract.label_layers


def _index(field: str, label: str, labels: tuple[str, ...]) -> int | None:
    if not label:
        return None
    if label in labels:
        return labels.index(label)
    shown = ", ".join(labels[:_SHOWN_LABELS]) + (", ..." if len(labels) > _SHOWN_LABELS else "")
    raise InvalidInput(field, repr(label), f"one of Model.labels: {shown}")
