"""Why tokens were written: what positions of the source, and of the text before each, did for its logit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact.contract import NUMBER_BYTES, Contract, size_of_axis
from artifact.dtypes import Array
from artifact.generation import TARGET_AXIS, TOKEN_RELEVANCE
from server.attention.indices import resolve
from server.attention.planning import AttentionLimits
from server.engine.device_ops import Weights
from server.errors import InvalidInput, NotPossible
from server.relevance.plan import SCORES, repeated
from server.relevance.planning import MAX_ROWS
from server.relevance.reduce import Completeness, measure

Floats = NDArray[np.float32]

FIELD = "relevance.tokens"
_ROUNDED = 8  # texts are filled up to multiples of so many tokens, so that those of other requests share a run


@dataclass(frozen=True, slots=True)
class TokenRelevanceRequest:
    """Which tokens of a text are explained.

    Attributes:
        start: What the decoder begins with.
        written: What it wrote, or what was scored.
        chosen: Which of what was written, counted from 0, below 0 from the end; none for all.
    """

    start: tuple[int, ...]
    written: tuple[int, ...]
    chosen: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class TokenRelevancePlan:
    """A checked request for the relevance of tokens, each a row that reads the source and what stood before it.

    Attributes:
        contract: What the model's says of the graph.
        num_start: How many tokens the decoder begins with.
        read: What it has read, int64 [T].
        chosen: Which tokens that it wrote are explained, counted from 0.
        tokens: These, int64 [rows].
        count: Positions of the source.
    """

    contract: Contract
    num_start: int
    read: NDArray[np.int64]
    chosen: tuple[int, ...]
    tokens: NDArray[np.int64]
    count: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the graph to fetch."""
        return TOKEN_RELEVANCE.outputs

    @property
    def rows(self) -> int:
        """Rows that are computed."""
        return len(self.chosen)

    @property
    def index_counts(self) -> list[int]:
        """How many indices come with what is sent."""
        return [self.rows]

    def spread(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Make the inputs of the graph from those of the encoder, one row."""
        names, most = TOKEN_RELEVANCE, self.contract.limits[TARGET_AXIS]
        padded = np.zeros((1, min(-(-len(self.read) // _ROUNDED) * _ROUNDED, most)), np.int64)
        padded[0, : len(self.read)] = self.read
        lengths = np.array(self.chosen, np.int64) + self.num_start
        shown = repeated({**inputs, names.target_ids: padded}, self.rows)
        return {**shown, names.target_lengths: lengths, names.token: self.tokens}

    def answer_bytes(self, rows: int) -> int:
        """Size of what will be sent of a text."""
        return rows * self.rows * (self.count + len(self.read) + SCORES) * NUMBER_BYTES

    def computed_bytes(self, rows: int) -> int:
        """Size of what is fetched for it."""
        return self.answer_bytes(rows) + rows * self.rows * _ROUNDED * NUMBER_BYTES


@dataclass(frozen=True, eq=False)
class TokenRelevances:
    """Why tokens were written, a row each.

    Attributes:
        chosen: Which of those that were written, counted from 0.
        tokens: They.
        num_start: How many of what was read the decoder begins with.
        read: What it has read.
        source: float32 [rows, S].
        target: float32 [rows, T].
        rest: What belongs to no position, float32 [rows].
        score: The logit, float32 [rows].
        completeness: How far all parts make it up.
        words: Which word each position of a text is of, counted from 0, -1 for none; empty of a sound.
    """

    chosen: tuple[int, ...]
    tokens: tuple[int, ...]
    num_start: int
    read: tuple[int, ...]
    source: Floats
    target: Floats
    rest: Floats
    score: Floats
    completeness: tuple[Completeness, ...]
    words: tuple[int, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of its arrays."""
        return sum(one.nbytes for one in (self.source, self.target, self.rest, self.score))


def check_tokens(chosen: tuple[int, ...], contract: Contract, max_tokens: int) -> None:
    """Refuse, before anything is written, what can be explained of no text.

    Raises:
        NotPossible: The model was exported without it.
        InvalidInput: A token is further than any that may be written, or there are too many, or one twice.
    """
    if not contract.explains_tokens:
        expected = "a model with Generation.can_explain"
        raise NotPossible(f"relevance: {contract.name} was exported without relevance of tokens; expected {expected}")
    if len(chosen) > MAX_ROWS:
        raise InvalidInput(FIELD, f"{len(chosen)} numbers", f"at most {MAX_ROWS}")
    if chosen:
        resolve(FIELD, chosen, max_tokens)


def least_tokens(start: tuple[int, ...], chosen: tuple[int, ...]) -> TokenRelevanceRequest:
    """What is explained at the least, whatever will be written: as many tokens of the shortest text that has them."""
    length = max(1, len(chosen), *(place + 1 if place >= 0 else -place for place in chosen))
    return TokenRelevanceRequest(start, (0,) * length, tuple(range(len(chosen) or 1)))


def plan_tokens(
    request: TokenRelevanceRequest,
    contract: Contract,
    sizes: Mapping[str, int],
    positions: int,
    limits: AttentionLimits,
) -> TokenRelevancePlan:
    """Check which tokens of a text are explained.

    Args:
        request: Of a model that explains tokens.
        contract: The model's.
        sizes: Of the symbolic axes of the source.
        positions: Of the source.
        limits: How much may be computed and sent, as of attention.

    Raises:
        InvalidInput: A token was not written, or an answer is too large, or too much is to be computed.
    """
    chosen = resolve(FIELD, request.chosen, len(request.written))
    read = np.array((*request.start, *request.written[:-1]), np.int64)
    tokens = np.array([request.written[place] for place in chosen], np.int64)
    own = contract.of_tokens
    count = size_of_axis(own.further_axes[TOKEN_RELEVANCE.source][1], sizes, positions)
    plan = TokenRelevancePlan(own, len(request.start), read, chosen, tokens, count)
    if plan.rows > MAX_ROWS:
        raise InvalidInput(FIELD, f"all {plan.rows} that were written", f"at most {MAX_ROWS} of them")
    if (found := plan.rows * (count + len(read))) > limits.pair_tokens and plan.rows > 1:
        expected = f"at most {limits.pair_tokens} (the server's --max-pair-tokens): fewer tokens"
        raise InvalidInput(FIELD, f"{found} positions in all rows of {plan.rows} tokens", expected)
    if (size_bytes := plan.answer_bytes(1)) > limits.answer_bytes:
        raise InvalidInput(FIELD, f"an answer of {size_bytes} bytes", f"at most {limits.answer_bytes}: fewer tokens")
    if (size_bytes := plan.computed_bytes(1)) > limits.computed_bytes:
        expected = f"at most {limits.computed_bytes} (the server's --max-attention-bytes): fewer tokens"
        raise InvalidInput(FIELD, f"{size_bytes} bytes to compute", expected)
    return plan


def explain_tokens(plan: TokenRelevancePlan, found: Mapping[str, Weights], words: Sequence[int]) -> TokenRelevances:
    """Copy what was computed out of its batch, and measure how far it adds up.

    Args:
        plan: What was asked for.
        found: By output name.
        words: See TokenRelevances.
    """
    names = TOKEN_RELEVANCE
    source, target, rest, score = (np.asarray(found[name]).copy() for name in names.outputs)
    target = np.ascontiguousarray(target[:, : len(plan.read)])
    complete = tuple(
        measure(np.concatenate([one, other]).astype(np.float64), float(nothing), float(whole), None)
        for one, other, nothing, whole in zip(source, target, rest, score, strict=True)
    )
    tokens, read = tuple(plan.tokens.tolist()), tuple(plan.read.tolist())
    return TokenRelevances(
        plan.chosen, tokens, plan.num_start, read, source, target, rest, score, complete, tuple(words)
    )
