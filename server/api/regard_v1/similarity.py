"""Compare in the messages of regard.v1: which two inputs, and why they are as similar as they are."""

from regard.v1 import regard_pb2 as api
from server.api.regard_v1.relevance import write_reason
from server.api.regard_v1.tensors import write_tensor
from server.errors import InvalidInput, NotPossible
from server.inference.request import Images, Texts
from server.inference.similarity import Compared, ComparisonRequest, Found
from server.repository.loading import LoadedModel


def read_compared(request: api.CompareRequest, model: LoadedModel) -> tuple[Compared, Compared]:
    """Read both inputs, and of two towers which reads each.

    Raises:
        NotPossible: The model has no vectors that can be compared.
        InvalidInput: An input is missing.
    """
    embedding = model.contract.embedding
    if embedding is None or embedding.sparse:
        raise NotPossible(f"model: {model.name} gives no dense embedding; expected a model with can_embed")
    first, second = (
        _read_one(field, getattr(request, field), model, truncate=request.truncate) for field in ("first", "second")
    )
    return first, second


def _read_one(field: str, message: api.CompareInput, model: LoadedModel, *, truncate: bool) -> Compared:
    kind = message.WhichOneof("input")
    if kind is None:
        raise InvalidInput(f"{field}.input", "neither image nor text", "one of them")
    if kind == "image" and message.prompt:
        raise InvalidInput(f"{field}.prompt", repr(message.prompt), "none, as there is no text to put it before")
    inputs = Images((message.image,)) if kind == "image" else Texts((message.text,), truncate, message.prompt)
    return Compared(field, model.of_inputs((kind,)), inputs)


def read_comparison(request: api.CompareRequest) -> ComparisonRequest:
    """Read what is wanted besides the similarity."""
    wanted = request.relevance
    return ComparisonRequest(request.HasField("relevance"), wanted.pairs, wanted.drop_special)


def write_comparison(found: Found, inputs: tuple[Compared, Compared], model: LoadedModel) -> api.CompareResponse:
    """Answer with the similarity, and why it is that."""
    compared, (first, second) = found.comparison, found.prepared
    answer = api.CompareResponse(model=model.name, version=model.version, similarity=compared.similarity)
    answer.first_truncated, answer.second_truncated = first.truncated, second.truncated
    if compared.sides is None:
        return answer
    why = answer.relevance
    for message, told, positions, prepared, one in zip(
        (why.first, why.second), compared.sides, compared.positions, found.prepared, inputs, strict=True
    ):
        message.MergeFrom(write_reason(told, prepared, one.model, positions))
    if pairs := compared.pairs:
        write_tensor(pairs.values, why.pairs)
        why.unpaired, why.error, why.relative_error = pairs.unpaired, pairs.error, pairs.relative_error
    return answer
