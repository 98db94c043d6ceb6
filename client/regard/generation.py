"""What a model writes, as callers get it: tokens, whole texts, and what each token attended to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from regard.attention import AttentionKind, AttentionRequest, LayerAttention, Token
from regard.checks import MAX_UINT32, integer, real
from regard.inputs import AudioSource
from regard.relevance import tokens_by_word

FinishReason = Literal["end", "length", "stop", "target", "unspecified"]
StepKind = Literal["cross", "self"]
_KINDS: dict[StepKind, AttentionKind] = {"cross": "cross", "self": "causal"}
_MAX_UINT64 = 2**64 - 1


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: Logits are divided by it; above 0.
        top_k: Draw among so many of the likeliest; 0 for all.
        top_p: Draw among the fewest likeliest whose probabilities sum to this or more, in (0, 1].
        seed: Equal requests with equal seeds are answered alike; None for one that nobody knows.

    Raises:
        InvalidArgument: A field is no such number. It is a ValueError too.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        real("sampling temperature", self.temperature)
        integer("sampling top_k", self.top_k, 0, MAX_UINT32)
        real("sampling top_p", self.top_p)
        if self.seed is not None:
            integer("sampling seed", self.seed, 0, _MAX_UINT64)


class GenerateOptions(TypedDict, total=False):
    """What `Client.generate` and its like take besides the text.

    Attributes:
        model: May be empty where only one is served.
        version: Empty means the newest.
        truncate: Cut a text that has more tokens than the model takes, instead of refusing it.
        start: The name of what the decoder reads first, one of the model's `generation.starts`; empty for its own.
        max_tokens: The most tokens that are written; 0 for the model's.
        num_beams: How many beginnings are kept at each step; 1 takes the likeliest token, 0 is the model's own.
        num_results: How many of them to tell, the best first.
        length_penalty: Of beams: they are ranked by log-probability / length ^ length_penalty; None for the model's.
        sampling: Draw tokens instead of taking the likeliest.
        stop: Texts behind which nothing is written any more.
        target: Score this text instead of writing one.
        alternatives: How many tokens to tell at each step, the likeliest first.
        cross_attention: What to tell of each step's attention to the text that was read; only layers, heads and
            reduce_heads may be set.
        self_attention: Likewise, to what was written.
        priority: 1 is served first, then 2, then 3; 0 means 2.
        timeout: Seconds until the end, instead of the client's own.
        audio: A WAV or FLAC file, its bytes or its path, for a model that hears; there is no text then.
        relevance: True explains every token of the best result, once all are written; or which ones, counted from 0,
            below 0 from the end. False and None explain nothing.
    """

    model: str
    version: str
    truncate: bool
    start: str
    max_tokens: int
    num_beams: int
    num_results: int
    length_penalty: float | None
    sampling: Sampling | None
    stop: tuple[str, ...] | list[str]
    target: str | None
    alternatives: int
    cross_attention: AttentionRequest | None
    self_attention: AttentionRequest | None
    priority: int
    timeout: float | None
    audio: AudioSource | None
    relevance: bool | Sequence[int] | None


@dataclass(frozen=True)
class Alternative:
    """A token that might have been written.

    Attributes:
        token: Its number in the vocabulary.
        text: As the vocabulary spells it.
        log_probability: Natural logarithm of its probability.
    """

    token: int
    text: str
    log_probability: float


@dataclass(frozen=True, eq=False)
class GeneratedToken:
    """One token that was written, or scored.

    Attributes:
        token: Its number in the vocabulary.
        text: What it adds to the text; empty for an end token, and where a character is not whole yet.
        log_probability: Natural logarithm of its probability among all tokens, whatever sampling made of it.
        alternatives: The likeliest tokens of this step, as many as were asked for.
        attention: What this step attended to, as it was asked for: "cross" to the source, "causal" to what was
            written; its axes are "head" (absent after a reduction) and "key".
    """

    token: int
    text: str
    log_probability: float
    alternatives: tuple[Alternative, ...] = ()
    attention: tuple[LayerAttention, ...] = ()


@dataclass(frozen=True)
class GenerationTimings:
    """How long a generation took on the server, in nanoseconds.

    Attributes:
        decode_ns: Checking and tokenisation.
        encode_ns: From then until the source was encoded, waiting included.
        first_token_ns: From the request's arrival until its first token.
        total_ns: From its arrival until its end.
        steps: Of the decoder.
        explain_ns: From when the text was whole until it was explained; 0 where that was not asked for.
    """

    decode_ns: int
    encode_ns: int
    first_token_ns: int
    total_ns: int
    steps: int
    explain_ns: int = 0


@dataclass(frozen=True, eq=False)
class GeneratedText:
    """One whole result.

    Attributes:
        text: All of it.
        log_probability: The sum of its tokens', that of the end token included.
        finish_reason: "end" (the model ended it), "length", "stop", or "target" (all of it was scored).
        tokens: In their order.
    """

    text: str
    log_probability: float
    finish_reason: FinishReason
    tokens: tuple[GeneratedToken, ...]

    def alignment(self, layer: int = -1, kind: StepKind = "cross") -> LayerAttention:
        """Put together what each token attended to in the source, or in what was written before it.

        Args:
            layer: From 0; negative numbers count from the last layer sent.
            kind: Cross attention, or self attention.

        Returns:
            One layer, [H, Q, K], or [Q, K] after a reduction. Of cross attention, queries are the tokens, and keys
            those of `Generated.source`, or the positions of `Generated.sound`. Of self attention, both are positions of
            what the decoder had read: what it begins with, then all tokens but the last; weights are 0 behind each
            query.

        Raises:
            LookupError: The answer holds no attention of this kind, or not of this layer.
        """
        rows = [_step(token, layer, kind) for token in self.tokens]
        if not rows:
            raise LookupError("no token in this answer")
        first, num_keys = rows[0], rows[-1].weights.shape[-1]
        weights = np.stack([_widened(row.weights, num_keys) for row in rows], axis=-2)
        weights.flags.writeable = False
        start = first.weights.shape[-1] - 1 if kind == "self" else 0
        queries = tuple(range(start, start + len(rows)))
        return LayerAttention(
            first.layer, _KINDS[kind], (*first.axes[:-1], "query", "key"), first.heads, queries, weights
        )


@dataclass(frozen=True)
class SoundPositions:
    """How positions lie in a sound that was heard, one behind another.

    Attributes:
        count: How many there are; those behind the sound's end are of silence.
        position_seconds: How long each is.
        seconds: How long the sound is.
    """

    count: int
    position_seconds: float
    seconds: float


@dataclass(frozen=True)
class SourceWord:
    """A word of the text that was read.

    Attributes:
        start: Where in the text it begins, in code points.
        end: Where it ends, exclusive.
        tokens: Positions of its tokens in `Generated.source`.
    """

    start: int
    end: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class TokenRelevance:
    """Why tokens were written: what each position did for a token's logit, by Libra; a row for each token.

    A row of `source` and of `target` and its `rest` sum to its `score`, but for its `error`. Arrays are float32 and
    read-only.

    Attributes:
        tokens: Which of `results[0].tokens` these are.
        labels: How each is spelt.
        source: [tokens, S], of what was read: `Generated.source`, or the positions of `Generated.sound`.
        target: [tokens, T], of what the decoder had read; 0 at what came later.
        rest: [tokens], what belongs to no position.
        score: [tokens], the logits.
        error: [tokens], how far all parts are from making them up.
        relative_error: [tokens], the same as a share of all that was added, whatever its sign.
        source_tokens: What was read, token by token; empty of a sound.
        source_words: Which word each of these is of, counted from 0; -1 for special ones.
        target_tokens: How what the decoder had read is spelt.
        num_start_tokens: How many of these it began with, before what it wrote.
    """

    tokens: tuple[int, ...]
    labels: tuple[str, ...]
    source: NDArray[np.float32]
    target: NDArray[np.float32]
    rest: NDArray[np.float32]
    score: NDArray[np.float32]
    error: NDArray[np.float32]
    relative_error: NDArray[np.float32]
    source_tokens: tuple[Token, ...]
    source_words: tuple[int, ...]
    target_tokens: tuple[str, ...]
    num_start_tokens: int

    def by_word(self) -> tuple[tuple[SourceWord, ...], NDArray[np.float32]]:
        """Sum the tokens of each word of the source; returns the words, and float32 [tokens, words].

        Raises:
            LookupError: A sound was heard, which has no words.
        """
        if not self.source_tokens:
            raise LookupError("no text was read, but a sound, whose positions are no words")
        found = tokens_by_word(self.source_words)
        words = tuple(
            SourceWord(self.source_tokens[own[0]].start, self.source_tokens[own[-1]].end, tuple(own)) for own in found
        )
        sums = np.zeros((len(self.tokens), len(words)), np.float32)
        for column, own in enumerate(found):
            sums[:, column] = self.source[:, own].sum(axis=1)
        return words, sums

    def __repr__(self) -> str:
        within = max(self.relative_error.tolist(), default=0.0)
        return f"TokenRelevance({' '.join(self.labels)}: of {self.source.shape[1]} positions, within {within:.1g})"


@dataclass(frozen=True, eq=False)
class Generated:
    """Everything that was written for one call.

    Attributes:
        model: Which model answered.
        version: Which version of it.
        source: The text that was read, token by token; empty unless attention or relevance was asked for.
        truncated: It had more tokens than the model takes and was cut.
        results: The best first.
        timings: Of this request.
        sound: What was heard, where that was a sound: what keys of cross attention stand for.
        start: The name of what it began with, which of several was the likeliest; empty from older servers.
        relevance: Why tokens of the best result were written; None unless that was asked for.
    """

    model: str
    version: str
    source: tuple[Token, ...]
    truncated: bool
    results: tuple[GeneratedText, ...]
    timings: GenerationTimings
    sound: SoundPositions | None = None
    start: str = ""
    relevance: TokenRelevance | None = None

    @property
    def text(self) -> str:
        """The best text."""
        return self.results[0].text if self.results else ""


def _step(token: GeneratedToken, layer: int, kind: StepKind) -> LayerAttention:
    found = {one.layer: one for one in token.attention if one.kind == _KINDS[kind]}
    sent = sorted(found)
    wanted = sent[layer] if -len(sent) <= layer < 0 else layer
    if wanted not in found:
        raise LookupError(f"no {kind} attention of layer {layer} in this answer, which holds {sent}")
    return found[wanted]


def _widened(weights: NDArray[Any], num_keys: int) -> NDArray[Any]:
    """Put zeros behind the keys, so that there are so many."""
    return np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, num_keys - weights.shape[-1])])
