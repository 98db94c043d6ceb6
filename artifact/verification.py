"""What an export was checked for: the records in a contract of what was compared, and what was found."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(_Record):
    """One line of the verification table, the worst over all cases.

    Attributes:
        tensor: The output that was compared.
        check: What it was compared with.
        cases: How many inputs were tried.
        max_abs: Largest absolute difference.
        max_rel: The same over the largest magnitude of the reference.
        limit: What max_abs may be at most.
        positions: Most positions of an input that was tried, as the contract's limits count them; 0 where inputs have
            one size.
    """

    tensor: str
    check: str
    cases: int
    max_abs: float
    max_rel: float
    limit: float
    positions: int = 0


class Accuracy(_Record):
    """What a lower precision costs against float32, measured on real inputs.

    Attributes:
        measure: "cosine" of the embeddings, "label agreement", or "attention", its absolute difference.
        value: What was found.
        limit: Cosines and agreements must be at least that, differences at most; None where nothing is asked.
        inputs: How many inputs were tried.
    """

    measure: Literal[
        "cosine, mean",
        "cosine, least",
        "label agreement",
        "attention, mean difference",
        "attention, largest difference",
    ]
    value: float
    limit: float | None = None
    inputs: int

    @property
    def is_difference(self) -> bool:
        """Whether less is better."""
        return self.measure.startswith("attention")

    @property
    def holds(self) -> bool:
        """Whether the limit is kept; NaN keeps none."""
        if self.limit is None:
            return True
        return self.value <= self.limit if self.is_difference else self.value >= self.limit

    @property
    def bound(self) -> str:
        """The limit in words."""
        return "" if self.limit is None else f"{'at most' if self.is_difference else 'at least'} {self.limit:g}"
