"""The way of one request behind the protocol: prepare, plan attention, compute, encode; the service calls it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from regard.v1 import types_pb2 as pb
from server.attention.plan import AttentionPlan
from server.attention.reduce import write_attention
from server.attention.request import AttentionLimits, plan_attention
from server.auth.clients import current
from server.config import Config
from server.engine.device_ops import Weights
from server.inference.preprocess import Prepared, special_positions
from server.inference.response_cache import AnswerCache
from server.repository.loading import LoadedModel
from server.scheduling.batch import Work, size_of
from server.scheduling.scheduler import DEFAULT_PRIORITY, Computed, Scheduler
from server.telemetry.logs import record
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing

Array = NDArray[Any]
Result = TypeVar("Result")

_ENCODE_HERE_BYTES = 64 * 2**10


@dataclass(frozen=True)
class Urgency:
    """When an answer is wanted: by when, on time.monotonic() in seconds, and before whom (1 goes first)."""

    deadline: float | None = None
    priority: int = DEFAULT_PRIORITY


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was computed for a request, to be encoded.

    Attributes:
        prepared: Its input.
        plan: What it wants of the attention; None for none.
        outputs: By name, each [rows, ...].
        attentions: By the tapped graph's output, float32 [rows, H, Q, K].
    """

    prepared: Prepared
    plan: AttentionPlan | None
    outputs: Mapping[str, Array]
    attentions: Mapping[str, Weights]


@dataclass(frozen=True, eq=False)
class Answer(Generic[Result]):
    """What was made of an outcome, and how long that took."""

    result: Result
    timings: pb.Timings


class Pipeline:
    """Runs requests: worker threads for decoding and encoding, the scheduler for computing."""

    def __init__(
        self, config: Config, scheduler: Scheduler, workers: Executor, metrics: Metrics, tracing: Tracing
    ) -> None:
        self._tracing = tracing
        self._config = config
        self._scheduler = scheduler
        self._cache = AnswerCache(scheduler.submit, config.cache_bytes, metrics)
        self._workers = workers
        self._metrics = metrics

    async def run(
        self,
        model: LoadedModel,
        prepare: Callable[[], Prepared],
        outputs: tuple[str, ...],
        encode: Callable[[Outcome], Result],
        attention: pb.AttentionRequest | None,
        urgency: Urgency,
        *,
        here: bool,
        layer_by_layer: bool = False,
    ) -> Answer[Result]:
        """Answer one request.

        Args:
            model: Which is asked.
            prepare: Decodes and checks the input.
            outputs: Names of the outputs wanted.
            encode: Makes the protocol's answer of what was computed.
            attention: What is wanted of the attention; None for none.
            urgency: When the answer is wanted.
            here: Whether to prepare on the event loop: below some size the way to a worker costs more.
            layer_by_layer: Whether each layer of the attention has a message of its own.

        Raises:
            ServerError: As the steps raise it.
        """
        started_ns = time.perf_counter_ns()
        try:
            with model.usage.request():
                asked = (attention, urgency, started_ns)
                return await self._run(
                    model, prepare, outputs, encode, *asked, here=here, layer_by_layer=layer_by_layer
                )
        except BaseException:
            self._metrics.observe_failure(model.name, model.version, time.perf_counter_ns() - started_ns)
            raise

    async def _run(
        self,
        model: LoadedModel,
        prepare: Callable[[], Prepared],
        outputs: tuple[str, ...],
        encode: Callable[[Outcome], Result],
        attention: pb.AttentionRequest | None,
        urgency: Urgency,
        started_ns: int,
        *,
        here: bool,
        layer_by_layer: bool = False,
    ) -> Answer[Result]:
        if attention is not None:
            current.get().require("attention", "attention")
        prepared = prepare() if here else await self._in_worker(prepare)
        plan = self._plan(model, prepared, attention, layer_by_layer=layer_by_layer)
        decoded_ns = time.perf_counter_ns()
        graph, wanted = model.engine.plain, plan.outputs if plan else ()
        if plan and (tapped := model.engine.contributing if plan.takes_contributions else model.engine.tapped):
            graph = tapped
        work = Work(graph, model.contract, prepared.inputs, prepared.rows, prepared.length, outputs, wanted)
        with model.usage.inputs(work.held_bytes):
            computed = await self._cache.compute(work, urgency.deadline, urgency.priority)
        encoding_ns = time.perf_counter_ns()
        outcome = Outcome(prepared, plan, computed.results.outputs, computed.results.attentions)
        result = await self._encode(lambda: encode(outcome), computed)
        timings = pb.Timings(
            decode_ns=decoded_ns - started_ns,
            queue_ns=computed.queue_ns,
            compute_ns=computed.compute_ns,
            encode_ns=time.perf_counter_ns() - encoding_ns,
            batch_size=computed.batch_size,
        )
        self._metrics.observe_answer(
            model.name,
            model.version,
            work.graph_kind,
            rows=prepared.rows,
            total_ns=time.perf_counter_ns() - started_ns,
            timings=timings,
            attention_bytes=plan.answer_bytes(prepared.rows) if plan else 0,
            cached=self._config.cache_bytes > 0,
        )
        if own := record.get():
            own.timings = timings
        self._tracing.stages(timings, {"regard.model": model.name, "regard.graph": work.graph_kind})
        return Answer(result, timings)

    async def encode_layers(
        self, outcome: Outcome, add: Callable[[], pb.LayerAttention]
    ) -> AsyncIterator[pb.LayerAttention]:
        """Make the entries of an attention answer one after the other, in a worker thread; see write_attention."""
        if outcome.plan is None:
            return
        layers = write_attention(outcome.plan, outcome.attentions, add, batched=outcome.prepared.source is None)
        while (layer := await self._in_worker(lambda: next(layers, None))) is not None:
            yield layer

    async def _in_worker(self, job: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._workers, job)

    async def _encode(self, job: Callable[[], Result], computed: Computed) -> Result:
        """Encode small answers here, large ones in a worker thread: below some size the way there costs more."""
        results = computed.results
        size_bytes = sum(size_of(array) for array in (*results.outputs.values(), *results.attentions.values()))
        return job() if size_bytes <= _ENCODE_HERE_BYTES else await self._in_worker(job)

    def _plan(
        self,
        model: LoadedModel,
        prepared: Prepared,
        attention: pb.AttentionRequest | None,
        *,
        layer_by_layer: bool,
    ) -> AttentionPlan | None:
        if attention is None:
            return None
        # A sixteenth of the message is left for everything but the weights.
        message_bytes = self._config.max_message_bytes * 15 // 16
        limits = AttentionLimits(message_bytes, self._config.max_attention_bytes, layer_by_layer)
        return plan_attention(
            attention,
            model.contract,
            rows=prepared.rows,
            sizes=model.contract.axis_sizes(prepared.inputs),
            positions=prepared.length,
            limits=limits,
            special=special_positions(model, prepared),
        )
