"""Texts that are written, in the messages of regard.v1: what is wanted, and what is sent."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.counts import MAX_TENSORS, check_count
from server.api.regard_v1.attention import KINDS, read_attention
from server.api.regard_v1.describe import describe_sound, describe_tokens
from server.api.regard_v1.tensors import write_tensor
from server.context import RpcContext
from server.generation.request import (
    AttentionKind,
    FinishReason,
    GeneratedText,
    GeneratedToken,
    GenerationEnd,
    GenerationEvent,
    GenerationRequest,
    GenerationStart,
    Sampling,
    size_of,
)
from server.generation.validation import check_answer_size
from server.inference.sound import SoundLength
from server.inference.workers import Workers
from server.relevance.tokens import TokenRelevances
from server.repository.loading import LoadedModel

_KINDS: dict[AttentionKind, pb.AttentionKind] = {"cross": KINDS["cross"], "self": KINDS["causal"]}
_REASONS: dict[FinishReason, api.FinishReason] = {
    "end": api.FINISH_REASON_END,
    "length": api.FINISH_REASON_LENGTH,
    "stop": api.FINISH_REASON_STOP,
    "target": api.FINISH_REASON_TARGET,
}
_ATTENTION_FIELDS: tuple[tuple[AttentionKind, str], ...] = (("cross", "cross_attention"), ("self", "self_attention"))


def read_generation(message: api.GenerateRequest, model: LoadedModel, context: RpcContext) -> GenerationRequest:
    """Read what is to be written.

    Raises:
        InvalidInput: A list is too long, or a value none of its enumeration.
        PermissionDenied: The caller may not see attention or relevance, which is asked for.
    """
    check_count("stop", len(message.stop), MAX_TENSORS)
    return GenerationRequest(
        model,
        message.text,
        message.truncate,
        start=message.start,
        max_tokens=message.max_tokens,
        num_beams=message.num_beams,
        num_results=message.num_results or 1,
        length_penalty=message.length_penalty if message.HasField("length_penalty") else None,
        sampling=_read_sampling(message.sampling) if message.HasField("sampling") else None,
        stop=tuple(message.stop),
        target=message.target or None,
        alternatives=message.alternatives,
        attention={
            kind: read_attention(getattr(message, field), field)
            for kind, field in _ATTENTION_FIELDS
            if _is_wanted(message, field, context)
        },
        audio=message.audio or None,
        relevance=tuple(message.relevance.tokens) if _is_wanted(message, "relevance", context) else None,
    )


def _is_wanted(message: api.GenerateRequest, field: str, context: RpcContext) -> bool:
    if not message.HasField(field):
        return False
    context.caller.require("attention", field)
    return True


def _read_sampling(message: api.Sampling) -> Sampling:
    return Sampling(
        temperature=message.temperature if message.HasField("temperature") else 1.0,
        top_k=message.top_k,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        seed=message.seed if message.HasField("seed") else None,
    )


async def write_each(
    events: AsyncGenerator[GenerationEvent], request: GenerationRequest, workers: Workers, max_bytes: int
) -> AsyncGenerator[api.GenerateResponse]:
    """Write a message of each event; events end when messages do.

    Raises:
        ServerError: The engine's.
        InvalidInput: The attention of one token is larger than a message holds.
    """
    has_sent = False
    async with aclosing(events):
        async for event in events:
            write = partial(_write_event, event, request, max_bytes, has_sent=has_sent)
            has_sent = isinstance(event, GeneratedToken)
            yield await workers.encode(write, size_of(event))


async def write_whole(
    events: AsyncGenerator[GenerationEvent], request: GenerationRequest, workers: Workers, max_bytes: int
) -> api.GenerateTextResponse:
    """Write all events into one message.

    Raises:
        ServerError: The engine's.
        InvalidInput: The attention of all tokens is larger than a message holds.
    """
    answer = api.GenerateTextResponse()

    def write(end: GenerationEnd) -> None:
        _write_end(end, request, answer.end, has_sent=False)
        check_answer_size(
            request, answer.ByteSize(), max_bytes, "Generate, which sends each token by itself; fewer layers or heads"
        )

    async with aclosing(events):
        async for event in events:
            if isinstance(event, GenerationStart):
                _write_start(event, request, answer.start)
            elif isinstance(event, GenerationEnd):
                await workers.encode(partial(write, event), size_of(event))
    return answer


def _write_event(
    event: GenerationEvent, request: GenerationRequest, max_bytes: int, *, has_sent: bool
) -> api.GenerateResponse:
    message = api.GenerateResponse()
    match event:
        case GenerationStart():
            _write_start(event, request, message.start)
        case GeneratedToken():
            _write_token(event, event.text, request.model, message.token)
            check_answer_size(request, message.ByteSize(), max_bytes, "fewer layers or heads, or a mean over heads")
        case GenerationEnd():
            _write_end(event, request, message.end, has_sent=has_sent)
            check_answer_size(request, message.ByteSize(), max_bytes, "fewer results or tokens")
    return message


def _write_start(found: GenerationStart, request: GenerationRequest, message: api.GenerationStart) -> None:
    """Say who answers, and what was read where attention to it, or its relevance, is wanted."""
    message.model, message.version = request.model.name, request.model.version
    if isinstance(found.source, SoundLength):
        message.sound.CopyFrom(describe_sound(found.source, request.model))
        return
    message.truncated = found.source.truncated
    if request.attention or request.relevance is not None:
        message.source.CopyFrom(describe_tokens(found.source))


def _write_token(found: GeneratedToken, text: str, model: LoadedModel, message: api.GeneratedToken) -> None:
    """Write one token, and the text that it adds, into an answer."""
    message.token, message.text, message.log_probability = found.token, text, found.log_probability
    for token, log_probability in found.alternatives:
        spelt = model.writer.spell(token) if model.writer else ""
        message.alternatives.add(token=token, text=spelt, log_probability=log_probability)
    for one in found.attention:
        axes = ["key"] if one.reduced else ["head", "key"]
        layer = message.attention.add(layer=one.layer, kind=_KINDS[one.kind], axes=axes, heads=one.heads)
        write_tensor(one.weights, layer.weights)


def _write_end(found: GenerationEnd, request: GenerationRequest, message: api.GenerationEnd, *, has_sent: bool) -> None:
    """Write the results, and how long they took; without tokens where those of the only one were sent before."""
    for result in found.results:
        written = message.results.add(
            text=result.text, log_probability=result.log_probability, finish_reason=_REASONS[result.finish_reason]
        )
        if not has_sent:
            _write_tokens(result, request.model, written)
    message.start, timings = found.start, found.timings
    message.timings.CopyFrom(
        api.GenerationTimings(
            decode_ns=timings.decode_ns,
            encode_ns=timings.encode_ns,
            first_token_ns=timings.first_token_ns,
            total_ns=timings.total_ns,
            steps=timings.steps,
            explain_ns=timings.explain_ns,
        )
    )
    if found.relevance:
        _write_relevance(found.relevance, request.model, message.relevance)


def _write_relevance(found: TokenRelevances, model: LoadedModel, message: api.GenerationRelevance) -> None:
    """Write why tokens were written, and how they and those that were read are spelt."""
    writer = model.writer
    assert writer is not None  # noqa: S101 -- it has written
    message.tokens.extend(found.chosen)
    message.labels.extend(map(writer.spell, found.tokens))
    message.target_tokens.extend(map(writer.spell, found.read))
    message.num_start_tokens = found.num_start
    message.source_words.extend(found.words)
    write_tensor(found.source, message.source)
    write_tensor(found.target, message.target)
    message.rest.extend(found.rest.tolist())
    message.score.extend(found.score.tolist())
    message.error.extend(one.error for one in found.completeness)
    message.relative_error.extend(one.relative_error for one in found.completeness)


def _write_tokens(result: GeneratedText, model: LoadedModel, message: api.GeneratedText) -> None:
    """Write the tokens of a whole result, with the text that each adds, which its writing did not tell."""
    generation, writer = model.contract.generation, model.writer
    assert generation is not None and writer is not None  # noqa: S101 -- it has written
    pieces = writer.pieces([token.token for token in result.tokens], generation.end_tokens)
    for token, text in zip(result.tokens, pieces, strict=True):
        _write_token(token, text, model, message.tokens.add())
