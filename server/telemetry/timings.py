"""How long the steps of a batch took, as metrics and traces tell it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Nanoseconds of collating requests, running the graph, and splitting the results."""

    collate_ns: int
    run_ns: int
    split_ns: int

    @property
    def total_ns(self) -> int:
        """All three."""
        return self.collate_ns + self.run_ns + self.split_ns

    def __add__(self, other: "BatchTimes") -> "BatchTimes":
        return BatchTimes(
            self.collate_ns + other.collate_ns, self.run_ns + other.run_ns, self.split_ns + other.split_ns
        )


NO_TIME = BatchTimes(0, 0, 0)
