"""Writes texts: reads the source by the encoder, lets the text be written with others, and hands on what comes.

request -> encoder, batched as every request -> rows of the model's steps -> tokens, as they are made -> the end
"""

import time
import weakref
from collections.abc import AsyncGenerator, Sequence

from artifact.text import Tokens
from server.context import RpcContext
from server.generation.group import Group, News
from server.generation.plan import GenerationPlan
from server.generation.request import (
    GenerationEnd,
    GenerationEvent,
    GenerationRequest,
    GenerationStart,
    GenerationTimings,
)
from server.generation.validation import GenerationLimits, check_request, check_target_length, plan_request
from server.generation.writing import BeamWriting, StraightWriting, Writing
from server.inference.pipeline import Pipeline
from server.inference.request import InferenceRequest, InferenceResponse, Texts
from server.ledger import Account
from server.repository.loading import LoadedModel
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics

_FLOAT_BYTES = 4
_TOKEN_BYTES = 512  # of one that was written, as an object, with its text


class Generator:
    """Writes texts for all models; lives in the event loop."""

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        limits: GenerationLimits,
        instances: int,
        max_rows: int,
        metrics: Metrics,
    ) -> None:
        """Begin without any.

        Args:
            pipeline: Encodes what is read.
            scheduler: Gives turns.
            limits: Of a request.
            instances: Of the engine: as many groups of rows of one model are written at a time.
            max_rows: Of a group.
            metrics: Where everything is counted.
        """
        self._pipeline, self._scheduler, self._limits = pipeline, scheduler, limits
        self._instances, self._max_rows, self._metrics = instances, max(max_rows, limits.max_beams), metrics
        self._groups = weakref.WeakKeyDictionary[LoadedModel, list[Group]]()
        metrics.generation_cache_bytes.set_function(lambda: float(sum(map(_cache_bytes, self._all()))))
        metrics.generation_rows.set_function(lambda: float(sum(group.steps.num_rows for group in self._all())))

    async def generate(
        self, request: GenerationRequest, context: RpcContext, *, streams: bool
    ) -> AsyncGenerator[GenerationEvent]:
        """Yield the start, each token as it is made where it `streams` and one beam is kept, then the end.

        Args:
            request: What is wanted.
            context: For whom, by when, before whom.
            streams: Whether tokens are wanted before the end.

        Raises:
            ServerError: As it is refused, or fails.
        """
        began_ns = time.perf_counter_ns()
        model = request.model
        check_request(request, self._limits)
        plan = plan_request(request)
        usage = model.usage
        usage.enter()
        writing: Writing | None = None
        try:
            target = _read_target(request, plan)
            response = await self._encode(request, context)
            source = response.prepared.source
            assert isinstance(source, Tokens)  # noqa: S101 -- of a single text
            encoded_ns = time.perf_counter_ns()
            _reserve(plan, len(source.ids), context.account)
            writing = _make_writing(request, plan, response, context, target=target, streams=streams)
            group, news = self._group_for(model), News()
            group.join(writing, news)
            yield GenerationStart(source)
            async for event in news.tokens(writing):
                yield event
            total_ns = time.perf_counter_ns() - began_ns
            timings = GenerationTimings(
                response.timings.decode_ns,
                encoded_ns - began_ns - response.timings.decode_ns,
                writing.first_token_ns - began_ns,
                total_ns,
                writing.steps,
            )
            self._observe(model, writing, timings)
            yield GenerationEnd(writing.results, timings)
        finally:
            if writing:
                writing.cancel()
            usage.leave()
            context.account.hold("result", 0)

    async def _encode(self, request: GenerationRequest, context: RpcContext) -> InferenceResponse:
        """Compute the keys and values of the source."""
        generation = request.model.contract.generation
        assert generation is not None  # noqa: S101 -- checked
        texts = Texts((request.text,), request.truncate)
        wanted = InferenceRequest(request.model, texts, tuple(generation.source_names), is_first_part=True)
        async with self._pipeline.run(wanted, context) as response:
            return response

    def _group_for(self, model: LoadedModel) -> "Group":
        """Return the group with the fewest rows."""
        groups = self._groups.get(model)
        if groups is None:
            decoder = model.engine.decoder
            assert decoder is not None  # noqa: S101 -- checked
            groups = self._groups[model] = [
                Group(model.contract, decoder, self._scheduler, self._max_rows, self._metrics)
                for _ in range(self._instances)
            ]
        return min(groups, key=lambda group: group.steps.num_rows)

    def _all(self) -> list["Group"]:
        return [group for groups in self._groups.values() for group in groups]

    def _observe(self, model: LoadedModel, writing: Writing, timings: GenerationTimings) -> None:
        metrics, name = self._metrics, model.name
        written = sum(len(result.tokens) for result in writing.results)
        metrics.generated_tokens.labels(name).inc(written)
        metrics.first_token_seconds.labels(name).observe(timings.first_token_ns / 1e9)
        if written > 1:
            later_ns = timings.total_ns - timings.first_token_ns
            metrics.token_seconds.labels(name).observe(later_ns / 1e9 / max(writing.steps - 1, 1))
        for result in writing.results:
            metrics.finished.labels(name, result.finish_reason).inc()


def _make_writing(
    request: GenerationRequest,
    plan: GenerationPlan,
    response: InferenceResponse,
    context: RpcContext,
    *,
    target: Sequence[int],
    streams: bool,
) -> Writing:
    writer, generation = request.model.writer, request.model.contract.generation
    assert writer is not None and generation is not None  # noqa: S101 -- checked
    outputs = response.result.outputs
    source = [outputs[name] for name in generation.source_names]
    if plan.num_beams > 1:
        return BeamWriting(plan, source, writer, context)
    return StraightWriting(plan, source, writer, context, target=target, streams=streams)


def _read_target(request: GenerationRequest, plan: GenerationPlan) -> list[int]:
    """Return the tokens of the text that is scored, the end token behind them; none where none is.

    Raises:
        InvalidInput: They are too many, or none.
    """
    if request.target is None:
        return []
    writer = request.model.writer
    assert writer is not None  # noqa: S101 -- checked
    tokens = writer.tokens(request.target)
    check_target_length(len(tokens) + 1 if tokens else 0, plan.max_tokens)
    return [*tokens, plan.end_tokens[0]]


def _reserve(plan: GenerationPlan, source_tokens: int, account: Account) -> None:
    """Reserve what the rows' caches and the results will hold, as long as they may become.

    Raises:
        TooBusy: Others hold too much, or the client's other requests do.
    """
    longest = len(plan.start) + plan.max_tokens
    told = _TOKEN_BYTES * (1 + plan.alternatives)
    for one in plan.attention:
        keys = source_tokens if one.kind == "cross" else longest
        told += keys * _FLOAT_BYTES * (1 if one.head_reduction else len(one.heads))
    cached = plan.generation.row_bytes(longest, source_tokens)
    account.reserve(result=plan.num_beams * (cached + plan.max_tokens * _TOKEN_BYTES) + plan.max_tokens * told)


def _cache_bytes(group: Group) -> int:
    return group.steps.cache_bytes
