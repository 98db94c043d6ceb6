"""The way of one request behind the protocol: preprocess, plan its attention, compute, and account for it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

from server.attention.planning import AttentionLimits
from server.context import RpcContext, Timings
from server.errors import TooBusy
from server.inference.attention_samples import AttentionSamples
from server.inference.decoding import Decoders
from server.inference.image_rows import image_contract, read_images
from server.inference.items import make_item, plan_request, settle
from server.inference.many import ManyInputs
from server.inference.many_reading import pieces
from server.inference.preprocess import (
    InputLimits,
    check_answer_size,
    find_prompt,
    prepare_arrays,
    prepare_images,
    prepare_sound,
    prepare_texts,
    preprocess,
    read_texts,
    text_reader,
)
from server.inference.request import (
    Audio,
    FirstPart,
    Images,
    InferenceRequest,
    InferenceResponse,
    ManyResponses,
    Plan,
    PreparedInput,
    Texts,
)
from server.inference.response_cache import ResponseCache
from server.inference.sound_rows import audio_contract, read_sound
from server.inference.workers import DECODE_INLINE_BYTES, Workers
from server.ledger import COPIES, Account
from server.scheduling.batch import BatchItem, Result
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing

_KEPT = ("kept", "map")  # on the account: of the first part of a call, until its answer is written
Told = TypeVar("Told", InferenceResponse, ManyResponses)


@dataclass(frozen=True)
class Pipeline:
    """Runs requests.

    Attributes:
        workers: For preprocessing, but for images, sound and long texts.
        decoders: For these.
        cache: Stands before the scheduler.
        inputs: Most of what a request may bring.
        attention: Most of the attention, or the hidden states, that may be computed and sent.
        metrics: Where answers are counted.
        tracing: Where stages are told.
        samples: Of attention, from requests that did not ask for it.
    """

    workers: Workers
    decoders: Decoders
    cache: ResponseCache
    inputs: InputLimits
    attention: AttentionLimits
    metrics: Metrics
    tracing: Tracing
    samples: AttentionSamples

    def run(self, request: InferenceRequest, context: RpcContext) -> "_Running[InferenceResponse]":
        """Compute a request; the block encodes its response, and what it takes is told as that stage.

        Args:
            request: What is wanted.
            context: For whom, by when, before whom.

        Raises:
            ServerError: As the steps raise it.
        """
        return _Running(self, request, context, self._compute)

    def run_each(self, request: InferenceRequest, context: RpcContext) -> "_Running[ManyResponses]":
        """Compute a request of texts or images that have an answer, or an error, each; otherwise as run."""
        return _Running(self, request, context, self._compute_each)

    async def _compute(self, request: InferenceRequest, context: RpcContext, started_ns: int) -> InferenceResponse:
        prepared = await self._prepare(request, context)
        check_answer_size(request, prepared, self.attention.answer_bytes)
        plan = plan_request(request, prepared, self.attention)
        if plan:
            _reserve(request, plan, prepared.rows, context.account)
        decode_ns = time.perf_counter_ns() - started_ns
        item = make_item(request, prepared, plan, context)
        result = await self._run(request, item)
        timings = Timings(decode_ns, result.queue_ns, result.compute_ns, batch_size=result.batch_size)
        if further := settle(plan, result):
            plan, item = further, make_item(request, prepared, further, context)
            result = await self._run(request, item)
            timings.queue_ns += result.queue_ns
            timings.compute_ns += result.compute_ns
            timings.batch_size = result.batch_size
        size_bytes = result.size_bytes
        context.account.hold("result", size_bytes)
        return InferenceResponse(request.model, prepared, plan, result, timings, item.graph_kind, size_bytes)

    async def _run(self, request: InferenceRequest, item: BatchItem) -> Result:
        usage, held_bytes = request.model.usage, item.held_bytes
        usage.hold(held_bytes)
        try:
            return await self.cache.compute(item)
        finally:
            usage.release(held_bytes)

    async def _compute_each(self, request: InferenceRequest, context: RpcContext, started_ns: int) -> ManyResponses:
        many = ManyInputs(self.workers, self.decoders, self.cache, self.inputs, self.attention, self.samples)
        found = await many.compute(request, context, started_ns)
        results = [one.result.size_bytes for one in found.each if isinstance(one, InferenceResponse)]
        context.account.hold("result", sum(results))
        return found

    async def _prepare(self, request: InferenceRequest, context: RpcContext) -> PreparedInput:
        model, inputs = request.model, request.inputs
        if isinstance(inputs, Images):
            contract = image_contract(model)
            rows = await read_images(inputs.contents, contract, self.inputs, self.decoders, context)
            return prepare_images(model, rows)
        if isinstance(inputs, Audio):
            heard = audio_contract(model)
            return prepare_sound(model, await read_sound(inputs.content, heard, self.inputs, self.decoders, context))
        if isinstance(inputs, Texts):
            text_reader(model, inputs)
            prompt = len(find_prompt(model, inputs))
            if inputs.size_bytes + prompt * len(inputs) > DECODE_INLINE_BYTES:
                jobs = [(partial(read_texts, model, inputs, rows, self.inputs), 0) for rows in pieces(inputs, prompt)]
                return prepare_texts(model, [row for part in await self.decoders.run(jobs, context) for row in part])
            return preprocess(request, self.inputs)
        if inputs.size_bytes <= DECODE_INLINE_BYTES:
            return prepare_arrays(model, inputs, self.inputs)
        return await self.workers.run(partial(prepare_arrays, model, inputs, self.inputs))

    def tell(
        self,
        response: InferenceResponse | ManyResponses,
        first: FirstPart | None,
        context: RpcContext,
        started_ns: int,
    ) -> None:
        """Count an answer, once for both parts of a call that has two, and say how long its stages took."""
        model, graph, timings = response.model, response.graph, response.timings
        total_ns = time.perf_counter_ns() - started_ns
        if first:
            total_ns += first.took_ns
            timings.add(first.timings)
        context.timings = timings
        self.metrics.observe_answer(
            model.name,
            model.version,
            graph,
            rows=response.rows + (first.rows if first else 0),
            total_ns=total_ns,
            timings=timings,
            further_bytes=response.further_bytes,
            cached=self.cache.is_on,
        )
        if context.span is not None:
            self.tracing.stages(context.span, timings, {"regard.model": model.name, "regard.graph": graph})
        if isinstance(response, ManyResponses):
            for error in response.errors:
                self.metrics.failed_inputs.labels(error.code.name).inc()


class _Running(Generic[Told]):
    """One request from its arrival until its response is encoded.

    A class, since the event loop takes note of every generator, which costs each request more.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        request: InferenceRequest,
        context: RpcContext,
        compute: Callable[[InferenceRequest, RpcContext, int], Awaitable[Told]],
    ) -> None:
        self._pipeline, self._request, self._context = pipeline, request, context
        self._compute: Callable[[InferenceRequest, RpcContext, int], Awaitable[Told]] = compute
        self._started_ns = self._encoding_ns = time.perf_counter_ns()
        self._usage = request.model.usage
        self._response: Told | None = None

    async def __aenter__(self) -> Told:
        request, context = self._request, self._context
        try:
            self._usage.enter()
        except TooBusy:
            self._fail()
            raise
        try:
            if request.further_field:
                context.caller.require("attention", request.further_field)
            self._response = await self._compute(request, context, self._started_ns)
        except BaseException:
            self._usage.leave()
            self._fail()
            raise
        self._encoding_ns = time.perf_counter_ns()
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        request, account = self._request, self._context.account
        self._usage.leave()
        if error is not None or self._response is None:
            self._fail()
            return
        timings = self._response.timings
        account.hold("result", 0)
        if not timings.encode_ns:  # a stream knows better: its caller's reading is none of it
            timings.encode_ns = time.perf_counter_ns() - self._encoding_ns
        if request.is_first_part:
            return
        if request.first_part:
            for part in _KEPT:
                account.hold(part, 0)
        self._pipeline.tell(self._response, request.first_part, self._context, self._started_ns)
        self._pipeline.samples.take(request, self._response, self._context)

    def _fail(self) -> None:
        of_parts: bool = self._request.is_first_part or self._request.first_part is not None
        for part in ("input", "result", "answer", *(("labels", "writing", *_KEPT) if of_parts else ())):
            self._context.account.hold(part, 0)
        first, model = self._request.first_part, self._request.model
        took_ns = time.perf_counter_ns() - self._started_ns + (first.took_ns if first else 0)
        self._pipeline.metrics.observe_failure(model.name, model.version, took_ns)


def _reserve(request: InferenceRequest, plan: Plan, rows: int, account: Account) -> None:
    """Reserve what will be held: what is computed, and what is sent at once.

    That is all, unless it goes by layers or is of a map, which is reserved by itself.

    Raises:
        TooBusy: Others hold too much, or the client's other requests do.
    """
    is_sent = not request.layer_by_layer and request.further_field != "map"
    answer_bytes = COPIES * plan.answer_bytes(rows) if is_sent else 0
    account.reserve(result=plan.computed_bytes(rows), answer=answer_bytes)
