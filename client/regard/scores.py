"""What rank returns: documents by how well they answer a query."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regard.answers import Timings
from regard.attention import Attention, Token
from regard.errors import RegardError
from regard.hidden_states import HiddenStates


@dataclass(frozen=True, eq=False)
class TokenMatches:
    """Which token of a document each token of a query found, by the largest dot product (MaxSim).

    Attributes:
        found: int32 [Q], for each of Ranking.query_tokens its place among document_tokens.
        similarities: float32 [Q], from -1 to 1; their sum is the score.
        document_tokens: Of the document, those that have a vector.
    """

    found: NDArray[np.int32]
    similarities: NDArray[np.float32]
    document_tokens: tuple[Token, ...]


@dataclass(frozen=True, eq=False)
class RankedDocument:
    """A document, and how well it answers the query.

    Attributes:
        index: Its place among those that were sent, from 0.
        score: More is better; in [0, 1] where the model's activation is "sigmoid" and raw scores were not asked for.
        truncated: Query and document had more tokens than the model takes and were cut.
        attention: None unless asked for.
        hidden_states: None unless asked for.
        token_matches: None unless asked for.
    """

    index: int
    score: float
    truncated: bool
    attention: Attention | None
    hidden_states: HiddenStates | None = None
    token_matches: TokenMatches | None = None


@dataclass(frozen=True, eq=False)
class Ranking:
    """The answer to rank.

    Attributes:
        model: Which model answered.
        version: Which version of it.
        documents: Best first; of equal scores that which was sent first.
        errors: Of documents that could not be scored, by their index.
        query_tokens: None unless token_matches were asked for.
        timings: Of the call; what is said of queue, run and batch is that of the longest run.
    """

    model: str
    version: str
    documents: tuple[RankedDocument, ...]
    errors: dict[int, RegardError]
    timings: Timings
    query_tokens: tuple[Token, ...] | None = None
