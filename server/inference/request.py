"""A request as the protocols hand it down, and the response that they get back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import ClassVar

from artifact.dtypes import Array
from artifact.images import Pixels
from artifact.text import Tokens
from server.attention.plan import AttentionPlan
from server.attention.reduce import Reduced, reduce_attention
from server.attention.request import AttentionRequest
from server.context import STAGES, Timings
from server.engine.device_ops import Weights
from server.errors import ServerError
from server.hidden_states.plan import HiddenStatesPlan
from server.hidden_states.reduce import ReducedStates, reduce_states
from server.hidden_states.request import HiddenStatesRequest
from server.inference.sound import Sound
from server.inference.vectors import WHOLE_VECTORS, VectorRequest
from server.relevance.plan import RelevancePlan
from server.relevance.reduce import Relevance, explain_rows
from server.relevance.request import RelevanceRequest
from server.relevance.similarity import SimilarityPlan, SimilarityRequest
from server.relevance.tokens import TokenRelevancePlan, TokenRelevanceRequest, TokenRelevances, explain_tokens
from server.repository.loading import LoadedModel
from server.scheduling.batch import GraphKind, Result

Plan = AttentionPlan | HiddenStatesPlan | RelevancePlan | SimilarityPlan | TokenRelevancePlan


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts, a row each, or pairs of texts.

    Attributes:
        texts: As they came, or each as the ids of its tokens; of pairs, the first of each.
        truncate: Whether one with too many tokens is cut.
        prompt: The name of what is put before each; empty for the model's default. Pairs have none.
        second: Of pairs, the second text of each; else empty.
        field: What errors call each of several.
        queries: Of late interaction: how many, the first ones, are queries and no documents.
    """

    texts: tuple[str | Sequence[int], ...]
    truncate: bool
    prompt: str = ""
    second: tuple[str, ...] = ()
    field: str = "texts"
    queries: int = 0

    def name(self, row: int) -> str:
        """What errors call one of several: a query stands before the documents that it is compared with."""
        if self.field == "documents" and self.queries:
            return "query" if row < self.queries else f"documents[{row - self.queries}]"
        return f"{self.field}[{row}]"

    @property
    def sizes(self) -> list[int]:
        """Characters, or tokens, of each row."""
        sizes = map(len, self.texts)
        return list(map(add, sizes, map(len, self.second)) if self.second else sizes)

    @property
    def size_bytes(self) -> float:
        """How much there is to read."""
        return sum(self.sizes)

    def row(self, number: int) -> tuple[str | Sequence[int], str | None]:
        """Return a row: a text, in letters or in tokens, or a pair."""
        return self.texts[number], self.second[number] if self.second else None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Images:
    """Image files, a row each."""

    contents: tuple[bytes, ...]
    field: ClassVar[str] = "images"

    def __len__(self) -> int:
        return len(self.contents)


@dataclass(frozen=True, slots=True)
class Audio:
    """A sound file."""

    content: bytes

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """A caller's own arrays.

    Attributes:
        arrays: By input name.
        is_shaped: Whether names, dtypes and shapes were checked against the contract, before there were elements.
    """

    arrays: Mapping[str, Array]
    is_shaped: bool = False

    def __len__(self) -> int:
        return max((array.shape[0] for array in self.arrays.values() if array.shape), default=1)

    @property
    def size_bytes(self) -> float:
        """How much there is to check."""
        size_bytes = 0
        for array in self.arrays.values():
            size_bytes += array.nbytes
        return size_bytes


@dataclass(frozen=True, slots=True, eq=False)
class FirstPart:
    """What the first of two parts of a call took: its stages, which may go on, and its rows."""

    timings: Timings
    rows: int

    @property
    def took_ns(self) -> int:
        """All its stages."""
        return sum(getattr(self.timings, f"{stage}_ns") for stage in STAGES)


@dataclass(frozen=True, slots=True, eq=False)
class InferenceRequest:
    """What a caller wants of a model.

    Attributes:
        model: Which is asked.
        inputs: As they came.
        outputs: Names of the ordinary outputs wanted.
        attention: What is wanted of the attention; None for none.
        hidden_states: What is wanted of the hidden states; None for none.
        relevance: What is to be explained; None for nothing.
        similarity: What is to be explained of one of two inputs that are compared; None for nothing.
        token_relevance: Which tokens that were written are to be explained; None for nothing.
        layer_by_layer: Whether each layer of the attention has a message of its own.
        unsent: Outputs that are no part of the answer: they go to shared memory, or are compared here.
        max_sent: Of several inputs, how many are answered at most, whichever they are; 0 for all.
        vectors: What is sent of the embedding.
        is_first_part: Whether another request of the same call follows at once, with which it is counted.
        first_part: That which came before; None for none.
    """

    model: LoadedModel
    inputs: Texts | Images | Audio | Tensors
    outputs: tuple[str, ...]
    attention: AttentionRequest | None = None
    hidden_states: HiddenStatesRequest | None = None
    relevance: RelevanceRequest | None = None
    similarity: SimilarityRequest | None = None
    token_relevance: TokenRelevanceRequest | None = None
    layer_by_layer: bool = False
    unsent: frozenset[str] = frozenset()
    max_sent: int = 0
    vectors: VectorRequest = WHOLE_VECTORS
    is_first_part: bool = False
    first_part: FirstPart | None = None

    @property
    def tells_positions(self) -> bool:
        """Whether it takes to know what the positions of an input stand for."""
        if self.model.contract.late and self.outputs == (self.model.contract.late.output,):
            return True
        if self.attention is not None or self.relevance is not None or self.similarity is not None:
            return True
        return self.hidden_states is not None and self.hidden_states.tells_positions

    @property
    def further_field(self) -> str:
        """The field that asks for more than outputs; empty where there is none."""
        if self.hidden_states and self.hidden_states.projected:
            return "map"
        if self.attention:
            return "attention"
        if self.hidden_states:
            return "hidden_states"
        return "relevance" if self.relevance or self.similarity or self.token_relevance else ""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedInput:
    """A request's input, ready for the graphs.

    Attributes:
        inputs: By input name, each [rows, ...].
        rows: Rows of each.
        length: Positions of a row: tokens, or patches and class token, or those of sound.
        source: What the positions of a single text, image or sound came from; None where there are several, or the
            caller made the inputs.
        axis_sizes: Of the caller's own arrays; see Contract.axis_sizes. None for other inputs.
    """

    inputs: Mapping[str, Array]
    rows: int
    length: int
    source: Tokens | Pixels | Sound | None = None
    axis_sizes: Mapping[str, int] | None = None

    @property
    def truncated(self) -> bool:
        """Whether a text was cut."""
        return isinstance(self.source, Tokens) and self.source.truncated

    @property
    def num_tokens(self) -> int:
        """How many tokens a single text has, special ones included; 0 of anything else."""
        return len(self.source.ids) if isinstance(self.source, Tokens) else 0


@dataclass(slots=True, eq=False)
class InferenceResponse:
    """What was computed for a request.

    Attributes:
        model: Which answered.
        prepared: Its input.
        plan: What it wants of the attention, the hidden states or relevance; None for nothing of them.
        result: Outputs, and these before they are reduced.
        timings: The stages so far.
        graph: Which of the model's graphs ran.
        size_bytes: Of the result, when it had been computed.
    """

    model: LoadedModel
    prepared: PreparedInput
    plan: Plan | None
    result: Result
    timings: Timings
    graph: GraphKind = "plain"
    size_bytes: int = 0

    @property
    def outputs(self) -> Mapping[str, Array]:
        """The ordinary outputs by name, each [rows, ...]; where relevance made several rows of one, the first."""
        if isinstance(self.plan, RelevancePlan) and (each := self.plan.rows_each) > 1:
            return {name: array[::each] for name, array in self.result.outputs.items()}
        return self.result.outputs

    @property
    def is_batched(self) -> bool:
        """Whether its caller sent rows, and gets rows."""
        return self.prepared.source is None

    @property
    def rows(self) -> int:
        """Rows that are answered."""
        return self.prepared.rows

    @property
    def further_bytes(self) -> int:
        """Size of the attention, hidden states or relevance sent; hidden states of a map are compared, and are not."""
        is_map = isinstance(self.plan, HiddenStatesPlan) and self.model.contract.projected in self.plan.states
        return self.plan.answer_bytes(self.rows) if self.plan and not is_map else 0

    def attention(self) -> Iterator[Reduced]:
        """Reduce the attention as it was asked for, each layer when it is wanted; nothing where it was not.

        Each is then taken out of the result, which is this response's own from here on.
        """
        if not isinstance(self.plan, AttentionPlan):
            return iter(())
        left = self._take_further()
        return reduce_attention(self.plan, left, lambda name: left.pop(name, None))

    def hidden_states(self) -> Iterator[ReducedStates]:
        """Reduce the hidden states likewise."""
        if not isinstance(self.plan, HiddenStatesPlan):
            return iter(())
        left = self._take_further()
        return reduce_states(self.plan, left, lambda name: left.pop(name, None))

    def relevance(self) -> list[list[Relevance]]:
        """Say of each row why it has each score; nothing where that was not asked for."""
        if not isinstance(self.plan, RelevancePlan):
            return []
        return explain_rows(self.plan, self.outputs["logits"], self._take_further())

    def token_relevance(self) -> TokenRelevances:
        """Say why tokens were written, where that was asked for."""
        assert isinstance(self.plan, TokenRelevancePlan)  # noqa: S101 -- or nothing of it was computed
        read = self.prepared.source
        words = [-1 if word is None else word for word in read.words] if isinstance(read, Tokens) else ()
        return explain_tokens(self.plan, self.result.further, words)

    def _take_further(self) -> dict[str, Weights]:
        left = dict(self.result.further)
        self.result = replace(self.result, further=left)
        return left


@dataclass(slots=True, eq=False)
class ManyResponses:
    """What was computed for several inputs of one request.

    Attributes:
        model: Which answered.
        each: In the order of the inputs, each the response of a request for it alone, or the error.
        timings: The stages so far, of the longest.
        graph: Which of the model's graphs ran.
        sampled: Inputs of these whose attention is sampled once they are answered.
    """

    model: LoadedModel
    each: list[InferenceResponse | ServerError]
    timings: Timings
    graph: GraphKind = "plain"
    sampled: list[PreparedInput] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Inputs that are answered."""
        return sum(isinstance(one, InferenceResponse) for one in self.each)

    @property
    def errors(self) -> list[ServerError]:
        """Of inputs that are not."""
        return [one for one in self.each if isinstance(one, ServerError)]

    @property
    def further_bytes(self) -> int:
        """Size of the attention or the hidden states that are sent."""
        return sum(one.further_bytes for one in self.each if isinstance(one, InferenceResponse))
