"""The methods of inference.GRPCInferenceService: translates; what computes is the pipeline, as for regard.v1."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from server.api.handler import Calls
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.cuda_memory import CudaRegion, CudaRuntime
from server.api.open_inference.describe import describe_config, describe_metadata, describe_statistics
from server.api.open_inference.log_settings import change_log_settings, read_log_settings
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from server.api.open_inference.parameters import ATTENTION_PREFIX, check_names, read_attention, read_flag, read_urgency
from server.api.open_inference.shared_memory import SharedMemory, SystemRegion, read_place
from server.api.open_inference.tensors import DATATYPE_OF, decode_strings, read_places, read_tensors, write_tensor
from server.attention.reduce import reduce_attention
from server.config import Config
from server.errors import MALFORMED, InvalidInput, ServerError, Unimplemented
from server.inference.pipeline import Outcome, Pipeline
from server.inference.preprocess import Prepared, choose_outputs, prepare_arrays, prepare_images, prepare_texts
from server.repository.catalog import Repository, State
from server.repository.loading import LoadedModel
from server.telemetry.counts import Statistics

_log = logging.getLogger(__name__)

_EXTENSIONS = (
    "model_configuration", "model_repository", "statistics", "parameters", "system_shared_memory",
    "cuda_shared_memory", "logging", "trace", "binary_tensor_data",
)  # fmt: skip
_PREPARE_HERE_BYTES = 4 * 2**10
_MOST_IN_A_STREAM = 256
_TRACE = {"trace_level": ["OFF"], "trace_rate": ["1000"], "trace_count": ["-1"], "log_frequency": ["0"]}

Array = NDArray[Any]
Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService(GRPCInferenceServiceServicer):
    """Standard inference clients."""

    def __init__(
        self,
        config: Config,
        repository: Repository,
        pipeline: Pipeline,
        calls: Calls,
        statistics: Statistics,
        *,
        on_cpu: bool,
    ) -> None:
        self._config = config
        self._repository = repository
        self._pipeline = pipeline
        self._calls = calls
        self._statistics = statistics
        self._on_cpu = on_cpu
        self._memory = SharedMemory(config.max_message_bytes)

    def close(self) -> None:
        """Close the regions of shared memory."""
        self._memory.unregister()

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        """Say that the process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:  # noqa: N802
        """Say whether requests are taken."""
        return pb.ServerReadyResponse(ready=not self._calls.refusing)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        """Say whether a model is served."""
        try:
            self._repository.find(request.name, request.version)
        except ServerError:
            known = self._repository.is_asleep(request.name)
        else:
            known = True
        return pb.ModelReadyResponse(ready=known and not self._calls.refusing)

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Say what this server is."""
        return pb.ServerMetadataResponse(name="regard", version=version("regard"), extensions=_EXTENSIONS)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Describe a model's inputs and outputs."""

        async def handle() -> pb.ModelMetadataResponse:
            model = await self._repository.acquire(request.name, request.version)
            return describe_metadata(model, self._repository.versions_of(model.name))

        return await self._calls.answer("ModelMetadata", request.name, context, handle)

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:  # noqa: N802
        """Describe how a model is run."""

        async def handle() -> pb.ModelConfigResponse:
            model = await self._repository.acquire(request.name, request.version)
            return pb.ModelConfigResponse(config=describe_config(model, self._config))

        return await self._calls.answer("ModelConfig", request.name, context, handle)

    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Say what was counted since the start."""

        async def handle() -> pb.ModelStatisticsResponse:
            models = self._repository.all()
            if request.name or request.version:
                found = self._repository.find(request.name, request.version)
                models = [one for one in models if one.name == found.name]
                models = [found] if request.version else models
            return describe_statistics(models, self._statistics)

        return await self._calls.answer("ModelStatistics", request.name, context, handle)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        """Run a model."""
        handle = lambda: self._infer(request, context.time_remaining())  # noqa: E731
        return await self._calls.answer("ModelInfer", request.model_name, context, handle)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[pb.ModelInferRequest | None], context: Context
    ) -> None:
        """Run requests as they come; each is answered when it is ready, and an error is its own alone."""
        room, writing = asyncio.Semaphore(_MOST_IN_A_STREAM), asyncio.Lock()

        async def answer(request: pb.ModelInferRequest | None) -> None:
            try:
                response = await self._answer_in_stream(request, context)
                async with writing:
                    await context.write(response)
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            async for request in requests:
                await room.acquire()
                group.create_task(answer(request))

    async def _answer_in_stream(
        self, request: pb.ModelInferRequest | None, context: Context
    ) -> pb.ModelStreamInferResponse:
        if request is None:
            return pb.ModelStreamInferResponse(error_message=MALFORMED[1])
        handle = lambda: self._infer(request, context.time_remaining())  # noqa: E731
        try:
            response = await self._calls.run("ModelStreamInfer", request.model_name, context, handle)
        except ServerError as error:
            known = pb.ModelInferResponse(
                id=request.id, model_name=request.model_name, model_version=request.model_version
            )
            error.with_traceback(None)  # whose frames hold the request, and this error
            return pb.ModelStreamInferResponse(error_message=str(error), infer_response=known)
        if response.ByteSize() > self._config.max_message_bytes * 15 // 16:
            message = f"an answer of {response.ByteSize()} bytes is too large (the server's --max-message-bytes)"
            return pb.ModelStreamInferResponse(
                error_message=message, infer_response=pb.ModelInferResponse(id=request.id)
            )
        response.parameters["triton_final_response"].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)

    async def _infer(self, request: pb.ModelInferRequest, remaining: float | None) -> pb.ModelInferResponse:
        try:
            response = await self._compute(request, remaining)
        except ServerError as error:
            level = logging.INFO if request.id else logging.DEBUG  # who gives an id wants to find it again
            _log.log(level, "request %.99r of %.99r: %s: %s", request.id, request.model_name, error.code.name, error)
            raise
        _log.debug("request %r of %r: OK", request.id, request.model_name)
        return response

    async def _compute(self, request: pb.ModelInferRequest, remaining: float | None) -> pb.ModelInferResponse:
        urgency = read_urgency(request.parameters, remaining, time.monotonic())
        check_names(request.parameters)
        model = await self._repository.acquire(request.model_name, request.model_version)
        places = read_places(request.outputs)
        attention = read_attention(request.parameters, list(places))
        named = [name for name in places if name.startswith(ATTENTION_PREFIX)]
        ordinary = tuple(name for name in places if not name.startswith(ATTENTION_PREFIX))
        outputs = () if named and not ordinary else choose_outputs(model, ordinary)

        def encode(outcome: Outcome) -> pb.ModelInferResponse:
            response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
            arrays = {name: outcome.outputs[name] for name in outputs} | _name_attention(outcome, named)
            for name in dict.fromkeys((*places, *arrays)):  # attention asked for by parameters comes last
                write_tensor(response, name, arrays[name], places.get(name), self._memory)
            return response

        here = _decoding_bytes(request) <= _PREPARE_HERE_BYTES
        answer = await self._pipeline.run(
            model, lambda: self._prepare(model, request), outputs, encode, attention, urgency, here=here
        )
        return answer.result

    def _prepare(self, model: LoadedModel, request: pb.ModelInferRequest) -> Prepared:
        """Read the inputs: a model's own tensors, or text or images as BYTES where its contract says how."""
        arrays = read_tensors(request, self._memory)
        name, only = next(iter(arrays.items()), ("", np.empty(0)))
        takes = "text" if model.contract.text else "image" if model.contract.image else ""
        if len(arrays) == 1 and name == takes and only.dtype.kind == "O":
            contents: list[Any] = only.reshape(-1).tolist()  # of bytes
            if not 1 <= len(contents) <= self._config.max_batch_size:
                expected = f"1 to {self._config.max_batch_size} (the server's --max-batch-size)"
                raise InvalidInput(f"inputs[{name}]", f"{len(contents)} elements", expected)
            if takes == "image":
                return prepare_images(model, contents, max_pixels=self._config.max_image_pixels)
            truncate = read_flag(request.parameters, "truncate")
            return prepare_texts(model, contents, truncate=truncate, max_bytes=self._config.max_text_bytes)
        strings = {spec.name for spec in model.contract.inputs if spec.dtype == "string"}
        arrays |= {
            key: decode_strings(key, arrays[key]) for key in strings & arrays.keys() if arrays[key].dtype == object
        }
        return prepare_arrays(model, arrays, self._config.max_batch_size, DATATYPE_OF)

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """List what is in the models folder."""

        async def handle() -> pb.RepositoryIndexResponse:
            _check_repository(request.repository_name)
            response = pb.RepositoryIndexResponse()
            for entry in self._repository.index():
                if entry.state == State.READY or not request.ready:
                    response.models.add(
                        name=entry.name, version=str(entry.version), state=entry.state, reason=entry.reason
                    )
            return response

        return await self._calls.answer("RepositoryIndex", "", context, handle)

    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Load or reload a model."""

        async def handle() -> pb.RepositoryModelLoadResponse:
            _check_repository(request.repository_name)
            for name in request.parameters:
                raise InvalidInput("parameters", repr(name), "none: a model's settings are its config.toml")
            await self._repository.load(request.model_name)
            return pb.RepositoryModelLoadResponse()

        return await self._calls.answer("RepositoryModelLoad", request.model_name, context, handle)

    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model."""

        async def handle() -> pb.RepositoryModelUnloadResponse:
            _check_repository(request.repository_name)
            for name in request.parameters:
                if name != "unload_dependents":  # there are none
                    raise InvalidInput("parameters", repr(name), "unload_dependents, or none")
            await self._repository.unload(request.model_name)
            return pb.RepositoryModelUnloadResponse()

        return await self._calls.answer("RepositoryModelUnload", request.model_name, context, handle)

    async def SystemSharedMemoryStatus(  # noqa: N802
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        """List the registered regions."""

        async def handle() -> pb.SystemSharedMemoryStatusResponse:
            response = pb.SystemSharedMemoryStatusResponse()
            for name, region in self._memory.regions(SystemRegion, request.name).items():
                status = response.regions[name]
                status.name, status.key = name, region.key
                status.offset, status.byte_size = region.offset, region.byte_size
            return response

        return await self._calls.answer("SystemSharedMemoryStatus", "", context, handle)

    async def SystemSharedMemoryRegister(  # noqa: N802
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Register a region."""

        async def handle() -> pb.SystemSharedMemoryRegisterResponse:
            key, offset, size = request.key, request.offset, request.byte_size
            self._memory.register(request.name, size, lambda: SystemRegion.open(key, offset, size))
            return pb.SystemSharedMemoryRegisterResponse()

        return await self._calls.answer("SystemSharedMemoryRegister", "", context, handle)

    async def SystemSharedMemoryUnregister(  # noqa: N802
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget a region, or all."""

        async def handle() -> pb.SystemSharedMemoryUnregisterResponse:
            self._memory.unregister(SystemRegion, request.name)
            return pb.SystemSharedMemoryUnregisterResponse()

        return await self._calls.answer("SystemSharedMemoryUnregister", "", context, handle)

    async def CudaSharedMemoryStatus(  # noqa: N802
        self, request: pb.CudaSharedMemoryStatusRequest, context: Context
    ) -> pb.CudaSharedMemoryStatusResponse:
        """List the registered regions of GPU memory."""

        async def handle() -> pb.CudaSharedMemoryStatusResponse:
            response = pb.CudaSharedMemoryStatusResponse()
            for name, region in self._memory.regions(CudaRegion, request.name).items():
                status = response.regions[name]
                status.name, status.device_id, status.byte_size = name, region.device_id, region.byte_size
            return response

        return await self._calls.answer("CudaSharedMemoryStatus", "", context, handle)

    async def CudaSharedMemoryRegister(  # noqa: N802
        self, request: pb.CudaSharedMemoryRegisterRequest, context: Context
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Register a region of GPU memory, where the server runs on a GPU."""

        async def handle() -> pb.CudaSharedMemoryRegisterResponse:
            if self._on_cpu:
                raise Unimplemented("this server has no CUDA device; use system shared memory or raw contents")
            handle, device_id, size = request.raw_handle, request.device_id, request.byte_size
            runtime = CudaRuntime()
            self._memory.register(request.name, size, lambda: CudaRegion.open(handle, device_id, size, runtime))
            return pb.CudaSharedMemoryRegisterResponse()

        return await self._calls.answer("CudaSharedMemoryRegister", "", context, handle)

    async def CudaSharedMemoryUnregister(  # noqa: N802
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Forget a region of GPU memory, or all."""

        async def handle() -> pb.CudaSharedMemoryUnregisterResponse:
            self._memory.unregister(CudaRegion, request.name)
            return pb.CudaSharedMemoryUnregisterResponse()

        return await self._calls.answer("CudaSharedMemoryUnregister", "", context, handle)

    async def TraceSetting(self, request: pb.TraceSettingRequest, context: Context) -> pb.TraceSettingResponse:  # noqa: N802
        """Say that nothing is traced."""

        async def handle() -> pb.TraceSettingResponse:
            for name, setting in request.settings.items():
                if list(setting.value) not in ([], _TRACE.get(name)):
                    raise Unimplemented(f"settings[{name}]: traces are not offered; expected {_TRACE.get(name, [])}")
            settings = {name: pb.TraceSettingResponse.SettingValue(value=value) for name, value in _TRACE.items()}
            return pb.TraceSettingResponse(settings=settings)

        return await self._calls.answer("TraceSetting", "", context, handle)

    async def LogSettings(self, request: pb.LogSettingsRequest, context: Context) -> pb.LogSettingsResponse:  # noqa: N802
        """Read and change what is logged."""

        async def handle() -> pb.LogSettingsResponse:
            change_log_settings(request.settings)
            return pb.LogSettingsResponse(settings=read_log_settings())

        return await self._calls.answer("LogSettings", "", context, handle)


def _name_attention(outcome: Outcome, named: Sequence[str]) -> dict[str, Array]:
    """Cut out and reduce what was asked for of each layer, under the names asked for, else attention.LAYER.

    A rollout is attention.rollout. With top_k there is NAME.indices beside each, INT32, and for UINT8 NAME.scale, FP32
    [1].
    """
    if outcome.plan is None:
        return {}
    indices = ["rollout"] if outcome.plan.is_rollout else outcome.plan.indices
    names = named or [f"{ATTENTION_PREFIX}{index}" for index in indices]
    arrays = dict[str, Array]()
    for name, reduced in zip(names, reduce_attention(outcome.plan, outcome.attentions), strict=True):
        arrays[name] = reduced.values
        if reduced.indices is not None:
            arrays[f"{name}.indices"] = reduced.indices
        if reduced.scale:
            arrays[f"{name}.scale"] = np.asarray([reduced.scale], dtype=np.float32)
    return arrays


def _decoding_bytes(request: pb.ModelInferRequest) -> float:
    """How much there is to read, in shared memory as well; pictures take long whatever their size."""
    if any(tensor.name == "image" for tensor in request.inputs):
        return math.inf
    places = (read_place(f"inputs[{tensor.name}]", tensor.parameters) for tensor in request.inputs)
    return request.ByteSize() + sum(place.byte_size for place in places if place is not None)


def _check_repository(name: str) -> None:
    if name:
        raise InvalidInput("repository_name", repr(name), "empty: there is one repository")
