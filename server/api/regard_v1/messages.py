"""Requests of regard.v1 to what the pipeline takes, and what it gives to responses."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.attention import read_attention, write_layers
from server.api.regard_v1.describe import describe_positions
from server.api.regard_v1.hidden_states import read_hidden_states, write_states
from server.api.regard_v1.relevance import read_relevance, write_relevance
from server.api.regard_v1.tensors import write_tensor
from server.attention.plan import AttentionPlan
from server.context import Timings
from server.errors import InvalidInput, ServerError
from server.hidden_states.plan import HiddenStatesPlan
from server.inference.preprocess import check_number
from server.inference.request import (
    Images,
    InferenceRequest,
    InferenceResponse,
    ManyResponses,
    Tensors,
    Texts,
)
from server.inference.vectors import WHOLE_VECTORS, VectorFormat, VectorRequest
from server.relevance.plan import RelevancePlan
from server.relevance.request import RelevanceRequest
from server.repository.loading import LoadedModel

Asked = api.PredictRequest | api.ClassifyRequest | api.EmbedRequest | api.RankRequest
Answer = TypeVar("Answer", api.PredictResponse, api.ClassifyResponse, api.EmbedResponse)
Classified = TypeVar("Classified", api.ClassifyResponse, api.ClassifyResult)
WithFurther = TypeVar(
    "WithFurther",
    api.PredictResponse,
    api.ClassifyResponse,
    api.ClassifyResult,
    api.EmbedResponse,
    api.EmbedResult,
    api.RankedDocument,
)
Write = Callable[[InferenceResponse], Answer]
AnswerOfMany = TypeVar("AnswerOfMany", api.ClassifyResponse, api.EmbedResponse, api.RankResponse)
OfMany = api.ClassifyRequest | api.EmbedRequest
Each = TypeVar("Each", api.ClassifyResult, api.EmbedResult)
Named = Mapping[str, pb.Tensor]

_FORMATS: dict[int, VectorFormat] = {
    api.VECTOR_FORMAT_UNSPECIFIED: "float32",
    api.VECTOR_FORMAT_FLOAT16: "float16",
    api.VECTOR_FORMAT_INT8: "int8",
    api.VECTOR_FORMAT_BINARY: "binary",
}
_LABEL_BYTES = 24  # in a message, besides its name


def read_content(request: api.ClassifyRequest | api.EmbedRequest | api.AttendRequest) -> Texts | Images:
    """Read the image, text or pair of texts of a request.

    Raises:
        InvalidInput: There is neither, or a prompt without a text.
    """
    kind = request.WhichOneof("input")
    prompt = read_prompt(request)
    if kind == "text":
        return Texts((request.text,), request.truncate, prompt)
    if kind == "image":
        return Images((request.image,))
    if kind == "pair" and not isinstance(request, api.EmbedRequest):
        return Texts((request.pair.first,), request.truncate, second=(request.pair.second,))
    if isinstance(request, api.EmbedRequest):
        raise InvalidInput("input", "neither image, text nor token_ids", "one of them")
    given = (
        "neither image, text, pair nor tensors"
        if isinstance(request, api.AttendRequest)
        else "neither image, text nor pair"
    )
    raise InvalidInput("input", given, "one of them")


def read_prompt(request: api.ClassifyRequest | api.EmbedRequest | api.AttendRequest) -> str:
    """Read the name of a prompt, for which Classify has no field.

    Raises:
        InvalidInput: It is none beside a text.
    """
    if isinstance(request, api.ClassifyRequest):
        return ""
    if request.prompt and request.WhichOneof("input") not in ("text", "texts", "token_ids"):
        raise InvalidInput("prompt", repr(request.prompt), "none, as there is no text to put it before")
    return request.prompt


def read_contents(request: OfMany, max_inputs: int) -> Texts | Images | None:
    """Read the texts or images of a request that have an answer each; None where it has a single one.

    Raises:
        InvalidInput: There are none, or too many; or a prompt without texts.
    """
    kind = request.WhichOneof("input")
    if kind not in ("texts", "images", "pairs", "token_ids"):
        return None
    prompt = read_prompt(request)
    check_number(kind, len(getattr(request, kind).items), max_inputs)
    if kind == "images":
        return Images(tuple(request.images.items))
    if isinstance(request, api.ClassifyRequest) and kind == "pairs":
        pairs = [(pair.first, pair.second) for pair in request.pairs.items]
        first, second = zip(*pairs, strict=True)
        return Texts(first, request.truncate, second=second, field=kind)
    if isinstance(request, api.EmbedRequest) and kind == "token_ids":
        ids = tuple(one.items for one in request.token_ids.items)  # as they came: nothing has bounded them yet
        return Texts(ids, request.truncate, prompt, field=kind)
    return Texts(tuple(request.texts.items), request.truncate, prompt)


def read_request(
    message: Asked,
    model: LoadedModel,
    inputs: Texts | Images | Tensors,
    outputs: tuple[str, ...],
) -> InferenceRequest:
    """Read what is wanted besides outputs.

    Raises:
        InvalidInput: As read_attention and read_hidden_states.
    """
    attention = read_attention(message.attention) if message.HasField("attention") else None
    hidden_states = read_hidden_states(message.hidden_states) if message.HasField("hidden_states") else None
    relevance: RelevanceRequest | None = None
    if isinstance(message, api.ClassifyRequest) and message.HasField("relevance"):
        relevance = read_relevance(message.relevance)
    vectors = read_dense(message) if isinstance(message, api.EmbedRequest) else WHOLE_VECTORS
    max_sent = message.top_k if isinstance(message, api.RankRequest) and model.contract.late is None else 0
    return InferenceRequest(
        model, inputs, outputs, attention, hidden_states, relevance, max_sent=max_sent, vectors=vectors
    )


def read_dense(message: api.EmbedRequest) -> VectorRequest:
    """Read what is wanted of dense vectors.

    Raises:
        InvalidInput: There is no such format.
    """
    if message.vector_format not in _FORMATS:
        raise InvalidInput("vector_format", message.vector_format, "one of the values of VectorFormat")
    return VectorRequest(message.dimensions, _FORMATS[message.vector_format])


def write_outputs(found: InferenceResponse) -> api.PredictResponse:
    """Answer Predict."""
    message = api.PredictResponse(model=found.model.name, version=found.model.version)
    for name, array in found.outputs.items():
        write_tensor(array, message.outputs[name])
    return with_further(found, message)


def write_labels(found: InferenceResponse, count: int) -> api.ClassifyResponse:
    """Answer Classify with so many labels."""
    model = found.model
    return fill_labels(found, api.ClassifyResponse(model=model.name, version=model.version), count)


def fill_labels(found: InferenceResponse, message: Classified, count: int) -> Classified:
    """Write so many labels into an answer, and its attention or hidden states."""
    message.labels.extend(top_labels(found.outputs["logits"][0], found.model.contract.labels, count))
    message.truncated = found.prepared.truncated
    return with_further(found, message)


def fill_each(
    found: ManyResponses, field: str, add: Callable[[], Each], fill: Callable[[InferenceResponse, Each], Each]
) -> None:
    """Write an answer, or an error, for each of several inputs; an error stands among what was found, then.

    Args:
        found: What was computed.
        field: Of the request, that the errors name.
        add: Gives the next result, in the answer itself.
        fill: Writes one.
    """
    for number, one in enumerate(found.each):
        result = add()
        if isinstance(one, ServerError):
            write_error(one, f"{field}[{number}]", result.error)
            continue
        try:
            fill(one, result)
        except ServerError as error:  # of a number that does not fit what was asked for
            found.each[number] = error
            result.Clear()
            write_error(error, f"{field}[{number}]", result.error)


def write_error(error: ServerError, place: str, message: pb.InputError) -> None:
    """Say why an input has no answer, and which it is."""
    message.code, what = error.code.value[0], str(error)
    message.message = what if what.startswith(place) else f"{place}: {what}"


def check_labels(count: int, inputs: int, names: tuple[str, ...], max_bytes: int) -> None:
    """Refuse more labels of several inputs than a message holds, before anything is computed.

    Raises:
        InvalidInput: They are more.
    """
    longest = max(len(name.encode()) for name in names) + _LABEL_BYTES
    size_bytes = inputs * min(count, len(names)) * longest
    if size_bytes > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): fewer labels or inputs"
        raise InvalidInput("top_k", f"an answer of {size_bytes} bytes for {inputs} inputs", expected)


def write_layers_of(found: InferenceResponse, add: Callable[[], pb.LayerAttention]) -> Iterator[pb.LayerAttention]:
    """Write what was asked for of the attention, each layer when it is wanted; see write_layers."""
    if not isinstance(found.plan, AttentionPlan):
        return iter(())
    return write_layers(found.plan, found.attention(), add, batched=found.is_batched)


def write_next(layers: Iterator[pb.LayerAttention], timings: Timings) -> bool:
    """Write the next layer; its time, without what the caller takes to read it, is the encoding's. False at the end."""
    started_ns = time.perf_counter_ns()
    is_written = next(layers, None) is not None
    timings.encode_ns += time.perf_counter_ns() - started_ns
    return is_written


def write_timings(timings: Timings, message: pb.Timings) -> None:
    """Say how long the stages took."""
    message.decode_ns, message.queue_ns = timings.decode_ns, timings.queue_ns
    message.compute_ns, message.encode_ns = timings.compute_ns, timings.encode_ns
    message.batch_size = timings.batch_size


def top_labels(logits: NDArray[np.float32], names: tuple[str, ...], count: int) -> list[api.Label]:
    """Return the most probable classes, best first.

    Args:
        logits: float32 [C].
        names: C class names.
        count: How many at most.
    """
    exponents = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = exponents / exponents.sum()
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [api.Label(index=int(i), name=names[i], probability=float(probabilities[i])) for i in best]


def with_further(found: InferenceResponse, message: WithFurther) -> WithFurther:
    """Write what was asked for besides outputs into an answer, with what its positions stand for."""
    match found.plan:
        case AttentionPlan():
            message.attention.CopyFrom(pb.Attention(**describe_positions(found)))
            for _ in write_layers_of(found, message.attention.layers.add):
                pass
        case HiddenStatesPlan() as plan:
            message.hidden_states.CopyFrom(pb.HiddenStates(**({} if plan.pooling else describe_positions(found))))
            for reduced in found.hidden_states():
                write_states(plan, reduced, message.hidden_states.layers.add(), batched=found.is_batched)
        case RelevancePlan() as plan if isinstance(message, api.ClassifyResponse | api.ClassifyResult):
            answers = list(write_relevance(plan, found))
            if plan.is_list:
                message.relevances.extend(answers)
            else:
                message.relevance.CopyFrom(answers[0])
    return message
