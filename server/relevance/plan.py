"""A checked request for relevance: what of each logit is in the score, which positions are sent."""

from dataclasses import dataclass

from artifact.contract import NUMBER_BYTES, RelevanceContract
from artifact.dtypes import Array

_SCORES = 2  # numbers of a row besides its positions: the rest, and the score


@dataclass(frozen=True, eq=False)
class RelevancePlan:
    """A checked request for relevance.

    Attributes:
        contract: The model's.
        weights: What of each logit is in the score, float32 [rows, C]; zeros for the largest alone.
        label: Index of the label that is explained; None for the most probable of each row.
        against: Index of the label that it is told apart from; None for none.
        positions: Which are sent, counted from 0; None for all.
        count: How many there are, for this request.
    """

    contract: RelevanceContract
    weights: Array
    label: int | None
    against: int | None
    positions: tuple[int, ...] | None
    count: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the relevance graph to fetch."""
        return self.contract.outputs

    @property
    def index_counts(self) -> list[int]:
        """How many indices come with what is sent."""
        return [0 if self.positions is None else len(self.positions)]

    def answer_bytes(self, rows: int) -> int:
        """Size of what will be sent for a request of so many rows."""
        sent = self.count if self.positions is None else len(self.positions)
        return rows * (sent + _SCORES) * NUMBER_BYTES

    def computed_bytes(self, rows: int) -> int:
        """Size of what is fetched for it."""
        return rows * (self.count + _SCORES) * NUMBER_BYTES
