"""Requests of regard.v1 to what the pipeline takes, and what it gives to responses."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.attention import write_layers
from server.api.regard_v1.describe import describe_positions
from server.api.regard_v1.tensors import write_tensor
from server.context import Timings
from server.errors import InvalidInput
from server.inference.request import Images, InferenceResponse, Texts

Asked = api.PredictRequest | api.ClassifyRequest | api.EmbedRequest
Answer = TypeVar("Answer", api.PredictResponse, api.ClassifyResponse, api.EmbedResponse)
Write = Callable[[InferenceResponse], Answer]
Named = Mapping[str, pb.Tensor]


def read_content(request: api.ClassifyRequest | api.EmbedRequest | api.AttendRequest) -> Texts | Images:
    """Read the image or text of a request.

    Raises:
        InvalidInput: There is neither, or a prompt without a text.
    """
    kind = request.WhichOneof("input")
    prompt = "" if isinstance(request, api.ClassifyRequest) else read_prompt(request)
    if kind == "text":
        return Texts((request.text,), request.truncate, prompt)
    if kind == "image":
        return Images((request.image,))
    raise InvalidInput("input", "neither image nor text", "one of them")


def read_prompt(request: api.EmbedRequest | api.AttendRequest) -> str:
    """Read the name of a prompt.

    Raises:
        InvalidInput: It is none beside a text.
    """
    if request.prompt and request.WhichOneof("input") != "text":
        raise InvalidInput("prompt", repr(request.prompt), "none, as there is no text to put it before")
    return request.prompt


def write_outputs(found: InferenceResponse) -> api.PredictResponse:
    """Answer Predict."""
    message = api.PredictResponse(model=found.model.name, version=found.model.version)
    for name, array in found.outputs.items():
        write_tensor(array, message.outputs[name])
    return _with_attention(found, message)


def write_labels(found: InferenceResponse, count: int) -> api.ClassifyResponse:
    """Answer Classify with so many labels."""
    model = found.model
    message = api.ClassifyResponse(
        model=model.name,
        version=model.version,
        labels=top_labels(found.outputs["logits"][0], model.contract.labels, count),
        truncated=found.prepared.truncated,
    )
    return _with_attention(found, message)


def write_vector(found: InferenceResponse) -> api.EmbedResponse:
    """Answer Embed with the one output that was asked for."""
    model = found.model
    message = api.EmbedResponse(model=model.name, version=model.version, truncated=found.prepared.truncated)
    (vectors,) = found.outputs.values()
    write_tensor(vectors[0], message.vector)
    return _with_attention(found, message)


def write_layers_of(found: InferenceResponse, add: Callable[[], pb.LayerAttention]) -> Iterator[pb.LayerAttention]:
    """Write what was asked for of the attention, each layer when it is wanted; see write_layers."""
    return write_layers(found.plan, found.attention(), add, batched=found.is_batched) if found.plan else iter(())


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


def _with_attention(found: InferenceResponse, message: Answer) -> Answer:
    """Write what was asked for of the attention into an answer, with what its positions stand for."""
    if found.plan is not None:
        message.attention.CopyFrom(describe_positions(found))
        for _ in write_layers_of(found, message.attention.layers.add):
            pass
    return message
