"""The server's life: load, serve, drain, close, in one function read from top to bottom; __main__ runs it."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc
import onnxruntime
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from artifact.contract import Contract
from regard.v1 import regard_pb2
from regard.v1.regard_pb2_grpc import add_RegardServiceServicer_to_server
from server.api.handler import Calls
from server.api.open_inference import open_inference_pb2
from server.api.open_inference.infer import InferenceService
from server.api.open_inference.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from server.api.regard_v1.service import RegardService
from server.config import Config
from server.engine.device import Device, choose_device, share_cpus
from server.errors import EngineFault
from server.inference.pipeline import Pipeline
from server.repository.catalog import Repository
from server.repository.folder_watch import watch
from server.repository.loading import LoadedModel, load_model
from server.scheduling.batch import BatchLimits
from server.scheduling.scheduler import Admission, Scheduler
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing
from server.transport.grpc_server import bind, check_exposure, make_access, make_server, read_certificates
from server.transport.health import Health
from server.transport.http import MetricsServer
from server.transport.malformed import Registrar

_log = logging.getLogger(__name__)
_SERVICES = (
    regard_pb2.DESCRIPTOR.services_by_name["RegardService"].full_name,
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
)
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# How long a stopping server still answers callers who have not heard of it, then waits for streams to end.
_LAST_MOMENT_SECONDS = 0.25


@dataclass(frozen=True)
class Started:
    """What is served where, for the lines at start and for tests."""

    address: str
    metrics_address: str
    device: Device
    contracts: list[Contract]
    start_seconds: float


async def serve(config: Config, stop: asyncio.Event, announce: Callable[[Started], None]) -> None:
    """Serve until `stop` is set, then drain and close.

    Args:
        config: The settings.
        stop: Set from outside, e.g. by a signal.
        announce: Called once when requests are answered.

    Raises:
        StartError: Something is wrong with the settings, the artifacts, the ports or the device.
        EngineFault: The engine hangs or has died.
    """
    started_at = time.monotonic()
    metrics, tracing = Metrics(), Tracing.from_environment()
    ready = False
    web = MetricsServer(config.metrics, metrics.registry, lambda: ready)
    workers = ThreadPoolExecutor(config.engine_threads + 1, thread_name_prefix="worker")
    check_exposure(config)
    access = make_access(config)
    server = make_server(config, access, metrics)
    scheduler: Scheduler | None = None
    watching: asyncio.Task[None] | None = None
    inference: InferenceService | None = None
    try:
        address = bind(server, config.listen, read_certificates(config))
        device = choose_device(config.device)
        metrics.build_info.labels(version("regard"), onnxruntime.__version__, device.name).set(1)
        metrics.ready.set_function(lambda: float(ready))
        lanes = share_cpus(config.engine_threads, device, config.lanes)
        registrar = Registrar(server)
        healths = _add_health(registrar)
        repository = Repository(
            config.models,
            lambda folder, usage: load_model(folder, device, lanes, usage),
            lambda name, newest: _tell(name, newest, healths, metrics, device),
        )
        loading = asyncio.create_task(repository.start())
        await _first(stop.wait(), loading)
        if not loading.done():
            _log.info("stopping, before everything is loaded")
            loading.cancel()
            return
        loading.result()
        scheduler = _make_scheduler(config, lanes.count, metrics, tracing)
        scheduler.start()
        pipeline = Pipeline(config, scheduler, workers, metrics, tracing)
        most = config.max_queue_size + config.max_batch_size
        calls = Calls(most, metrics, repository.label, scheduler.suggest_retry, access, tracing)
        inference = InferenceService(config, repository, pipeline, calls, metrics.statistics, on_cpu=device.gpu is None)
        add_RegardServiceServicer_to_server(RegardService(config, repository, pipeline, calls, device.name), registrar)
        add_GRPCInferenceServiceServicer_to_server(inference, registrar)
        await server.start()
        for name in ("", *_SERVICES):
            await healths.tell(name, serving=True)
        ready = True
        if config.watch:
            watching = asyncio.create_task(watch(config.models, repository))
            watching.add_done_callback(_report_end)
        contracts = [model.contract for model in repository.all()]
        announce(Started(address, web.address, device, contracts, time.monotonic() - started_at))
        failing = asyncio.create_task(scheduler.watch(config.watchdog_seconds))
        await _first(stop.wait(), failing)
        ready = False
        await healths.stop()
        ends = time.monotonic() + config.drain_seconds
        if not failing.done():
            _log.info("stopping: accepted requests have %g s", config.drain_seconds)
            await _first(_drain(server, calls, scheduler, config.drain_seconds), failing)
        closing, scheduler = scheduler, None
        if failing.done():
            await _give_up(server, calls, closing)
            raise EngineFault(failing.result())
        failing.cancel()
        if not await closing.close(max(ends - time.monotonic(), _LAST_MOMENT_SECONDS)):
            raise EngineFault(f"a run has not ended within {config.drain_seconds:g} s (--drain-seconds)")
    finally:
        if watching:
            watching.cancel()
        await server.stop(None)
        if scheduler:
            await scheduler.close()
        if inference:
            inference.close()
        workers.shutdown()
        tracing.close()
        web.close()


def _report_end(watching: "asyncio.Task[None]") -> None:
    if not watching.cancelled() and (error := watching.exception()):
        _log.error("--watch: the models folder is no longer followed: %s", error)


async def _first(what: Coroutine[Any, Any, object], other: "asyncio.Task[Any]") -> None:
    """Wait until one of both has ended; the first is given up where the other was faster."""
    task = asyncio.create_task(what)
    try:
        await asyncio.wait([task, other], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()


async def _give_up(server: grpc.aio.Server, calls: Calls, scheduler: Scheduler) -> None:
    """Answer everyone UNAVAILABLE, since nothing will be computed any more."""
    calls.refuse()
    scheduler.abandon("the engine has failed; the server is stopping")
    await asyncio.sleep(_LAST_MOMENT_SECONDS)
    await server.stop(_LAST_MOMENT_SECONDS)


async def _drain(server: grpc.aio.Server, calls: Calls, scheduler: Scheduler, seconds: float) -> None:
    """Refuse new requests, let accepted ones finish within the limit, answer the rest UNAVAILABLE.

    The service refuses by itself for a moment before gRPC closes: calls that gRPC holds and has not yet handed over
    when it closes would end as CANCELLED, which callers do not retry.
    """
    calls.refuse()
    try:
        await asyncio.wait_for(calls.wait_idle(), seconds)
    except TimeoutError:
        _log.warning("requests still in flight after %g s are refused", seconds)
        scheduler.abandon("the server is stopping")
    await asyncio.sleep(_LAST_MOMENT_SECONDS)
    await server.stop(_LAST_MOMENT_SECONDS)


def _make_scheduler(config: Config, lanes: int, metrics: Metrics, tracing: Tracing) -> Scheduler:
    limits = BatchLimits(config.max_batch_size, config.max_batch_tokens, config.max_attention_bytes)
    admission = Admission(config.max_queue_size, config.max_queue_bytes, config.max_queue_seconds)
    return Scheduler(limits, admission, lanes, metrics, config.max_queue_delay_ms / 1e3, tracing)


def _add_health(registrar: Registrar) -> Health:
    servicer = Health()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, registrar)  # type: ignore[arg-type]
    reflection.enable_server_reflection([*_SERVICES, _HEALTH, reflection.SERVICE_NAME], registrar)  # type: ignore[arg-type]
    return servicer


async def _tell(name: str, newest: LoadedModel | None, healths: Health, metrics: Metrics, device: Device) -> None:
    """Let health and metrics say whether a model is served."""
    await healths.tell(name, serving=newest is not None)
    metrics.forget_model(name)
    if newest:
        contract = newest.contract
        metrics.model_info.labels(name, contract.version, contract.family, device.name).set(1)
