"""What the protocol tells of the server and its models, and how models are managed."""

from artifact.installed import installed_version
from server.api.handler import rpc
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.describe import describe_config, describe_metadata
from server.api.open_inference.log_settings import change_log_settings, read_log_settings
from server.api.open_inference.parts import Parts
from server.api.open_inference.statistics import describe_statistics
from server.api.servicer import Servicer
from server.context import RpcContext
from server.errors import InvalidInput, ServerError, Unimplemented
from server.repository.catalog import State

_EXTENSIONS = (
    "model_configuration", "model_repository", "statistics", "parameters", "system_shared_memory",
    "cuda_shared_memory", "logging", "trace", "binary_tensor_data",
)  # fmt: skip
_TRACE = {"trace_level": ["OFF"], "trace_rate": ["1000"], "trace_count": ["-1"], "log_frequency": ["0"]}


class Management(Parts):
    """Describes and manages."""

    async def ServerLive(self, request: pb.ServerLiveRequest, servicer: Servicer) -> pb.ServerLiveResponse:  # noqa: N802
        """Say that the process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, servicer: Servicer) -> pb.ServerReadyResponse:  # noqa: N802
        """Say whether requests are taken."""
        return pb.ServerReadyResponse(ready=not self.rpcs.refusing)

    async def ModelReady(self, request: pb.ModelReadyRequest, servicer: Servicer) -> pb.ModelReadyResponse:  # noqa: N802
        """Say whether a model is served."""
        try:
            self.repository.find(request.name, request.version)
        except ServerError:
            known = self.repository.is_unloaded_idle(request.name)
        else:
            known = True
        return pb.ModelReadyResponse(ready=known and not self.rpcs.refusing)

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, servicer: Servicer
    ) -> pb.ServerMetadataResponse:
        """Say what this server is."""
        return pb.ServerMetadataResponse(name="regard", version=installed_version(), extensions=_EXTENSIONS)

    @rpc("name")
    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: RpcContext
    ) -> pb.ModelMetadataResponse:
        """Describe a model's inputs and outputs."""
        model = await self.repository.acquire(request.name, request.version)
        return describe_metadata(model, self.repository.versions_of(model.name))

    @rpc("name")
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: RpcContext) -> pb.ModelConfigResponse:  # noqa: N802
        """Describe how a model is run."""
        model = await self.repository.acquire(request.name, request.version)
        return pb.ModelConfigResponse(config=describe_config(model, self.config))

    @rpc("name")
    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: RpcContext
    ) -> pb.ModelStatisticsResponse:
        """Say what was counted since the start."""
        models = self.repository.all()
        if request.name or request.version:
            found = self.repository.find(request.name, request.version)
            models = [found] if request.version else [one for one in models if one.name == found.name]
        return describe_statistics(models, self.counts)

    @rpc()
    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: RpcContext
    ) -> pb.RepositoryIndexResponse:
        """List what is in the models folder."""
        _check_repository(request.repository_name)
        response = pb.RepositoryIndexResponse()
        for entry in await self.repository.index():
            if entry.state == State.READY or not request.ready:
                response.models.add(name=entry.name, version=str(entry.version), state=entry.state, reason=entry.reason)
        return response

    @rpc("model_name")
    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, context: RpcContext
    ) -> pb.RepositoryModelLoadResponse:
        """Load or reload a model."""
        _check_repository(request.repository_name)
        for name in request.parameters:
            raise InvalidInput("parameters", repr(name), "none: a model's settings are its config.toml")
        await self.repository.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    @rpc("model_name")
    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, context: RpcContext
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model."""
        _check_repository(request.repository_name)
        for name in request.parameters:
            if name != "unload_dependents":  # there are none
                raise InvalidInput("parameters", repr(name), "unload_dependents, or none")
        await self.repository.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    @rpc()
    async def TraceSetting(self, request: pb.TraceSettingRequest, context: RpcContext) -> pb.TraceSettingResponse:  # noqa: N802
        """Say that nothing is traced."""
        for name, setting in request.settings.items():
            if list(setting.value) not in ([], _TRACE.get(name)):
                raise Unimplemented(f"settings[{name}]: traces are not offered; expected {_TRACE.get(name, [])}")
        settings = {name: pb.TraceSettingResponse.SettingValue(value=value) for name, value in _TRACE.items()}
        return pb.TraceSettingResponse(settings=settings)

    @rpc()
    async def LogSettings(self, request: pb.LogSettingsRequest, context: RpcContext) -> pb.LogSettingsResponse:  # noqa: N802
        """Read and change what is logged."""
        change_log_settings(request.settings)
        return pb.LogSettingsResponse(settings=read_log_settings())


def _check_repository(name: str) -> None:
    if name:
        raise InvalidInput("repository_name", repr(name), "empty: there is one repository")
