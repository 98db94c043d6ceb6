"""What a caller wants explained, in the words of both protocols."""

from dataclasses import dataclass

from artifact.contract import RelevanceMethod
from server.errors import InvalidInput

DEFAULT_STEPS, MAX_STEPS = 64, 256
MAX_LABELS = 32
LIBRA: RelevanceMethod = "libra"
INTEGRATED: RelevanceMethod = "integrated-gradients"


@dataclass(frozen=True, slots=True)
class RelevanceRequest:
    """A request for relevance, unchecked against any model; the fields are those of regard.v1.RelevanceRequest.

    Attributes:
        label: Whose logit is explained; empty for the most probable.
        against: What logit is taken off it; empty for none.
        drop_special: Leaves out positions that are no part of the input.
        method: How it is explained.
        steps: Of integrated gradients, at how many points the gradient is taken; 0 for DEFAULT_STEPS.
        labels: Several, each explained for itself.
        top: So many of the most probable, likewise; 0 for none.
        by_layer: Whether it is told at each depth, too.
    """

    label: str = ""
    against: str = ""
    drop_special: bool = False
    method: RelevanceMethod = "libra"
    steps: int = 0
    labels: tuple[str, ...] = ()
    top: int = 0
    by_layer: bool = False

    @property
    def is_list(self) -> bool:
        """Whether several labels are explained, or may be."""
        return bool(self.labels) or self.top > 0

    def check(self) -> None:
        """Refuse fields that contradict each other, and numbers that nothing can be made of.

        Raises:
            InvalidInput: Names the field.
        """
        if self.against and not self.label:
            raise InvalidInput("relevance.against", repr(self.against), "none without relevance.label")
        if self.against and self.against == self.label:
            raise InvalidInput("relevance.against", repr(self.against), "another label than relevance.label")
        if self.labels and (self.label or self.top):
            other = "relevance.label" if self.label else "relevance.top"
            raise InvalidInput("relevance.labels", f"{len(self.labels)} labels", f"none beside {other}")
        if self.top and self.label:
            raise InvalidInput("relevance.top", self.top, "none beside relevance.label")
        if not 0 <= self.top <= MAX_LABELS:
            raise InvalidInput("relevance.top", self.top, f"0 to {MAX_LABELS}")
        if len(self.labels) > MAX_LABELS:
            raise InvalidInput("relevance.labels", f"{len(self.labels)} labels", f"at most {MAX_LABELS}")
        for place, label in enumerate(self.labels):
            if not label or label in self.labels[:place]:
                raise InvalidInput(f"relevance.labels[{place}]", repr(label), "a label, each once")
        if not 0 <= self.steps <= MAX_STEPS:
            raise InvalidInput("relevance.steps", self.steps, f"1 to {MAX_STEPS}, or 0 for {DEFAULT_STEPS}")
        if self.steps and self.method != INTEGRATED:
            raise InvalidInput("relevance.steps", self.steps, f"none but with {INTEGRATED}, not with {self.method}")
        if self.by_layer and self.method != LIBRA:
            raise InvalidInput("relevance.by_layer", "true", f"none but with {LIBRA}, not with {self.method}")
