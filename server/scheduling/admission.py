"""What may wait for the engine."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Admission:
    """What may wait.

    Attributes:
        requests: Most requests.
        input_bytes: Most bytes of their inputs.
        seconds: Longest wait for an answer that is still offered, by the estimate.
        row_seconds: Longest estimated run of a single row, which cannot be cut.
    """

    requests: int
    input_bytes: int
    seconds: float
    row_seconds: float = math.inf
