"""The server as a Ray Serve application: a replica each holds all of it below the transport; see transport/ray/."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import ray
from ray import serve
from ray.serve._private.common import RequestRoutingInfo
from ray.serve._private.constants import (
    RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S,
    RAY_SERVE_ENABLE_DIRECT_INGRESS,
)
from ray.serve.context import _get_global_client

from server.__main__ import explain
from server.address import split_address
from server.app import Server
from server.config import Config
from server.errors import EngineFault, ServerError, StartError
from server.process import announce
from server.telemetry.logs import set_up
from server.transport.ray import methods as services
from server.transport.ray.methods import Method, methods
from server.transport.ray.settings import config_of, models_of
from server.transport.ray.transport import RayTransport

_log = logging.getLogger(__name__)

_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 -- what others may have bound
_TELL_AGAIN_SECONDS = 60.0  # Ray tells all its proxies each time
_TARGET_SECONDS = 5.0  # for all replicas to say where their metrics are
_MAX_CALLS = 100_000  # that Ray hands over: what there is room for the server knows itself, and says when to come back


__all__ = ["Replica", "add_services", "application"]


class Answer(NamedTuple):
    """A message, which Ray asks for its bytes."""

    content: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 -- protobuf's
        """Return them."""
        return self.content


def application(replica: type["Replica"], arguments: Mapping[str, Any]) -> serve.Application:
    """Make an application of one deployment, "regard", whose options a config file may say otherwise.

    Args:
        replica: The class, which a replica's process has to be able to import by its name.
        arguments: See config_of.

    Raises:
        StartError: They cannot be used.
    """
    config = config_of(arguments)
    # Of its time to end a replica waits so long for proxies to leave it out, and is asked as before.
    left_out_seconds = RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S if RAY_SERVE_ENABLE_DIRECT_INGRESS else 0.0
    deployment = serve.deployment(
        replica,
        name="regard",
        max_ongoing_requests=_MAX_CALLS,
        graceful_shutdown_timeout_s=left_out_seconds + config.drain_seconds,
    )
    return deployment.bind(dict(arguments))


class Replica:
    """One server; its methods are the services', which Ray calls by name."""

    async def __init__(self, arguments: Mapping[str, Any]) -> None:  # type: ignore[misc]  # Ray waits for it
        """Load the models, of which user_config may name some; threads are the CPUs that Ray gives it, or `threads`.

        Args:
            arguments: See config_of.

        Raises:
            InvalidInput: user_config says something else.
            NotFound: It names a model that the folder has not.
            StartError: The settings or the models cannot be used.
        """
        self._config = config = _with_threads(config_of(arguments))
        set_up(config.log_level, config.log_format)
        self._stop, self._is_configured = asyncio.Event(), False
        self._transport = RayTransport()
        self._context = serve.get_replica_context()
        self._told, self._told_at = list[str](), -math.inf
        wanted = models_of(self._context._deployment_config.user_config or {}, watches=config.watch)
        self._server = Server(config, self._transport, wanted, self._tell_loaded)
        started = asyncio.get_running_loop().create_future()
        self._living = asyncio.create_task(self._live(started))
        await asyncio.wait([started, self._living], return_when=asyncio.FIRST_COMPLETED)
        if self._living.done():
            self._living.result()

    async def _live(self, started: "asyncio.Future[None]") -> None:
        try:
            async with self._server as server:
                if await server.start(self._stop):
                    announce(self._config.log_format, server.started)
                    started.set_result(None)
                    await server.run(self._stop)
        except EngineFault as error:
            explain(error, self._config.log_format)  # and ends the process, in whose place Ray starts another
        except Exception:
            if started.done():  # nobody waits for it any more; see check_health
                _log.exception("the server has ended")
            raise

    async def __del__(self) -> None:
        """End, when Ray has sent the last answers."""
        if not hasattr(self, "_living"):  # the settings were no good
            return
        self._stop.set()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([self._living])

    def _tell_loaded(self, names: list[str]) -> None:
        """Tell Ray which models are loaded here, by which its own proxy chooses a replica; HAProxy does not ask."""
        now = time.monotonic()
        is_known = names == self._told and now - self._told_at < _TELL_AGAIN_SECONDS
        self._told = names
        if RAY_SERVE_ENABLE_DIRECT_INGRESS or is_known:
            return
        try:
            _get_global_client().record_request_routing_info(
                RequestRoutingInfo(replica_id=self._context.replica_id, multiplexed_model_ids=names)
            )
            self._told_at = now
        except Exception as error:  # of Ray's; it is told again soon
            self._told_at = -math.inf
            _log.warning("Ray's controller cannot be told which models are loaded: %s", error)

    async def check_health(self) -> None:
        """Say whether it serves; Ray asks often, and is told again what is loaded: a new controller knows nothing.

        Raises:
            EngineFault: It does no more.
        """
        if self._living.done():
            raise EngineFault("the server has ended; its log says why")
        self._tell_loaded(self._told)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Say how busy it was since Ray asked last: seconds of work that wait, and utilization."""
        load = self._server.load()
        return {"queue_seconds": load.queue_seconds, "utilization": load.utilization}

    async def __call__(self, request: object) -> list[dict[str, Any]]:
        """Say where all replicas of this deployment have their metrics, for Prometheus' http_sd_config, over HTTP."""
        handle = serve.get_deployment_handle(self._context.deployment, self._context.app_name)
        found = await handle.broadcast("target").results_async(timeout_s=_TARGET_SECONDS, return_exceptions=True)
        return [one for one in found if isinstance(one, dict)]

    async def target(self) -> dict[str, Any]:
        """Say where this replica has its metrics, and what tells it from others."""
        host, port = split_address(self._server.started.metrics_address)
        if host in _ANY_HOST:
            host = ray.util.get_node_ip_address()
        labels = {"application": self._context.app_name, "replica": self._context.replica_tag}
        return {"targets": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"], "labels": labels}

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Serve the models as their folder now is, as an application's user_config says; nobody's call fails for it.

        Ray calls it on every replica when user_config has changed, for which `revision` may have any value. It stops a
        replica for which that raises: so what is wrong with a later one, or with a model, is logged, and nothing ends.

        Args:
            user_config: `models`, the names of those to serve, all others being unloaded; without it all of the folder.

        Raises:
            InvalidInput: The first one says something else.
            NotFound: It names a model that the folder has not.
            StartError: The folder has none any more.
        """
        is_first, self._is_configured = not self._is_configured, True
        try:
            await self._server.set_models(models_of(user_config, watches=self._config.watch))
        except (ServerError, StartError, OSError) as error:
            if is_first:
                raise
            _log.error("nothing has changed: %s", error)


def add_services(servicer: object, server: Any) -> None:
    """Add the services to Ray's gRPC server: one of its grpc_servicer_functions.

    Args:
        servicer: None of ours.
        server: Ray's own proxy's, or a replica's.
    """
    services.add_services(server, tell_model=not RAY_SERVE_ENABLE_DIRECT_INGRESS)


def _with_threads(config: Config) -> Config:
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return config if config.threads else config.model_copy(update={"threads": max(int(cpus), 1)})


def _unary(method: Method) -> Callable[..., Any]:
    async def run(self: Replica, request: bytes, grpc_context: Any) -> Answer:
        return Answer(await self._transport.answer(method.path, request, grpc_context))

    return run


def _streaming(method: Method) -> Callable[..., Any]:
    async def run(self: Replica, request: bytes | AsyncIterator[bytes], grpc_context: Any) -> AsyncGenerator[Answer]:
        async for content in self._transport.stream(method.path, request, grpc_context):
            yield Answer(content)

    return run


for _method in methods():
    setattr(Replica, _method.name, (_streaming if _method.response_streaming else _unary)(_method))
