"""What was counted of each version of a model since the start, by request and by batch; metrics fills it."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

REQUEST_KINDS = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss",
)  # fmt: skip
BATCH_KINDS = ("compute_input", "compute_infer", "compute_output")


@dataclass
class Duration:
    """How often something took place, and how many nanoseconds it took altogether."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count it once."""
        self.count += 1
        self.ns += ns


def _durations(kinds: tuple[str, ...]) -> dict[str, Duration]:
    return {kind: Duration() for kind in kinds}


@dataclass
class ModelStatistics:
    """The figures of one version of a model.

    Attributes:
        inference_count: Rows answered.
        execution_count: Batches run.
        last_inference_ms: When the last request was answered, in milliseconds since 1970.
        requests: By kind, see REQUEST_KINDS.
        batches: By size and kind, see BATCH_KINDS.
    """

    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    requests: dict[str, Duration] = field(default_factory=lambda: _durations(REQUEST_KINDS))
    batches: dict[int, dict[str, Duration]] = field(
        default_factory=lambda: defaultdict(lambda: _durations(BATCH_KINDS))
    )

    def add_request(self, rows: int, total_ns: int, durations_ns: dict[str, int]) -> None:
        """Count a request that was answered."""
        self.inference_count += rows
        self.last_inference_ms = time.time_ns() // 1_000_000
        for kind, duration_ns in {"success": total_ns, **durations_ns}.items():
            self.requests[kind].add(duration_ns)

    def add_batch(self, rows: int, durations_ns: dict[str, int]) -> None:
        """Count a batch that was run."""
        self.execution_count += 1
        for kind, duration_ns in durations_ns.items():
            self.batches[rows][kind].add(duration_ns)


class Statistics:
    """The figures of all models."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelStatistics] = defaultdict(ModelStatistics)

    def of(self, name: str, version: str) -> ModelStatistics:
        """Return a version's figures; what was unloaded keeps them."""
        return self._models[name, version]
