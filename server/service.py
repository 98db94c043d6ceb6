"""The methods of regard.v1: turns requests into calls of the pipeline, and errors into gRPC's codes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceServicer
from server.config import Config
from server.describe import describe_model
from server.errors import InternalFault, InvalidInput, NotPossible, ServerError, ShuttingDown, TooBusy
from server.metrics import Metrics
from server.pipeline import (
    Answer,
    Pipeline,
    Prepared,
    Urgency,
    choose_outputs,
    prepare_image,
    prepare_tensors,
    prepare_text,
)
from server.repository import LoadedModel, Repository
from server.scheduler import DEFAULT_PRIORITY, LAST_PRIORITY
from server.tensors import write_tensor

_log = logging.getLogger(__name__)
_DEFAULT_TOP_K = 5
_PREPARE_HERE_BYTES = 4 * 2**10

Context = grpc.aio.ServicerContext[Any, Any]
Array = NDArray[Any]
Response = TypeVar("Response")
Result = TypeVar("Result")


class RegardService(RegardServiceServicer):
    """Outputs for everyone, attention for whoever asks."""

    def __init__(
        self, config: Config, repository: Repository, pipeline: Pipeline, metrics: Metrics, device: str
    ) -> None:
        self._config = config
        self._repository = repository
        self._pipeline = pipeline
        self._metrics = metrics
        self._device = device
        self._refusing = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def refuse(self) -> None:
        """Answer every request that comes from now on UNAVAILABLE."""
        self._refusing = True

    async def wait_idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()

    async def Predict(self, request: api.PredictRequest, context: Context) -> api.PredictResponse:  # noqa: N802
        """Run a model on the caller's tensors."""
        return await self._answer("Predict", request, context, self._predict)

    async def Classify(self, request: api.ClassifyRequest, context: Context) -> api.ClassifyResponse:  # noqa: N802
        """Name what an image or a text is."""
        return await self._answer("Classify", request, context, self._classify)

    async def Embed(self, request: api.EmbedRequest, context: Context) -> api.EmbedResponse:  # noqa: N802
        """Turn an image or a text into a vector."""
        return await self._answer("Embed", request, context, self._embed)

    async def ListModels(self, request: api.ListModelsRequest, context: Context) -> api.ListModelsResponse:  # noqa: N802
        """Describe all models."""
        return await self._answer("ListModels", request, context, self._list_models)

    async def GetModel(self, request: api.GetModelRequest, context: Context) -> api.GetModelResponse:  # noqa: N802
        """Describe one model."""
        return await self._answer("GetModel", request, context, self._get_model)

    def _admit(self) -> None:
        """Refuse at the door; requests that are being decoded count as waiting, since they hold memory too."""
        if self._refusing:
            raise ShuttingDown("the server is stopping")
        most = self._config.max_queue_size + self._config.max_batch_size
        if self._in_flight > most:
            message = f"the server is full: {most} requests are in it (--max-queue-size); retry later"
            raise TooBusy(message, self._pipeline.suggest_retry())

    async def _answer(
        self,
        method: str,
        request: Any,
        context: Context,
        handle: Callable[[Any, Context], Awaitable[Response]],
    ) -> Response:
        """Count a request, and turn what it raises into a code and a message."""
        code, error = grpc.StatusCode.OK, None
        self._metrics.received.labels(method).inc()
        self._in_flight += 1
        self._idle.clear()
        try:
            self._admit()
            return await handle(request, context)
        except ServerError as raised:
            code, error = raised.code, raised.with_traceback(None)  # whose frames hold the request, and this error
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            _log.exception("%s failed", method)
            error = InternalFault()
            code = error.code
        finally:
            self._metrics.requests.labels(method, self._label(request), code.name).inc()
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        await context.abort(code, str(error), error.trailers if error else ())
        raise AssertionError("abort always raises")

    def _label(self, request: Any) -> str:
        """Name the model for metrics; what callers invent does not become a label."""
        try:
            return self._repository.find(request.model, request.version).name
        except (AttributeError, ServerError):
            return ""

    async def _predict(self, request: api.PredictRequest, context: Context) -> api.PredictResponse:
        model = self._repository.find(request.model, request.version)
        outputs = choose_outputs(model, tuple(request.outputs))
        max_rows = self._config.max_batch_size
        answer = await self._run(
            model, request, lambda: prepare_tensors(model, request.inputs, max_rows), outputs, _write_tensors, context
        )
        return api.PredictResponse(
            model=model.name,
            version=str(model.contract.version),
            outputs=answer.result,
            attention=answer.attention,
            timings=answer.timings,
        )

    async def _classify(self, request: api.ClassifyRequest, context: Context) -> api.ClassifyResponse:
        model = self._repository.find(request.model, request.version)
        if not model.contract.labels:
            raise NotPossible(f"model: {model.name} has no classes; expected a model with can_classify")
        if request.top_k < 0:
            raise InvalidInput("top_k", request.top_k, "0 for the default, or a positive number")
        names, count = model.contract.labels, request.top_k or _DEFAULT_TOP_K

        def encode(outputs: Mapping[str, Array]) -> list[api.Label]:
            return top_labels(outputs["logits"][0], names, count)

        answer = await self._run(model, request, self._content(model, request), ("logits",), encode, context)
        return api.ClassifyResponse(
            model=model.name,
            version=str(model.contract.version),
            labels=answer.result,
            truncated=answer.truncated,
            attention=answer.attention,
            timings=answer.timings,
        )

    async def _embed(self, request: api.EmbedRequest, context: Context) -> api.EmbedResponse:
        model = self._repository.find(request.model, request.version)
        embedding = model.contract.embedding
        if embedding is None:
            raise NotPossible(f"model: {model.name} gives no embedding; expected a model with can_embed")
        output = embedding.output

        def encode(outputs: Mapping[str, Array]) -> pb.Tensor:
            return write_tensor(outputs[output][0])

        answer = await self._run(model, request, self._content(model, request), (output,), encode, context)
        return api.EmbedResponse(
            model=model.name,
            version=str(model.contract.version),
            vector=answer.result,
            truncated=answer.truncated,
            attention=answer.attention,
            timings=answer.timings,
        )

    async def _list_models(self, request: api.ListModelsRequest, context: Context) -> api.ListModelsResponse:
        del request, context
        return api.ListModelsResponse(models=[self._describe(model) for model in self._repository.all()])

    async def _get_model(self, request: api.GetModelRequest, context: Context) -> api.GetModelResponse:
        del context
        return api.GetModelResponse(model=self._describe(self._repository.find(request.model, request.version)))

    def _describe(self, model: LoadedModel) -> pb.Model:
        return describe_model(model, self._config.max_batch_size, self._device)

    def _content(self, model: LoadedModel, request: api.ClassifyRequest | api.EmbedRequest) -> Callable[[], Prepared]:
        """Choose how the image or text of a request is prepared."""
        kind = request.WhichOneof("input")
        if kind == "text":
            max_bytes = self._config.max_text_bytes
            return lambda: prepare_text(model, request.text, truncate=request.truncate, max_bytes=max_bytes)
        if kind == "image":
            return lambda: prepare_image(model, request.image, max_pixels=self._config.max_image_pixels)
        raise InvalidInput("input", "neither image nor text", "one of them")

    async def _run(
        self,
        model: LoadedModel,
        request: api.PredictRequest | api.ClassifyRequest | api.EmbedRequest,
        prepare: Callable[[], Prepared],
        outputs: tuple[str, ...],
        encode: Callable[[Mapping[str, Array]], Result],
        context: Context,
    ) -> Answer[Result]:
        attention = request.attention if request.HasField("attention") else None
        here = not _has_image(request) and request.ByteSize() <= _PREPARE_HERE_BYTES
        urgency = read_urgency(request, context.time_remaining(), time.monotonic())
        return await self._pipeline.run(model, prepare, outputs, encode, attention, urgency, here=here)


def _has_image(request: api.PredictRequest | api.ClassifyRequest | api.EmbedRequest) -> bool:
    return not isinstance(request, api.PredictRequest) and request.WhichOneof("input") == "image"


def read_urgency(
    request: api.PredictRequest | api.ClassifyRequest | api.EmbedRequest, remaining: float | None, now: float
) -> Urgency:
    """Combine a request's own priority and timeout with gRPC's deadline.

    Args:
        request: As it came.
        remaining: Seconds until gRPC's deadline; None where there is none.
        now: On time.monotonic(), in seconds.

    Raises:
        InvalidInput: There is no such priority.
    """
    if request.priority > LAST_PRIORITY:
        raise InvalidInput("priority", request.priority, f"1 (first) to {LAST_PRIORITY} (last), or 0 for the default")
    limits = [seconds for seconds in (remaining, request.timeout_ms / 1e3 or None) if seconds is not None]
    return Urgency(now + min(limits) if limits else None, request.priority or DEFAULT_PRIORITY)


def _write_tensors(outputs: Mapping[str, Array]) -> dict[str, pb.Tensor]:
    return {name: write_tensor(array) for name, array in outputs.items()}


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
