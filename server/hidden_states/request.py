"""What a caller wants of the hidden states, in the words of both protocols."""

from dataclasses import dataclass
from typing import Literal

from server.attention.request import SentDtype
from server.errors import InvalidInput

Pooling = Literal["cls", "mean", "last"]


@dataclass(frozen=True, slots=True)
class HiddenStatesRequest:
    """A request for hidden states, unchecked against any model; the fields are those of regard.v1.HiddenStatesRequest.

    Attributes:
        layers: Which, 0 for what enters the first layer; from the end where negative; none for all.
        positions: Which, counted likewise; none for all.
        drop_special: Leaves out positions that are no part of the input.
        pooling: What makes one vector of the positions; None sends each.
        normalize: Whether vectors are scaled to Euclidean length 1.
        dtype: Of what is sent.
        projected: Wants, instead of layers, what of each position is compared with the other of two towers; no caller
            says so itself.
    """

    layers: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    drop_special: bool = False
    pooling: Pooling | None = None
    normalize: bool = False
    dtype: SentDtype = "float32"
    projected: bool = False

    def check(self) -> None:
        """Refuse fields that contradict each other.

        Raises:
            InvalidInput: Names the field.
        """
        if self.drop_special and self.positions:
            raise InvalidInput("hidden_states.drop_special", "true", "no positions together with it")
        if self.pooling in ("cls", "last") and (self.positions or self.drop_special):
            field = "drop_special" if self.drop_special else "positions"
            value = "true" if self.drop_special else list(self.positions)
            expected = f"none together with HIDDEN_STATES_POOLING_{self.pooling.upper()}, which takes one position"
            raise InvalidInput(f"hidden_states.{field}", value, expected)

    @property
    def tells_positions(self) -> bool:
        """Whether it takes to know what the positions of an input stand for."""
        return self.pooling is None or self.drop_special
