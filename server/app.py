"""The server's life: start, run, stop."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from artifact.contract import Contract
from artifact.images import ImageLimits
from artifact.installed import installed_version
from server.api.calls import Calls
from server.api.handler import RpcHandler
from server.api.open_inference.service import InferenceService
from server.api.open_inference.shared_memory import SharedMemory
from server.api.regard_v1.service import RegardService
from server.attention.planning import AttentionLimits
from server.auth.clients import Authenticator
from server.config import EMBEDDED_MODELS, Config
from server.engine.cpus import bind_thread, plan_cpus
from server.engine.device import Device, Instances, choose_devices, names_of, on_nodes, share_cpus
from server.engine.execution import Execution
from server.engine.faults import judge_of
from server.errors import EngineFault
from server.generation.generator import Generator
from server.generation.validation import GenerationLimits
from server.inference.attention_samples import AttentionSamples
from server.inference.decoding import Decoders
from server.inference.pipeline import Pipeline
from server.inference.preprocess import InputLimits
from server.inference.response_cache import ResponseCache
from server.inference.sound import AudioLimits
from server.inference.workers import Workers
from server.ledger import Ledger
from server.memory import watch_memory
from server.repository.folder_watch import poll, watch
from server.repository.lifecycle import Repository
from server.repository.limits import Usage
from server.repository.loading import LoadedModel, load_model
from server.repository.store.cache import Cache
from server.repository.store.remote_models import RemoteModels
from server.repository.trial import Trial
from server.scheduling.admission import Admission
from server.scheduling.batch import BatchLimits
from server.scheduling.scheduler import Scheduler
from server.telemetry.descriptors import raise_limit, watch_descriptors
from server.telemetry.heartbeat import Heartbeat
from server.telemetry.load import Load, LoadMeter
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing
from server.transport.beside import Both, ending, open_http
from server.transport.grpc_server import GrpcioTransport, make_authenticator
from server.transport.http import MetricsServer
from server.transport.listening import check_exposure
from server.transport.load_reports import LoadReports
from server.transport.refusals import Refusals
from server.transport.services import Services
from server.transport.transport import Transport

_log = logging.getLogger(__name__)
# How long a stopping server still answers callers who have not heard of it, then waits for streams to end.
_LAST_MOMENT_SECONDS = 0.25
_LOOK_SECONDS = 1.0  # between two looks at the file of clients


@dataclass(frozen=True)
class Started:
    """What is served where, for the lines at start and for tests; no http_address where HTTP is off."""

    address: str
    metrics_address: str
    http_address: str
    devices: tuple[Device, ...]
    contracts: list[Contract]
    start_seconds: float


async def serve(
    config: Config, stop: asyncio.Event, announce: Callable[[Started], None], transport: Transport | None = None
) -> None:
    """Serve until `stop` is set, then drain and close.

    Args:
        config: The settings.
        stop: Set from outside, e.g. by a signal.
        announce: Called once when requests are answered.
        transport: What carries calls; None for grpcio.

    Raises:
        StartError: Something is wrong with the settings, the artifacts, the ports or the device.
        EngineFault: The engine hangs or has died.
    """
    async with Server(config, transport or GrpcioTransport()) as server:
        if await server.start(stop):
            announce(server.started)
            await server.run(stop)


class Server:
    """A server; what it holds is let go of when the block ends, however far it came."""

    def __init__(
        self,
        config: Config,
        transport: Transport,
        models: Collection[str] | None = None,
        tell: Callable[[list[str]], None] = lambda names: None,
    ) -> None:
        """Open the HTTP port, and make what needs no model.

        Args:
            config: The settings.
            transport: What carries calls.
            models: Names of those to serve; None for all that the folder has.
            tell: Told which are loaded or being loaded, whenever that may have changed.

        Raises:
            StartError: The settings cannot be used.
        """
        check_exposure(config)
        self._config, self._names, self._tell_loaded = config, models, tell
        self._began = time.monotonic()
        self._ready = False
        self._metrics, self._tracing = Metrics(), Tracing.from_environment()
        self._metrics.ready.set_function(lambda: float(self._ready))
        self._authenticator = make_authenticator(config)
        self._refusals = Refusals(self._metrics, config.max_refusal_lines)
        ledger = Ledger(config.held_bytes)
        unseen_bytes = 0 if transport.counts_arriving else config.max_message_bytes
        gateways = list[Any]()
        end_calls = ending(transport.end_calls, gateways)
        self._calls = Calls(ledger, self._metrics, unseen_bytes, config.max_stall_seconds, end_calls)
        self._transport = transport
        transport.open(config, self._authenticator, self._refusals, self._calls)
        self._cpus = plan_cpus(config.threads)
        self._executor = ThreadPoolExecutor(self._cpus.threads + 1, thread_name_prefix="worker")
        self._workers = Workers(self._executor)
        self._gateway = open_http(config, self._authenticator, self._refusals, self._calls, self._workers)
        gateways += [self._gateway] if self._gateway else []
        self._decoders = Decoders(self._cpus.threads + 1, config.image_pixels, self._metrics)
        self._heartbeat = Heartbeat(self._metrics.loop_lag.observe)
        self._http = MetricsServer(
            config.metrics, self._metrics.registry, lambda: self._heartbeat.is_alive, lambda: self._ready
        )
        self._memory = SharedMemory(config.max_message_bytes)
        self._scheduler: Scheduler | None = None
        self._is_closed = False
        self._stopping = threading.Event()
        self._background = set[asyncio.Task[Any]]()

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._background:
            task.cancel()
        self._stopping.set()
        await self._transport.close()
        if self._gateway:
            await self._gateway.stop(0)
        if self._scheduler and not self._is_closed:
            await self._scheduler.close()
        self._memory.unregister()
        self._decoders.close()
        self._executor.shutdown()
        self._tracing.close()
        self._http.close()
        self._heartbeat.close()

    async def start(self, stop: asyncio.Event) -> bool:
        """Bind the port, load the models and answer requests; returns False where it was told to stop meanwhile.

        Raises:
            NotFound: A model that is to be served is not there.
            StartError: The port, the device or the models cannot be used.
        """
        config = self._config
        raise_limit(config.max_connections * (2 if config.http else 1))
        watched = (self._heartbeat.beat(), watch_descriptors(self._metrics.no_descriptors.inc), watch_memory())
        for watching in watched:
            self._background.add(asyncio.create_task(watching))
        if config.lanes:
            _log.warning("--lanes is deprecated, and will be gone in the next release: use --instances")
        address = self._transport.bind()
        http_address = self._gateway.bind() if self._gateway else ""
        devices = on_nodes(choose_devices(config.device), self._cpus.nodes)
        self._metrics.build_info.labels(installed_version(), onnxruntime.__version__, names_of(devices)).set(1)
        instances = share_cpus(self._cpus.threads, devices, config.instances or config.lanes)
        services = Services(Both(self._transport, self._gateway), self._calls, self._refusals, config)
        self._health = services.health
        self._models = self._open_models()
        self._repository = self._open_repository(devices, instances)
        if not await self._load(stop):
            return False
        self._scheduler = _make_scheduler(config, instances.count, self._metrics, self._tracing, devices)
        for model in self._repository.all():
            self._scheduler.bound_model(model.name, model.usage.settings.instances)
        self._scheduler.start()
        self._add_services(services, self._scheduler, devices, instances.count)
        await self._transport.start()
        if self._gateway:
            await self._gateway.start()
        await services.set_serving()
        self._ready = True
        self._follow()
        contracts = [model.contract for model in self._repository.all()]
        seconds = time.monotonic() - self._began
        self.started = Started(address, self._http.address, http_address, devices, contracts, seconds)
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop, then drain and close.

        Raises:
            EngineFault: The engine hangs or has died.
        """
        scheduler = self._scheduler
        assert scheduler is not None  # noqa: S101 -- it has started
        failing = asyncio.create_task(scheduler.watch(self._config.watchdog_seconds))
        self._background.add(failing)
        await _first(stop.wait(), failing)
        self._ready = False
        await self._health.stop()
        ends = time.monotonic() + self._config.drain_seconds
        if not failing.done():
            await _first(self._drain(scheduler), failing)
        self._is_closed = True  # a run that hangs would keep the threads from ending
        if failing.done():
            await self._give_up(scheduler)
            raise EngineFault(failing.result())
        if not await scheduler.close(max(ends - time.monotonic(), _LAST_MOMENT_SECONDS)):
            raise EngineFault(f"a run has not ended within {self._config.drain_seconds:g} s (--drain-seconds)")

    def load(self) -> Load:
        """Say how busy it is, once it has started."""
        return self._load_meter.read()

    async def set_models(self, names: Collection[str] | None) -> None:
        """Serve these models; see Repository.serve_only."""
        await self._repository.serve_only(names)

    def _open_repository(self, devices: Sequence[Device], instances: Instances) -> Repository:
        async def changed(name: str, newest: LoadedModel | None) -> None:
            """Let health and metrics say whether a model is served, and the scheduler know its bound."""
            serving = newest is not None or self._repository.is_unloaded_idle(name)
            await self._health.set_status(name, serving=serving)
            self._metrics.forget_model(name)
            if self._scheduler:
                self._scheduler.bound_model(name, newest.usage.settings.instances if newest else None)
            if newest:
                contract = newest.contract
                self._metrics.model_info.labels(name, str(contract.version), contract.family, names_of(devices)).set(1)

        config = self._config
        execution = Execution(config.execution, max_rows=config.max_batch_size, tensorrt_cache=config.tensorrt_cache)

        def load(folder: Path, usage: Usage) -> LoadedModel:
            return load_model(folder, self._in_service(devices), instances, usage, execution)

        make = partial(
            Repository, self._models, load, changed, max_loaded=config.max_loaded_models, tell=self._tell_loaded
        )
        if not config.trial_load or config.models == EMBEDDED_MODELS:
            return make()

        def device() -> Device:
            return self._in_service(devices)[0]

        trial = Trial(device, self._cpus.threads, config.instances or config.lanes, execution)
        return make(trial)

    def _open_models(self) -> Path | RemoteModels:
        """Say where models are: in a folder, or in a store, of which a cache keeps what is loaded."""
        config = self._config
        if isinstance(config.models, Path):
            return config.models
        cache = Cache(config.models_cache, config.models_cache_bytes, self._stopping)
        models = RemoteModels(config.models, cache, self._stopping)
        _log.info("what is loaded of %s is kept in %s", models, models.folder)
        return models

    def _in_service(self, devices: Sequence[Device]) -> list[Device]:
        """Put a device that is in service in the place of each that has failed, where nothing runs any more."""
        up = self._scheduler.devices_up if self._scheduler else []
        return [device if number in up or not up else devices[up[0]] for number, device in enumerate(devices)]

    async def _load(self, stop: asyncio.Event) -> bool:
        """Load the models; False where the server was told to stop before everything was loaded."""
        loading = asyncio.create_task(self._repository.start(self._names, strict=self._config.strict_models))
        await _first(stop.wait(), loading)
        if loading.done():
            loading.result()
            return True
        _log.info("stopping, before everything is loaded")
        loading.cancel()
        return False

    def _add_services(
        self, services: Services, scheduler: Scheduler, devices: Sequence[Device], instances: int
    ) -> None:
        """Put the two protocols together."""
        config, metrics = self._config, self._metrics
        workers = self._workers
        cache = ResponseCache(scheduler.submit, scheduler.submit_all, config.cache_bytes, metrics)
        inputs = _input_limits(config)
        attention = AttentionLimits(config.max_answer_bytes, config.max_attention_bytes, config.max_pair_tokens)
        samples = AttentionSamples(scheduler.compute_spare, workers, attention, metrics)
        pipeline = Pipeline(workers, self._decoders, cache, inputs, attention, metrics, self._tracing, samples)
        limits = GenerationLimits(config.max_beams, config.max_answer_bytes)
        generator = Generator(pipeline, scheduler, limits, instances, config.max_batch_size, metrics, len(devices))
        seconds = scheduler.queue_seconds, scheduler.running_seconds
        self._load_meter = LoadMeter(metrics, *seconds, lambda: scheduler.instances)
        reports = LoadReports(self._load_meter, config.max_watches)
        if config.load_reports:
            services.add_load_reports(reports)
        self._rpcs = RpcHandler(
            config.max_queue_size + config.max_batch_size,
            metrics,
            self._repository.label,
            scheduler.suggest_retry,
            self._authenticator,
            self._tracing,
            self._calls,
            reports.trailers if config.load_reports else tuple,
        )
        has_cuda = devices[0].gpu is not None
        counts, memory = metrics.counts, self._memory
        parts = (self._rpcs, self._repository, pipeline, workers, config, counts, memory, has_cuda, generator)
        regard_service = RegardService(self._rpcs, self._repository, pipeline, workers, generator, names_of(devices))
        services.add(regard_service, InferenceService(*parts))

    def _follow(self) -> None:
        """Follow changes of the models folder and of the clients, and callers who stand still."""
        self._background.add(asyncio.create_task(self._calls.watch()))
        if self._config.watch:
            models, repository = self._models, self._repository
            following = (
                watch(models, repository)
                if isinstance(models, Path)
                else poll(models, repository, self._config.poll_seconds)
            )
            watching = asyncio.create_task(following)
            watching.add_done_callback(_report_end)
            self._background.add(watching)
        if not self._authenticator.is_open:
            self._background.add(asyncio.create_task(_follow_clients(self._authenticator)))

    async def _give_up(self, scheduler: Scheduler) -> None:
        """Answer everyone UNAVAILABLE, since nothing will be computed any more."""
        self._rpcs.refuse()
        self._decoders.close()
        scheduler.abandon("the engine has failed; the server is stopping")
        await self._hang_up()

    async def _drain(self, scheduler: Scheduler) -> None:
        """Refuse new requests, let accepted ones finish within the limit, answer the rest UNAVAILABLE.

        The service refuses by itself for a moment, then hangs up, and gRPC closes last: calls that gRPC holds and has
        not yet handed over when it closes would end as CANCELLED, which callers do not retry.
        """
        seconds = self._config.drain_seconds
        _log.info("stopping: accepted requests have %g s", seconds)
        self._rpcs.refuse()
        try:
            await asyncio.wait_for(self._rpcs.wait_idle(), seconds)
        except TimeoutError:
            _log.warning("requests still in flight after %g s are refused", seconds)
            self._decoders.close()
            scheduler.abandon("the server is stopping")
        await self._hang_up()

    async def _hang_up(self) -> None:
        await asyncio.sleep(_LAST_MOMENT_SECONDS)
        await self._transport.stop(_LAST_MOMENT_SECONDS)
        if self._gateway:
            await self._gateway.stop(_LAST_MOMENT_SECONDS)


async def _follow_clients(authenticator: Authenticator) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.to_thread(authenticator.refresh)


def _report_end(watching: "asyncio.Task[None]") -> None:
    if not watching.cancelled() and (error := watching.exception()):
        _log.error("--watch: the models folder is no longer followed: %s", error)


async def _first(what: Any, other: "asyncio.Task[Any]") -> None:
    """Wait until one of both has ended; the first is given up where the other was faster."""
    task = asyncio.ensure_future(what)
    try:
        await asyncio.wait([task, other], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()


def _input_limits(config: Config) -> InputLimits:
    image = ImageLimits(config.image_pixels, config.max_image_scan_pixels)
    return InputLimits(
        config.max_batch_size,
        config.max_text_bytes,
        image,
        config.max_request_pixels,
        config.max_inputs,
        AudioLimits(config.max_audio_bytes, config.max_audio_samples),
    )


def _make_scheduler(
    config: Config, instances: int, metrics: Metrics, tracing: Tracing, devices: Sequence[Device]
) -> Scheduler:
    limits = BatchLimits(
        config.max_batch_size, config.max_batch_tokens, config.max_attention_bytes, config.max_run_seconds
    )
    row_seconds = config.watchdog_seconds or math.inf
    admission = Admission(config.max_queue_size, config.max_queue_bytes, config.max_queue_seconds, row_seconds)
    names = [device.name for device in devices]
    delay_seconds, judge = config.max_queue_delay_ms / 1e3, judge_of(devices[0])

    def enter(device: int) -> None:
        bind_thread(devices[device].cpus)

    return Scheduler(limits, admission, instances, metrics, delay_seconds, tracing, names, judge, enter)
