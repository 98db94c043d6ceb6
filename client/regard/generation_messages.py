"""Requests for texts, and what comes back of them, without any network."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from regard import checks
from regard.attention import Token
from regard.decoding import read_layer, read_tokens
from regard.encoding import write_attention
from regard.generation import (
    Alternative,
    FinishReason,
    Generated,
    GeneratedText,
    GeneratedToken,
    GenerateOptions,
    GenerationTimings,
    Sampling,
    SoundPositions,
    TokenRelevance,
)
from regard.inputs import read_audio
from regard.tensors import read_tensor
from regard.v1 import regard_pb2 as rpc

_REASONS: dict[rpc.FinishReason, FinishReason] = {
    rpc.FINISH_REASON_END: "end",
    rpc.FINISH_REASON_LENGTH: "length",
    rpc.FINISH_REASON_STOP: "stop",
    rpc.FINISH_REASON_TARGET: "target",
}


def generate_request(text: str, **options: Unpack[GenerateOptions]) -> rpc.GenerateRequest:
    """Build a request from a text, or from a sound.

    Raises:
        InvalidCall: An argument cannot be sent.
    """
    if unknown := set(options) - set(GenerateOptions.__annotations__):
        raise checks.invalid(min(unknown), "given", f"only {', '.join(GenerateOptions.__annotations__)}")
    audio = options.get("audio")
    length_penalty, target = options.get("length_penalty"), options.get("target")
    if target is not None and not checks.text("target", target):
        raise checks.invalid("target", target, "a text with something in it, or None")
    return rpc.GenerateRequest(
        text=checks.text("text", text),
        audio=b"" if audio is None else read_audio(audio),
        model=checks.name("model", options.get("model", "")),
        version=checks.name("version", options.get("version", "")),
        truncate=checks.flag("truncate", options.get("truncate", False)),
        start=checks.name("start", options.get("start", "")),
        max_tokens=_count("max_tokens", options.get("max_tokens", 0)),
        num_beams=_count("num_beams", options.get("num_beams", 0)),
        num_results=_count("num_results", options.get("num_results", 1)),
        length_penalty=None if length_penalty is None else checks.real("length_penalty", length_penalty),
        sampling=_write_sampling(options.get("sampling")),
        stop=checks.texts("stop", options.get("stop", ())),
        target=target or "",
        alternatives=_count("alternatives", options.get("alternatives", 0)),
        cross_attention=write_attention(options.get("cross_attention"), "cross_attention"),
        self_attention=write_attention(options.get("self_attention"), "self_attention"),
        priority=_count("priority", options.get("priority", 0)),
        relevance=_write_relevance(options.get("relevance")),
    )


def _count(field: str, value: int) -> int:
    return checks.integer(field, value, 0, checks.MAX_UINT32)


def _write_relevance(wanted: bool | Sequence[int] | None) -> rpc.GenerationRelevanceRequest | None:
    if wanted is None or wanted is False:
        return None
    if wanted is True:
        return rpc.GenerationRelevanceRequest()
    if not (tokens := checks.integers("relevance", wanted)):
        raise checks.invalid("relevance", wanted, "True for all tokens, or one or more of them")
    return rpc.GenerationRelevanceRequest(tokens=tokens)


def _write_sampling(sampling: Sampling | None) -> rpc.Sampling | None:
    if sampling is None:
        return None
    if not isinstance(sampling, Sampling):
        raise checks.invalid("sampling", sampling, "a Sampling")
    return rpc.Sampling(
        temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, seed=sampling.seed
    )


def read_generated(start: rpc.GenerationStart, end: rpc.GenerationEnd, sent: Sequence[GeneratedToken]) -> Generated:
    """Read all of an answer.

    Args:
        start: Its first part.
        end: Its last.
        sent: The tokens between them, which are those of the only result.
    """
    timings = end.timings
    return Generated(
        model=start.model,
        version=start.version,
        source=read_source(start),
        sound=_read_sound(start),
        truncated=start.truncated,
        results=tuple(_read_text(result, sent) for result in end.results),
        timings=GenerationTimings(
            timings.decode_ns,
            timings.encode_ns,
            timings.first_token_ns,
            timings.total_ns,
            timings.steps,
            timings.explain_ns,
        ),
        start=end.start,
        relevance=_read_relevance(end.relevance, read_source(start)) if end.HasField("relevance") else None,
    )


def _read_relevance(why: rpc.GenerationRelevance, source: tuple[Token, ...]) -> TokenRelevance:
    numbers = [np.array(one, np.float32) for one in (why.rest, why.score, why.error, why.relative_error)]
    for array in numbers:
        array.flags.writeable = False
    rest, score, error, relative_error = numbers
    return TokenRelevance(
        tokens=tuple(why.tokens),
        labels=tuple(why.labels),
        source=read_tensor(why.source),
        target=read_tensor(why.target),
        rest=rest,
        score=score,
        error=error,
        relative_error=relative_error,
        source_tokens=source,
        source_words=tuple(why.source_words),
        target_tokens=tuple(why.target_tokens),
        num_start_tokens=why.num_start_tokens,
    )


def read_source(start: rpc.GenerationStart) -> tuple[Token, ...]:
    """Read the text as the model read it; nothing where no attention was asked for."""
    return tuple(read_tokens(start.source))


def _read_sound(start: rpc.GenerationStart) -> SoundPositions | None:
    if not start.HasField("sound"):
        return None
    return SoundPositions(start.sound.count, start.sound.position_seconds, start.sound.seconds)


def read_generated_token(token: rpc.GeneratedToken) -> GeneratedToken:
    """Read one token."""
    return GeneratedToken(
        token=token.token,
        text=token.text,
        log_probability=token.log_probability,
        alternatives=tuple(Alternative(one.token, one.text, one.log_probability) for one in token.alternatives),
        attention=tuple(read_layer(layer) for layer in token.attention),
    )


def _read_text(result: rpc.GeneratedText, sent: Sequence[GeneratedToken]) -> GeneratedText:
    tokens = tuple(map(read_generated_token, result.tokens)) or tuple(sent)
    reason = _REASONS.get(result.finish_reason, "unspecified")
    return GeneratedText(result.text, result.log_probability, reason, tokens)
