"""One request's text as it is written: what it reads next, what each step gives, and why it ends."""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from artifact.detokenizing import Detokenizer, TextWriter
from artifact.dtypes import Array
from server.context import RpcContext
from server.errors import DeadlinePassed, InvalidInput, ServerError
from server.generation.beams import Beams, Beginning
from server.generation.caches import Caches
from server.generation.choosing import Sampler, forbid, likeliest
from server.generation.plan import AttentionPlan, GenerationPlan
from server.generation.request import FinishReason, GeneratedText, GeneratedToken, StepAttention

_INSTEAD = "Generate or ModelStreamInfer, which send each token by itself; fewer layers or heads"


class Writing(ABC):
    """One request while it is written; its thread is the engine's, but for `cancel` and what is read at the end.

    Attributes:
        context: Of the request.
        source: Keys and values of what is read, until the rows have them.
        max_length: Tokens that it may come to, those it begins with included.
        source_length: Tokens of what is read.
        rows: Where it stands in the caches.
        news: Whether there is any; of the event loop.
        fresh: Tokens that were written and not yet fetched.
        results: Once it has ended.
        error: Why it has ended without results.
        is_explained: Whether it is, once it has ended, so that its request is computed on.
        steps: It has taken.
        attention_bytes: Of the weights that were told.
        reserved_seconds: Of its client's quota, for steps that it has not had yet.
        first_token_ns: When the first token was written, on time.perf_counter_ns(); 0 before.
    """

    num_rows = 1

    def __init__(self, plan: GenerationPlan, source: Sequence[Array], writer: TextWriter, context: RpcContext) -> None:
        self.plan, self.source, self.context = plan, source, context
        self.max_length, self.source_length = plan.max_length, source[0].shape[2]
        self.rows = list[int]()
        self.news = asyncio.Event()
        self.fresh = deque[GeneratedToken]()  # one thread puts in while another takes out
        self.results: tuple[GeneratedText, ...] = ()
        self.error: ServerError | None = None
        self.is_over = self.is_cancelled = self.is_explained = False
        self.attention_bytes, self.reserved_seconds = 0, 0.0
        self.steps = self.first_token_ns = 0
        self._writer = writer
        self._read = 0
        self._starts = list(plan.starts.values())  # of which it may still be any

    @property
    def start(self) -> tuple[int, ...]:
        """The tokens that it began with; of several starts known once all are read, until then the first possible."""
        return self._starts[0]

    @property
    def weight(self) -> float:
        """Of its client's share."""
        return self.context.caller.weight

    def begin(self, rows: list[int], caches: Caches) -> None:
        """Take rows, which read the first token of what it begins with."""
        self.rows, self.source, self._read = rows, (), 1
        for row in rows:
            caches.set_token(row, self.start[0])

    def fetch(self) -> list[GeneratedToken]:
        """Take what was written since this was last asked."""
        fetched = list[GeneratedToken]()
        while self.fresh:
            fetched.append(self.fresh.popleft())
        return fetched

    def release(self, seconds: float = math.inf) -> float:
        """Take from what is reserved, as it is spent or since it is over; returns how much."""
        released = min(self.reserved_seconds, seconds)
        self.reserved_seconds -= released
        return released

    def cancel(self) -> None:
        """Nobody waits for it any more; may be called in any thread."""
        self.is_cancelled = True

    def has_to_stop(self, now: float) -> bool:
        """Whether nothing more should be written, the caller having gone or its deadline passed."""
        deadline = self.context.deadline
        if deadline is not None and deadline <= now and not self.is_over:
            self.fail(DeadlinePassed(f"the deadline passed after {self.steps} steps"))
        return self.is_cancelled or self.is_over

    def fail(self, error: ServerError) -> None:
        """End it without results."""
        self.error, self.is_over = error, True

    def advance(self, logits: Array, best: Sequence[int], normalizers: Sequence[float], caches: Caches) -> None:
        """Take what a step gave its rows.

        Args:
            logits: Of all rows, float32 [rows, V].
            best: The likeliest token of each.
            normalizers: See `measure`.
            caches: Are told what is read next.
        """
        self.steps += 1
        if self._read < self.plan.start_length:
            token = self._read_on(logits[self.rows[0]])
            for row in self.rows:
                caches.set_token(row, token)
            return
        self.first_token_ns = self.first_token_ns or time.perf_counter_ns()
        self._choose(logits, best, normalizers, caches)

    def _read_on(self, logits: NDArray[np.float32]) -> int:
        """Return the next token that it begins with: of several the likeliest, of equal ones the first."""
        options = sorted({start[self._read] for start in self._starts})
        token = options[int(logits[options].argmax())] if len(options) > 1 else options[0]
        self._starts = [start for start in self._starts if start[self._read] == token]
        self._read += 1
        return token

    @abstractmethod
    def _choose(self, logits: Array, best: Sequence[int], normalizers: Sequence[float], caches: Caches) -> None:
        """Write one token more."""

    def _forbidden(self, written: int) -> tuple[int, ...]:
        generation, forced = self.plan.generation, self._forced_end(written)
        tokens = generation.suppressed_tokens + (() if written else generation.first_suppressed_tokens)
        return tokens if forced is None else tuple(token for token in tokens if token != forced)

    def _forced_end(self, written: int) -> int | None:
        """The token that has to be the next, behind so many, since it is the last there may be."""
        return self.plan.generation.forced_end_token if written + 1 == self.plan.max_tokens else None


class StraightWriting(Writing):
    """One row: the likeliest token at each step, or a drawn one, or the next of a target."""

    def __init__(
        self,
        plan: GenerationPlan,
        source: Sequence[Array],
        writer: TextWriter,
        context: RpcContext,
        *,
        target: Sequence[int] = (),
        streams: bool = False,
        max_told_bytes: float = math.inf,
    ) -> None:
        """Begin a text.

        Args:
            plan: How it is written.
            source: Keys and values of what is read.
            writer: Makes text of tokens.
            context: Of the request.
            target: Tokens that are scored instead; none where it writes.
            streams: Whether tokens are handed out as they are made; of the whole their attention is then no part.
            max_told_bytes: Of attention that one answer may hold, where it does not stream.
        """
        super().__init__(plan, source, writer, context)
        self._target, self._streams, self._max_told_bytes = target, streams, max_told_bytes
        self._sampler = Sampler(plan.sampling) if plan.sampling else None
        self._detokenizer: Detokenizer | None = writer.begin() if streams or plan.stop else None
        self._tokens = list[GeneratedToken]()
        self._text = ""

    def _choose(self, logits: Array, best: Sequence[int], normalizers: Sequence[float], caches: Caches) -> None:
        row = self.rows[0]
        own, forbidden = logits[row], self._forbidden(len(self._tokens))
        if self._target:
            token = self._target[len(self._tokens)]
        elif (forced := self._forced_end(len(self._tokens))) is not None:
            token = forced
        elif self._sampler:
            token = self._sampler.draw(forbid(own, forbidden))
        else:
            token = best[row]
            if token in forbidden:
                token = int(forbid(own, forbidden).argmax())
        told = self._tell(token, own, normalizers[row], caches)
        self._keep(told)
        if self.error:
            return
        if reason := self._why_over(token):
            self._end(reason)
        else:
            caches.set_token(row, token)

    def _keep(self, told: GeneratedToken) -> None:
        """Keep a token for the end; its attention is either handed out now, or has to fit into one answer."""
        if self._streams:
            self.fresh.append(told)
        if told.attention:
            self.attention_bytes += sum(one.weights.nbytes for one in told.attention)
            if self._streams:
                told = replace(told, attention=())
            elif self.attention_bytes > self._max_told_bytes:
                expected = f"at most {self._max_told_bytes} (the server's --max-message-bytes): {_INSTEAD}"
                found = f"an answer of more than {self.attention_bytes} bytes after {len(self._tokens) + 1} tokens"
                self.fail(InvalidInput(f"{told.attention[0].kind}_attention", found, expected))
        self._tokens.append(told)

    def _tell(self, token: int, logits: NDArray[np.float32], normalizer: float, caches: Caches) -> GeneratedToken:
        plan, text = self.plan, ""
        if self._detokenizer and (self._target or token not in plan.end_tokens):
            text = self._detokenizer.add(token)
            self._text += text
        alternatives = tuple(likeliest(logits - normalizer, plan.alternatives)) if plan.alternatives else ()
        attention = tuple(_look(one, self.rows[0], caches) for one in plan.attention) if plan.attention else ()
        return GeneratedToken(token, text, float(logits[token]) - normalizer, alternatives, attention)

    def _why_over(self, token: int) -> FinishReason | None:
        plan, written = self.plan, len(self._tokens)
        if self._target:
            return "target" if written == len(self._target) else None
        if token in plan.end_tokens and self._forced_end(written - 1) is None:
            return "end"
        if plan.stop and any(stop in self._text for stop in plan.stop):
            return "stop"
        return "length" if written >= plan.max_tokens else None

    def _end(self, reason: FinishReason) -> None:
        tokens = tuple(self._tokens)
        text = self._writer.text([one.token for one in tokens])
        self.results = (GeneratedText(tokens, text, sum(one.log_probability for one in tokens), reason),)
        self.is_over = True


class BeamWriting(Writing):
    """As many rows as beginnings are kept."""

    def __init__(self, plan: GenerationPlan, source: Sequence[Array], writer: TextWriter, context: RpcContext) -> None:
        super().__init__(plan, source, writer, context)
        self.num_rows = plan.num_beams
        own = plan.generation
        self._beams = Beams(
            plan.num_beams,
            plan.max_tokens,
            plan.end_tokens,
            plan.length_penalty,
            own.early_stopping,
            own.forced_end_token,
            own.forced_start_tokens,
        )
        self._written = 0

    def _choose(self, logits: Array, best: Sequence[int], normalizers: Sequence[float], caches: Caches) -> None:
        forbidden = self._forbidden(self._written)
        self._written += 1
        own = np.array([normalizers[row] for row in self.rows], np.float32)
        parents = self._beams.advance(forbid(logits[self.rows] - own[:, None], forbidden))
        if self._beams.is_over:
            found = self._beams.ended[: self.plan.num_results]
            self.results = tuple(self._result(beginning) for _, beginning in found)
            self.is_over = True
            return
        caches.reorder(self.rows, [self.rows[parent] for parent in parents])
        for row, token in zip(self.rows, self._beams.next_tokens, strict=True):
            caches.set_token(row, token)

    def _result(self, beginning: Beginning) -> GeneratedText:
        tokens = tuple(map(self._told, beginning.tokens, beginning.log_probabilities))
        written, end_tokens = len(beginning.tokens), self.plan.end_tokens
        has_ended = beginning.tokens[-1] in end_tokens and self._forced_end(written - 1) is None
        text, total = self._writer.text(beginning.tokens), sum(beginning.log_probabilities)
        return GeneratedText(tokens, text, total, "end" if has_ended else "length")

    def _told(self, token: int, log_probability: float) -> GeneratedToken:
        return GeneratedToken(token, "", log_probability)


def _look(plan: AttentionPlan, row: int, caches: Caches) -> StepAttention:
    """Compute what the step that wrote a token attended to in one layer."""
    weights = caches.attention(row, plan.kind, plan.layer)[list(plan.heads)]
    if plan.head_reduction:
        weights = getattr(weights, plan.head_reduction)(axis=0)
    return StepAttention(plan.kind, plan.layer, plan.heads, plan.head_reduction is not None, weights)
