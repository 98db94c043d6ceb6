"""What rank returns: documents by how well they answer a query."""

from dataclasses import dataclass

from regard.answers import Timings
from regard.attention import Attention
from regard.errors import RegardError
from regard.hidden_states import HiddenStates


@dataclass(frozen=True, eq=False)
class RankedDocument:
    """A document, and how well it answers the query.

    Attributes:
        index: Its place among those that were sent, from 0.
        score: More is better; in [0, 1] where the model's activation is "sigmoid" and raw scores were not asked for.
        truncated: Query and document had more tokens than the model takes and were cut.
        attention: None unless asked for.
        hidden_states: None unless asked for.
    """

    index: int
    score: float
    truncated: bool
    attention: Attention | None
    hidden_states: HiddenStates | None = None


@dataclass(frozen=True, eq=False)
class Ranking:
    """The answer to rank.

    Attributes:
        model: Which model answered.
        version: Which version of it.
        documents: Best first; of equal scores that which was sent first.
        errors: Of documents that could not be scored, by their index.
        timings: Of the call; what is said of queue, run and batch is that of the longest run.
    """

    model: str
    version: str
    documents: tuple[RankedDocument, ...]
    errors: dict[int, RegardError]
    timings: Timings
