"""The way of one request behind the protocol: preprocess, plan its attention, compute, and account for it."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from server.attention.plan import AttentionPlan
from server.attention.planning import AttentionLimits, Positions, plan_attention
from server.context import RpcContext, Timings
from server.inference.decoding import Decoders
from server.inference.image_rows import image_contract, read_images
from server.inference.preprocess import (
    InputLimits,
    check_answer_size,
    prepare_images,
    prepare_texts,
    preprocess,
    read_texts,
    special_positions,
)
from server.inference.request import Images, InferenceRequest, InferenceResponse, PreparedInput, Texts
from server.inference.response_cache import ResponseCache
from server.inference.workers import DECODE_INLINE_BYTES, Workers
from server.ledger import COPIES, Account
from server.scheduling.batch import BatchItem, GraphKind, Runner
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing

_PIECE_CHARACTERS = 2**16


@dataclass(frozen=True)
class Pipeline:
    """Runs requests.

    Attributes:
        workers: For preprocessing, but for images and long texts.
        decoders: For these.
        cache: Stands before the scheduler.
        inputs: Most of what a request may bring.
        attention: Most of the attention that may be computed and sent.
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
        model, started_ns = request.model, time.perf_counter_ns()
        try:
            with model.usage.request():
                response, graph = await self._compute(request, context, started_ns)
                encoding_ns = time.perf_counter_ns()
                yield response
                context.account.hold("result", 0)
                if not response.timings.encode_ns:  # a stream knows better: its caller's reading is none of it
                    response.timings.encode_ns = time.perf_counter_ns() - encoding_ns
        except BaseException:
            context.account.hold("result", 0)
            context.account.hold("answer", 0)
            self.metrics.observe_failure(model.name, model.version, time.perf_counter_ns() - started_ns)
            raise
        self._tell(response, graph, context, started_ns)

    async def _compute(
        self, request: InferenceRequest, context: RpcContext, started_ns: int
    ) -> tuple[InferenceResponse, GraphKind]:
        if request.attention is not None:
            context.caller.require("attention", "attention")
        prepared = await self._prepare(request, context)
        check_answer_size(request, prepared, self.attention.answer_bytes)
        plan = self._plan(request, prepared)
        if plan:
            _reserve(request, plan, prepared.rows, context.account)
        decode_ns = time.perf_counter_ns() - started_ns
        item = _make_item(request, prepared, plan, context)
        with request.model.usage.inputs(item.held_bytes):
            result = await self.cache.compute(item)
        timings = Timings(decode_ns, result.queue_ns, result.compute_ns, batch_size=result.batch_size)
        context.account.hold("result", result.size_bytes)
        return InferenceResponse(request.model, prepared, plan, result, timings), item.graph_kind

    async def _prepare(self, request: InferenceRequest, context: RpcContext) -> PreparedInput:
        model, inputs = request.model, request.inputs
        if isinstance(inputs, Images):
            contract = image_contract(model)
            rows = await read_images(inputs.contents, contract, self.inputs, self.decoders, context)
            return prepare_images(model, rows)
        if isinstance(inputs, Texts) and inputs.size_bytes > DECODE_INLINE_BYTES:
            jobs = [(partial(read_texts, model, piece, self.inputs), 0) for piece in _pieces(inputs)]
            return prepare_texts(model, [row for part in await self.decoders.run(jobs, context) for row in part])
        return await self.workers.decode(lambda: preprocess(request, self.inputs), inputs.size_bytes)

    def _plan(self, request: InferenceRequest, prepared: PreparedInput) -> AttentionPlan | None:
        if request.attention is None:
            return None
        contract = request.model.contract
        special = special_positions(request.model, prepared)
        positions = Positions(prepared.rows, contract.axis_sizes(prepared.inputs), prepared.length, special)
        return plan_attention(
            request.attention, contract, positions, self.attention, layer_by_layer=request.layer_by_layer
        )

    def _tell(self, response: InferenceResponse, graph: GraphKind, context: RpcContext, started_ns: int) -> None:
        """Count an answer, and say how long its stages took."""
        model, plan, rows = response.model, response.plan, response.prepared.rows
        context.timings = response.timings
        self.metrics.observe_answer(
            model.name,
            model.version,
            graph,
            rows=rows,
            total_ns=time.perf_counter_ns() - started_ns,
            timings=response.timings,
            attention_bytes=plan.answer_bytes(rows) if plan else 0,
            cached=self.cache.is_on,
        )
        attributes = {"regard.model": model.name, "regard.graph": graph}
        self.tracing.stages(context.span, response.timings, attributes)


def _pieces(texts: Texts) -> Iterator[Texts]:
    """Cut texts into pieces of some 64 KiB, of a single longer text at most: others are tokenised between them."""
    piece, size = list[str](), 0
    for text in texts.texts:
        if piece and size + len(text) > _PIECE_CHARACTERS:
            yield replace(texts, texts=tuple(piece))
            piece, size = [], 0
        piece.append(text)
        size += len(text)
    yield replace(texts, texts=tuple(piece))


def _reserve(request: InferenceRequest, plan: AttentionPlan, rows: int, account: Account) -> None:
    """Reserve what will be held: what is computed, and what is sent at once, which is all unless it goes by layers.

    Raises:
        TooBusy: Others hold too much, or the client's other requests do.
    """
    answer_bytes = 0 if request.layer_by_layer else COPIES * plan.answer_bytes(rows)
    account.reserve(result=plan.computed_bytes(rows), answer=answer_bytes)


def _make_item(
    request: InferenceRequest, prepared: PreparedInput, plan: AttentionPlan | None, context: RpcContext
) -> BatchItem:
    """Choose the graph that gives no more than what is wanted."""
    engine, contract = request.model.engine, request.model.contract
    graph: Runner = engine.plain
    if plan and (tapped := engine.contributing if plan.takes_contributions else engine.tapped):
        graph = tapped
    attentions = plan.outputs if plan else ()
    return BatchItem(
        graph, contract, prepared.inputs, prepared.rows, prepared.length, request.outputs, attentions, context
    )
