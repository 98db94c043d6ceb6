"""The maps that the tests of the package rxnmapper 0.4.3 expect, in expected.json, and how others differ from them."""

import json
from dataclasses import dataclass
from pathlib import Path

TOLERANCE = 1e-5  # of a confidence
_FILE = Path(__file__).with_name("expected.json")


@dataclass(frozen=True)
class Expected:
    """What a test of the package expects.

    Attributes:
        test: Its name.
        reaction: What is mapped.
        canonicalize: Whether in canonical form.
        mapped: The map; None where the package has none: the text is too long, or no SMILES.
        confidence: Of the map; None where the test does not say.
    """

    test: str
    reaction: str
    canonicalize: bool
    mapped: str | None
    confidence: float | None

    def difference(self, confidence: float) -> float:
        """How far another confidence is from it; 0 where the test does not say."""
        return abs(confidence - self.confidence) if self.confidence is not None else 0.0


def read_expected() -> tuple[Expected, ...]:
    """Read all of them, in the order of the package's tests."""
    return tuple(Expected(**entry) for entry in json.loads(_FILE.read_text(encoding="utf-8")))
