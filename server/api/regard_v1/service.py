"""The methods of regard.v1: turns requests into calls of the pipeline, and errors into gRPC's codes."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from artifact.images import Pixels
from artifact.text import Tokens
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceServicer
from server.api.handler import Calls, Context
from server.api.regard_v1.describe import describe_model, describe_patches, describe_tokens
from server.api.regard_v1.tensors import write_tensor
from server.attention.reduce import write_attention
from server.config import Config
from server.errors import InvalidInput, NotPossible
from server.inference.pipeline import Outcome, Pipeline, Urgency
from server.inference.preprocess import Prepared, choose_outputs, prepare_image, prepare_tensors, prepare_text
from server.repository.catalog import Repository
from server.repository.loading import LoadedModel
from server.scheduling.scheduler import DEFAULT_PRIORITY, LAST_PRIORITY

_DEFAULT_TOP_K = 5
_PREPARE_HERE_BYTES = 4 * 2**10

Request = api.PredictRequest | api.ClassifyRequest | api.EmbedRequest | api.AttendRequest
Response = TypeVar("Response", api.PredictResponse, api.ClassifyResponse, api.EmbedResponse)


class RegardService(RegardServiceServicer):
    """Outputs for everyone, attention for whoever asks."""

    def __init__(self, config: Config, repository: Repository, pipeline: Pipeline, calls: Calls, device: str) -> None:
        self._config = config
        self._repository = repository
        self._pipeline = pipeline
        self._calls = calls
        self._device = device

    async def Predict(self, request: api.PredictRequest, context: Context) -> api.PredictResponse:  # noqa: N802
        """Run a model on the caller's tensors."""
        return await self._calls.answer("Predict", request.model, context, lambda: self._predict(request, context))

    async def Classify(self, request: api.ClassifyRequest, context: Context) -> api.ClassifyResponse:  # noqa: N802
        """Name what an image or a text is."""
        return await self._calls.answer("Classify", request.model, context, lambda: self._classify(request, context))

    async def Embed(self, request: api.EmbedRequest, context: Context) -> api.EmbedResponse:  # noqa: N802
        """Turn an image or a text into a vector."""
        return await self._calls.answer("Embed", request.model, context, lambda: self._embed(request, context))

    async def Attend(self, request: api.AttendRequest, context: Context) -> None:  # noqa: N802
        """Show what a model looks at, one layer a message."""
        await self._calls.answer("Attend", request.model, context, lambda: self._attend(request, context))

    async def ListModels(self, request: api.ListModelsRequest, context: Context) -> api.ListModelsResponse:  # noqa: N802
        """Describe all models."""
        return await self._calls.answer("ListModels", "", context, self._list_models)

    async def GetModel(self, request: api.GetModelRequest, context: Context) -> api.GetModelResponse:  # noqa: N802
        """Describe one model."""
        return await self._calls.answer("GetModel", request.model, context, lambda: self._get_model(request))

    async def LoadModel(self, request: api.LoadModelRequest, context: Context) -> api.LoadModelResponse:  # noqa: N802
        """Serve a model as its folder now is."""
        return await self._calls.answer("LoadModel", request.model, context, lambda: self._load_model(request))

    async def UnloadModel(  # noqa: N802
        self, request: api.UnloadModelRequest, context: Context
    ) -> api.UnloadModelResponse:
        """Stop serving a model."""
        return await self._calls.answer("UnloadModel", request.model, context, lambda: self._unload_model(request))

    async def _predict(self, request: api.PredictRequest, context: Context) -> api.PredictResponse:
        model = await self._repository.acquire(request.model, request.version)
        outputs = choose_outputs(model, tuple(request.outputs))
        max_rows = self._config.max_batch_size

        def encode(outcome: Outcome) -> api.PredictResponse:
            response = api.PredictResponse(model=model.name, version=model.version)
            for name, array in outcome.outputs.items():
                write_tensor(array, response.outputs[name])
            _write_attention(model, outcome, response)
            return response

        def prepare() -> Prepared:
            return prepare_tensors(model, request.inputs, max_rows)

        return await self._run(model, request, prepare, outputs, encode, context)

    async def _classify(self, request: api.ClassifyRequest, context: Context) -> api.ClassifyResponse:
        model = await self._repository.acquire(request.model, request.version)
        if not model.contract.labels:
            raise NotPossible(f"model: {model.name} has no classes; expected a model with can_classify")
        if request.top_k < 0:
            raise InvalidInput("top_k", request.top_k, "0 for the default, or a positive number")
        names, count = model.contract.labels, request.top_k or _DEFAULT_TOP_K

        def encode(outcome: Outcome) -> api.ClassifyResponse:
            response = api.ClassifyResponse(
                model=model.name,
                version=model.version,
                labels=top_labels(outcome.outputs["logits"][0], names, count),
                truncated=outcome.prepared.truncated,
            )
            _write_attention(model, outcome, response)
            return response

        return await self._run(model, request, self._content(model, request), ("logits",), encode, context)

    async def _embed(self, request: api.EmbedRequest, context: Context) -> api.EmbedResponse:
        model = await self._repository.acquire(request.model, request.version)
        embedding = model.contract.embedding
        if embedding is None:
            raise NotPossible(f"model: {model.name} gives no embedding; expected a model with can_embed")
        output = embedding.output

        def encode(outcome: Outcome) -> api.EmbedResponse:
            response = api.EmbedResponse(model=model.name, version=model.version, truncated=outcome.prepared.truncated)
            write_tensor(outcome.outputs[output][0], response.vector)
            _write_attention(model, outcome, response)
            return response

        return await self._run(model, request, self._content(model, request), (output,), encode, context)

    async def _attend(self, request: api.AttendRequest, context: Context) -> None:
        model = await self._repository.acquire(request.model, request.version)
        tensors, max_rows = request.tensors.tensors, self._config.max_batch_size
        prepare = (
            (lambda: prepare_tensors(model, tensors, max_rows))
            if request.WhichOneof("input") == "tensors"
            else self._content(model, request)
        )
        urgency = read_urgency(request, context.time_remaining(), time.monotonic())
        here = not _has_image(request) and request.ByteSize() <= _PREPARE_HERE_BYTES
        answer = await self._pipeline.run(
            model, prepare, (), _keep, request.attention, urgency, here=here, layer_by_layer=True
        )
        outcome = answer.result
        response = api.AttendResponse(
            model=model.name,
            version=model.version,
            attention=_describe_positions(model, outcome),
            truncated=outcome.prepared.truncated,
            timings=answer.timings,
        )
        async for _ in self._pipeline.encode_layers(outcome, lambda: response.attention.layers.add()):
            await context.write(response)
            response.Clear()
            response.model, response.version = model.name, model.version

    async def _list_models(self) -> api.ListModelsResponse:
        versions = [
            api.VersionState(model=entry.name, version=str(entry.version), state=entry.state, reason=entry.reason)
            for entry in self._repository.index()
        ]
        served = [self._describe(model) for model in self._repository.all()]
        return api.ListModelsResponse(models=served, versions=versions)

    async def _get_model(self, request: api.GetModelRequest) -> api.GetModelResponse:
        return api.GetModelResponse(
            model=self._describe(await self._repository.acquire(request.model, request.version))
        )

    async def _load_model(self, request: api.LoadModelRequest) -> api.LoadModelResponse:
        await self._repository.load(request.model)
        return api.LoadModelResponse(model=self._describe(self._repository.find(request.model, "")))

    async def _unload_model(self, request: api.UnloadModelRequest) -> api.UnloadModelResponse:
        await self._repository.unload(request.model)
        return api.UnloadModelResponse()

    def _describe(self, model: LoadedModel) -> pb.Model:
        return describe_model(model, self._config.max_batch_size, self._device)

    def _content(
        self, model: LoadedModel, request: api.ClassifyRequest | api.EmbedRequest | api.AttendRequest
    ) -> Callable[[], Prepared]:
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
        request: Request,
        prepare: Callable[[], Prepared],
        outputs: tuple[str, ...],
        encode: Callable[[Outcome], Response],
        context: Context,
    ) -> Response:
        attention = request.attention if request.HasField("attention") else None
        here = not _has_image(request) and request.ByteSize() <= _PREPARE_HERE_BYTES
        urgency = read_urgency(request, context.time_remaining(), time.monotonic())
        answer = await self._pipeline.run(model, prepare, outputs, encode, attention, urgency, here=here)
        answer.result.timings.CopyFrom(answer.timings)
        return answer.result


def _keep(outcome: Outcome) -> Outcome:
    return outcome


def _has_image(request: Request) -> bool:
    return not isinstance(request, api.PredictRequest) and request.WhichOneof("input") == "image"


def read_urgency(request: Request, remaining: float | None, now: float) -> Urgency:
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


def _write_attention(model: LoadedModel, outcome: Outcome, response: Response) -> None:
    """Write what was asked for of the attention into an answer, with what its positions stand for."""
    if outcome.plan is None:
        return
    response.attention.CopyFrom(_describe_positions(model, outcome))
    batched, add = outcome.prepared.source is None, response.attention.layers.add
    for _ in write_attention(outcome.plan, outcome.attentions, add, batched=batched):
        pass


def _describe_positions(model: LoadedModel, outcome: Outcome) -> pb.Attention:
    """Say what the positions stand for; nothing where the caller made the inputs."""
    source, message = outcome.prepared.source, pb.Attention()
    if isinstance(source, Tokens):
        message.tokens.CopyFrom(describe_tokens(source))
    elif isinstance(source, Pixels) and model.contract.patches:
        message.patches.CopyFrom(describe_patches(model.contract.patches, source))
    return message


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
