"""The way of one request behind the protocol: preprocess, plan its attention, compute, and account for it."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from server.attention.planning import AttentionLimits
from server.context import RpcContext, Timings
from server.errors import ServerError
from server.inference.decoding import Decoders
from server.inference.image_rows import image_contract, read_images
from server.inference.items import make_item, plan_request
from server.inference.many import ManyInputs
from server.inference.many_reading import pieces
from server.inference.preprocess import (
    InputLimits,
    check_answer_size,
    prepare_images,
    prepare_texts,
    preprocess,
    read_texts,
)
from server.inference.request import (
    Images,
    InferenceRequest,
    InferenceResponse,
    ManyResponses,
    Plan,
    PreparedInput,
    Texts,
)
from server.inference.response_cache import ResponseCache
from server.inference.workers import DECODE_INLINE_BYTES, Workers
from server.ledger import COPIES, Account
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing

Told = TypeVar("Told", InferenceResponse, ManyResponses)


@dataclass(frozen=True)
class Pipeline:
    """Runs requests.

    Attributes:
        workers: For preprocessing, but for images and long texts.
        decoders: For these.
        cache: Stands before the scheduler.
        inputs: Most of what a request may bring.
        attention: Most of the attention, or the hidden states, that may be computed and sent.
        metrics: Where answers are counted.
        tracing: Where stages are told.
    """

    workers: Workers
    decoders: Decoders
    cache: ResponseCache
    inputs: InputLimits
    attention: AttentionLimits
    metrics: Metrics
    tracing: Tracing

    @asynccontextmanager
    async def run(self, request: InferenceRequest, context: RpcContext) -> AsyncIterator[InferenceResponse]:
        """Compute a request; the block encodes its response, and what it takes is told as that stage.

        Args:
            request: What is wanted.
            context: For whom, by when, before whom.

        Raises:
            ServerError: As the steps raise it.
        """
        async with self._running(request, context, self._compute) as response:
            yield response

    @asynccontextmanager
    async def run_each(self, request: InferenceRequest, context: RpcContext) -> AsyncIterator[ManyResponses]:
        """Compute a request of texts or images that have an answer, or an error, each; otherwise as run."""
        async with self._running(request, context, self._compute_each) as found:
            yield found

    @asynccontextmanager
    async def _running(
        self,
        request: InferenceRequest,
        context: RpcContext,
        compute: Callable[[InferenceRequest, RpcContext, int], Awaitable[Told]],
    ) -> AsyncIterator[Told]:
        model, started_ns = request.model, time.perf_counter_ns()
        try:
            with model.usage.request():
                if request.further_field:
                    context.caller.require("attention", request.further_field)
                response = await compute(request, context, started_ns)
                encoding_ns = time.perf_counter_ns()
                yield response
                context.account.hold("result", 0)
                if not response.timings.encode_ns:  # a stream knows better: its caller's reading is none of it
                    response.timings.encode_ns = time.perf_counter_ns() - encoding_ns
        except BaseException:
            for part in ("input", "result", "answer"):
                context.account.hold(part, 0)
            self.metrics.observe_failure(model.name, model.version, time.perf_counter_ns() - started_ns)
            raise
        self._tell(response, context, started_ns)

    async def _compute(self, request: InferenceRequest, context: RpcContext, started_ns: int) -> InferenceResponse:
        prepared = await self._prepare(request, context)
        check_answer_size(request, prepared, self.attention.answer_bytes)
        plan = plan_request(request, prepared, self.attention)
        if plan:
            _reserve(request, plan, prepared.rows, context.account)
        decode_ns = time.perf_counter_ns() - started_ns
        item = make_item(request, prepared, plan, context)
        with request.model.usage.inputs(item.held_bytes):
            result = await self.cache.compute(item)
        timings = Timings(decode_ns, result.queue_ns, result.compute_ns, batch_size=result.batch_size)
        context.account.hold("result", result.size_bytes)
        return InferenceResponse(request.model, prepared, plan, result, timings, item.graph_kind)

    async def _compute_each(self, request: InferenceRequest, context: RpcContext, started_ns: int) -> ManyResponses:
        many = ManyInputs(self.workers, self.decoders, self.cache, self.inputs, self.attention)
        found = await many.compute(request, context, started_ns)
        results = [one.result.size_bytes for one in found.each if isinstance(one, InferenceResponse)]
        context.account.hold("result", sum(results))
        for one in found.each:
            if isinstance(one, ServerError):
                self.metrics.failed_inputs.labels(one.code.name).inc()
        return found

    async def _prepare(self, request: InferenceRequest, context: RpcContext) -> PreparedInput:
        model, inputs = request.model, request.inputs
        if isinstance(inputs, Images):
            contract = image_contract(model)
            rows = await read_images(inputs.contents, contract, self.inputs, self.decoders, context)
            return prepare_images(model, rows)
        if isinstance(inputs, Texts) and inputs.size_bytes > DECODE_INLINE_BYTES:
            jobs = [(partial(read_texts, model, inputs, rows, self.inputs), 0) for rows in pieces(inputs)]
            return prepare_texts(model, [row for part in await self.decoders.run(jobs, context) for row in part])
        return await self.workers.decode(lambda: preprocess(request, self.inputs), inputs.size_bytes)

    def _tell(self, response: InferenceResponse | ManyResponses, context: RpcContext, started_ns: int) -> None:
        """Count an answer, and say how long its stages took."""
        model, graph = response.model, response.graph
        context.timings = response.timings
        self.metrics.observe_answer(
            model.name,
            model.version,
            graph,
            rows=response.rows,
            total_ns=time.perf_counter_ns() - started_ns,
            timings=response.timings,
            further_bytes=response.further_bytes,
            cached=self.cache.is_on,
        )
        attributes = {"regard.model": model.name, "regard.graph": graph}
        self.tracing.stages(context.span, response.timings, attributes)


def _reserve(request: InferenceRequest, plan: Plan, rows: int, account: Account) -> None:
    """Reserve what will be held: what is computed, and what is sent at once, which is all unless it goes by layers.

    Raises:
        TooBusy: Others hold too much, or the client's other requests do.
    """
    answer_bytes = 0 if request.layer_by_layer else COPIES * plan.answer_bytes(rows)
    account.reserve(result=plan.computed_bytes(rows), answer=answer_bytes)
