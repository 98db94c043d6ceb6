"""A checked request for hidden states: which outputs to fetch, what is made of them, how much that is."""

from dataclasses import dataclass

import numpy as np

from artifact.contract import NUMBER_BYTES, HiddenStateContract
from artifact.dtypes import Array
from server.attention.request import SentDtype
from server.hidden_states.request import Pooling

_STEP_BYTES = 2 * NUMBER_BYTES  # of the scale and the offset of a vector of UINT8


@dataclass(frozen=True, eq=False)
class HiddenStatesPlan:
    """A checked request for hidden states.

    Attributes:
        states: Which, in the order asked for.
        counts: Positions of each, for this request.
        positions: Chosen ones, counted from 0; None for all.
        pooling: What makes one vector of them; None sends each.
        normalize: Whether vectors are scaled to Euclidean length 1.
        dtype: Of what is sent.
        real: Of a caller's rows of several lengths, which positions are no padding, bool [B, N]; None where all are.
    """

    states: tuple[HiddenStateContract, ...]
    counts: tuple[int, ...]
    positions: tuple[int, ...] | None
    pooling: Pooling | None
    normalize: bool
    dtype: SentDtype
    real: Array | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the hidden graph to fetch."""
        return tuple(state.output for state in self.states)

    @property
    def axes(self) -> list[str]:
        """Names of the axes of what is sent, without the batch."""
        return ["dim"] if self.pooling else ["position", "dim"]

    @property
    def index_counts(self) -> list[int]:
        """How many indices come with what is sent, layer by layer."""
        return [0 if self.positions is None else len(self.positions)] * len(self.states)

    def answer_bytes(self, rows: int) -> int:
        """Size of what will be sent for a request of so many rows."""
        step_bytes, item_bytes = _STEP_BYTES if self.dtype == "uint8" else 0, np.dtype(self.dtype).itemsize
        found = 0
        for state, count in zip(self.states, self.counts, strict=True):
            vectors = 1 if self.pooling else count if self.positions is None else len(self.positions)
            found += rows * vectors * (state.dim * item_bytes + step_bytes)
        return found

    def computed_bytes(self, rows: int) -> int:
        """Size of the states that are fetched for it, float32, before anything is cut out or pooled."""
        pairs = zip(self.states, self.counts, strict=True)
        return rows * sum(count * state.dim * NUMBER_BYTES for state, count in pairs)
