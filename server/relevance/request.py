"""What a caller wants explained, in the words of both protocols."""

from dataclasses import dataclass

from server.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class RelevanceRequest:
    """A request for relevance, unchecked against any model; the fields are those of regard.v1.RelevanceRequest.

    Attributes:
        label: Whose logit is explained; empty for the most probable.
        against: What logit is taken off it; empty for none.
        drop_special: Leaves out positions that are no part of the input.
    """

    label: str = ""
    against: str = ""
    drop_special: bool = False

    def check(self) -> None:
        """Refuse fields that contradict each other.

        Raises:
            InvalidInput: Names the field.
        """
        if self.against and not self.label:
            raise InvalidInput("relevance.against", repr(self.against), "none without relevance.label")
        if self.against and self.against == self.label:
            raise InvalidInput("relevance.against", repr(self.against), "another label than relevance.label")
