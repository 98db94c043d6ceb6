"""What a caller wants written, in the words of both protocols, and what comes back token by token."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from artifact.text import Tokens
from server.attention.request import AttentionRequest
from server.inference.sound import SoundLength
from server.relevance.tokens import TokenRelevances
from server.repository.loading import LoadedModel

AttentionKind = Literal["self", "cross"]
FinishReason = Literal["end", "length", "stop", "target"]
_TOKEN_BYTES = 64  # of a token in an answer, about


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; the fields are those of regard.v1.Sampling.

    Attributes:
        temperature: Logits are divided by it.
        top_k: Of the likeliest so many; 0 for all.
        top_p: Of the fewest likeliest whose probabilities sum to this or more.
        seed: Of the draws, which follow from it and the request alone; None for one that nobody knows.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """What a caller wants written, unchecked against the model; the fields are those of regard.v1.GenerateRequest.

    Attributes:
        model: Which is asked.
        text: What it reads; empty where that is a sound.
        truncate: Whether a text with too many tokens is cut.
        start: The name of what it begins with; empty for the model's default.
        max_tokens: The most that is written; 0 for the model's.
        num_beams: How many beginnings are kept at each step; 0 for the model's, 1 for greedy.
        num_results: How many of these are told.
        length_penalty: See GenerationContract; None for the model's.
        sampling: How tokens are drawn; None where the likeliest are taken.
        stop: Texts behind which nothing is written any more.
        target: A text that is scored instead of what it would write; None for none.
        alternatives: How many tokens are told at each step, the likeliest first, besides that which was taken.
        attention: What is wanted of each step's attention, by kind.
        audio: A sound file that it hears; None where it reads a text.
        relevance: Which tokens of the best result are explained, counted from 0, below 0 from the end, and none for
            all; None for no explanation.
    """

    model: LoadedModel
    text: str
    truncate: bool = False
    start: str = ""
    max_tokens: int = 0
    num_beams: int = 0
    num_results: int = 1
    length_penalty: float | None = None
    sampling: Sampling | None = None
    stop: tuple[str, ...] = ()
    target: str | None = None
    alternatives: int = 0
    attention: "dict[AttentionKind, AttentionRequest] | None" = None
    audio: bytes | None = None
    relevance: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepAttention:
    """What one step attends to in one layer.

    Attributes:
        kind: To the source ("cross"), or to what was written, this step's own token included ("self").
        layer: Of the decoder, counted from 0.
        heads: Which heads it has, or which were reduced.
        reduced: Whether these were made one.
        weights: float32 [heads, keys], or [keys] where reduced; each row sums to 1.
    """

    kind: AttentionKind
    layer: int
    heads: tuple[int, ...]
    reduced: bool
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedToken:
    """One token, as it was written.

    Attributes:
        token: Its number.
        text: What it adds to the text; may be empty, and may hold what an earlier one left open.
        log_probability: Of it among all tokens, before sampling changed them.
        alternatives: The likeliest tokens of this step, with their log-probabilities.
        attention: Of the step that wrote it.
    """

    token: int
    text: str
    log_probability: float
    alternatives: tuple[tuple[int, float], ...] = ()
    attention: tuple[StepAttention, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedText:
    """One whole result.

    Attributes:
        tokens: In their order; the end token, if it was written, is the last, and adds no text.
        text: All of it.
        log_probability: The sum of the tokens'.
        finish_reason: "end" token, "length", a "stop" text, or the "target" that was scored is over.
    """

    tokens: tuple[GeneratedToken, ...]
    text: str
    log_probability: float
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class GenerationTimings:
    """How long a generation took, in nanoseconds.

    Attributes:
        decode_ns: Reading the request.
        encode_ns: From then until the source was encoded, waiting included.
        first_token_ns: From its arrival until its first token.
        total_ns: From its arrival until its end.
        steps: Of the decoder.
        explain_ns: From when the text was whole until it was explained; 0 where it was not.
    """

    decode_ns: int
    encode_ns: int
    first_token_ns: int
    total_ns: int
    steps: int
    explain_ns: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class GenerationStart:
    """What comes first, once the source was read.

    Attributes:
        source: The text as the encoder reads it, with positions where attention is wanted; or the sound.
    """

    source: Tokens | SoundLength


@dataclass(frozen=True, slots=True, eq=False)
class GenerationEnd:
    """What comes last.

    Attributes:
        results: The best first.
        timings: How long it took.
        start: The name of what it began with, one of GenerationContract.starts.
        relevance: Why tokens of the best result were written; None where that was not asked for.
    """

    results: tuple[GeneratedText, ...]
    timings: GenerationTimings
    start: str
    relevance: TokenRelevances | None = None


GenerationEvent = GenerationStart | GeneratedToken | GenerationEnd


def size_of(event: GenerationEvent) -> int:
    """Return about how many bytes there are to write of an event."""
    match event:
        case GeneratedToken():
            return _TOKEN_BYTES * (1 + len(event.alternatives)) + sum(one.weights.nbytes for one in event.attention)
        case GenerationEnd():
            explained_bytes = event.relevance.size_bytes if event.relevance else 0
            return explained_bytes + sum(size_of(token) for result in event.results for token in result.tokens)
    return 0
