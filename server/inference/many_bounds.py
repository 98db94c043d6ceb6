"""What several inputs of one request may hold together: checked and reserved before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass

from artifact.text import Tokens
from server.attention.planning import AttentionLimits
from server.errors import InvalidInput
from server.inference.preprocess import outputs_bytes
from server.inference.request import Images, InferenceRequest, Plan, PreparedInput, Texts
from server.ledger import COPIES, Account
from server.relevance.plan import RelevancePlan
from server.relevance.planning import check_rows
from server.repository.loading import LoadedModel
from server.scheduling.batch import BatchItem

_ID_BYTES, _POSITION_BYTES = 8, 200  # of a token; of a token that says where it came from, in Python's objects
_TOKEN_BYTES, _LAYER_BYTES, _NUMBER_BYTES = 32, 64, 3  # in a message: besides a token's text, of a layer, of a position
_SCORE_BYTES = 32  # of a document in a ranking
_ADDED_TOKENS, _UTF8_BYTES = 16, 4  # special ones, generously; of a character, each of which may be a token
_FEWER = {
    "attention": "fewer inputs, layers, heads or rows",
    "hidden_states": "fewer inputs, layers or positions",
    "relevance": "fewer inputs or labels",
}


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """An input that can be computed."""

    prepared: PreparedInput
    plan: Plan | None
    item: BatchItem


def check_together(request: InferenceRequest, ready: Sequence[Ready], count: int, limits: AttentionLimits) -> None:
    """Refuse what no message may hold, or more attention or hidden states than may be computed, before anything is.

    Args:
        request: Of several inputs.
        ready: Some of them; all images take as much as these.
        count: How many there are in all.
        limits: Of one answer.

    Raises:
        InvalidInput: They are too much together.
    """
    for one in ready[:1]:
        if isinstance(one.plan, RelevancePlan):
            check_rows(one.plan, count)
    answer_bytes, computed_bytes = _amounts(request, ready, count)
    field = request.further_field or "outputs"
    if answer_bytes > limits.answer_bytes:
        fewer = _FEWER.get(field, "fewer inputs")
        expected = f"at most {limits.answer_bytes} (the server's --max-message-bytes): {fewer}"
        raise InvalidInput(field, f"an answer of {answer_bytes} bytes for {count} inputs", expected)
    if computed_bytes > limits.computed_bytes:
        expected = f"at most {limits.computed_bytes} (the server's --max-attention-bytes): fewer inputs or layers"
        raise InvalidInput(field, f"{computed_bytes} bytes to compute for {count} inputs", expected)


def reserve_together(request: InferenceRequest, ready: Sequence[Ready], count: int, account: Account) -> None:
    """Reserve what will be held for all inputs; see check_together.

    Raises:
        TooBusy: Others hold too much, or the client's other requests do.
    """
    answer_bytes, computed_bytes = _amounts(request, ready, count)
    result_bytes = computed_bytes + answer_bytes + _unsent_bytes(request, ready, count)
    account.reserve(result=result_bytes, answer=COPIES * answer_bytes)


def _unsent_bytes(request: InferenceRequest, ready: Sequence[Ready], count: int) -> int:
    """Bytes of outputs that are held and no part of the answer: compared here, or before they are cut and rounded."""
    computed = sum(outputs_bytes(request, one.prepared, computed=True) for one in ready)
    sent = 0 if _compares(request) else sum(outputs_bytes(request, one.prepared) for one in ready)
    return round(_scale(request, ready, count) * (computed - sent))


def _scale(request: InferenceRequest, ready: Sequence[Ready], count: int) -> float:
    """How many times what is ready all will be: texts are all there, images alike."""
    return count / len(ready) if isinstance(request.inputs, Images) else 1.0


def _compares(request: InferenceRequest) -> bool:
    """Whether vectors of tokens are compared here, and not sent: Rank's."""
    inputs = request.inputs
    return request.model.contract.late is not None and isinstance(inputs, Texts) and inputs.field == "documents"


def _amounts(request: InferenceRequest, ready: Sequence[Ready], count: int) -> tuple[int, int]:
    """Bytes of the answer, and of the attention or hidden states computed."""
    scale = _scale(request, ready, count)
    sizes = sorted((_answer_bytes(request, one) for one in ready), reverse=True)
    answer_bytes = sum(sizes[: request.max_sent or None])
    computed_bytes = sum(one.plan.computed_bytes(1) for one in ready if one.plan)
    return round(scale * answer_bytes), round(scale * computed_bytes)


def _answer_bytes(request: InferenceRequest, one: Ready) -> int:
    """Size of what is sent for one input: outputs, attention, and what says what its numbers mean."""
    plan, compares = one.plan, _compares(request)
    size_bytes = _SCORE_BYTES if compares else outputs_bytes(request, one.prepared)
    if plan or not compares:  # what each found is bounded before, see read_late_documents
        size_bytes += _tokens_bytes(one.prepared.source)
    if plan:
        size_bytes += sum(_LAYER_BYTES + _NUMBER_BYTES * count for count in plan.index_counts) + plan.answer_bytes(1)
    return size_bytes


def _tokens_bytes(source: object) -> int:
    """Size of what says which tokens there are."""
    if not isinstance(source, Tokens):
        return 0
    return _TOKEN_BYTES * len(source.texts) + _UTF8_BYTES * sum(map(len, source.texts))


def texts_bytes(model: LoadedModel, inputs: Texts, prompt: str, *, positions: bool) -> int:
    """What is held of tokenised texts, at most: ids, inputs, their copy in a batch, and where each token came from."""
    contract = model.contract
    most = contract.text.max_tokens if contract.text else 0
    is_filled = contract.text is not None and contract.text.pad_token is not None
    sizes = [most if is_filled else _UTF8_BYTES * (len(prompt) + size) + _ADDED_TOKENS for size in inputs.sizes]
    if contract.late and contract.late.filler is not None:
        sizes[: inputs.queries] = [contract.late.query_tokens] * inputs.queries
    tokens = sum(min(size, most) for size in sizes)
    return tokens * (_ID_BYTES * (1 + COPIES * len(contract.inputs)) + (_POSITION_BYTES if positions else 0))


def images_bytes(model: LoadedModel, count: int) -> int:
    """What is held of decoded images: float32, and their copy in a batch."""
    size = 4
    for axis in model.contract.inputs[0].axes[1:]:
        size *= axis if isinstance(axis, int) else 1
    return COPIES * count * size
