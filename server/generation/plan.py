"""How a text is written, with everything decided."""

from collections.abc import Mapping
from dataclasses import dataclass

from artifact.generation import GenerationContract
from server.attention.request import HeadReduction
from server.generation.request import AttentionKind, Sampling


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What is told of each step's attention in one layer.

    Attributes:
        kind: To the source, or to what was written.
        layer: Of the decoder, counted from 0.
        heads: In this order.
        head_reduction: Over these; None tells each.
    """

    kind: AttentionKind
    layer: int
    heads: tuple[int, ...]
    head_reduction: HeadReduction | None


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """How a text is written.

    Attributes:
        generation: Of the model.
        starts: The tokens that the decoder reads first, by the start's name; of several, which are as long as one
            another, the likeliest is read, token by token.
        max_tokens: The most that is written.
        num_beams: How many beginnings are kept; 1 for one row.
        num_results: How many results are told.
        length_penalty: Of beam search.
        sampling: How tokens are drawn; None where the likeliest are taken.
        stop: Texts behind which nothing is written any more.
        alternatives: How many tokens are told at each step besides that which was taken.
        attention: What is told of each step's attention.
    """

    generation: GenerationContract
    starts: Mapping[str, tuple[int, ...]]
    max_tokens: int
    num_beams: int = 1
    num_results: int = 1
    length_penalty: float = 1.0
    sampling: Sampling | None = None
    stop: tuple[str, ...] = ()
    alternatives: int = 0
    attention: tuple[AttentionPlan, ...] = ()

    def name_start(self, tokens: tuple[int, ...]) -> str:
        """The name of the start that has these tokens, one of those that were asked for."""
        return next(name for name, start in self.starts.items() if start == tokens)

    @property
    def start_length(self) -> int:
        """Tokens that it begins with."""
        return len(next(iter(self.starts.values())))

    @property
    def max_length(self) -> int:
        """Tokens that it may come to, those it begins with included."""
        return self.start_length + self.max_tokens

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """After any of these it has ended."""
        return self.generation.end_tokens
