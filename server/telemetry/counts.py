"""What was counted of each version of a model since the start, by request and by batch."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

from server.context import Timings
from server.telemetry.timings import BatchTimes


@dataclass
class Duration:
    """How often something took place, and how many nanoseconds it took altogether."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count it once."""
        self.count += 1
        self.ns += ns


@dataclass
class BatchCounts:
    """The steps of batches of one size."""

    collate: Duration = field(default_factory=Duration)
    run: Duration = field(default_factory=Duration)
    split: Duration = field(default_factory=Duration)


@dataclass
class ModelCounts:
    """The figures of one version of a model.

    Attributes:
        rows: Rows answered.
        batches: Batches run.
        last_answer_ms: When the last request was answered, in milliseconds since 1970.
        answered: Requests that were answered.
        total_ns: Their whole time in the server; decode_ns is that of their first stage, likewise of the others.
        failed: Requests that were not, and their whole time.
        cache_hit: Decoding of those that were answered from the cache, or with an equal one on its way.
        cache_miss: Decoding of those that were looked up and then computed.
        by_size: Batches by their rows.
    """

    rows: int = 0
    batches: int = 0
    last_answer_ms: int = 0
    answered: int = 0
    total_ns: int = 0
    decode_ns: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    encode_ns: int = 0
    failed: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    by_size: dict[int, BatchCounts] = field(default_factory=lambda: defaultdict(BatchCounts))

    def add_request(self, rows: int, total_ns: int, timings: Timings, *, cached: bool) -> None:
        """Count a request that was answered; `cached` says whether the answer cache was asked."""
        self.rows += rows
        self.last_answer_ms = time.time_ns() // 1_000_000
        self.answered += 1
        self.total_ns += total_ns
        self.decode_ns += timings.decode_ns
        self.queue_ns += timings.queue_ns
        self.compute_ns += timings.compute_ns
        self.encode_ns += timings.encode_ns
        if cached:
            (self.cache_miss if timings.batch_size else self.cache_hit).add(timings.decode_ns)

    def add_batch(self, rows: int, times: BatchTimes) -> None:
        """Count a batch that was run."""
        self.batches += 1
        steps = self.by_size[rows]
        steps.collate.add(times.collate_ns)
        steps.run.add(times.run_ns)
        steps.split.add(times.split_ns)


class Counts:
    """The figures of all models."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelCounts] = defaultdict(ModelCounts)

    def of(self, name: str, version: str) -> ModelCounts:
        """Return a version's figures; what was unloaded keeps them."""
        return self._models[name, version]
