"""Every metric of the server, in a registry of its own; scraped at /metrics."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75)
STAGES = ("decode", "queue", "compute", "encode")


class Metrics:
    """The server's metrics; one object a server, so that two in a process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.requests = Counter(
            "regard_requests", "Requests answered, by outcome", ["method", "model", "code"], registry=registry
        )
        self.stages = Histogram(
            "regard_stage_seconds",
            "Time of answered requests in each stage: decode, queue, compute, encode",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram("regard_batch_rows", "Rows in a batch", ["model"], buckets=_ROWS, registry=registry)
        self.padding = Histogram(
            "regard_batch_padding_ratio",
            "Share of a batch's tokens that are padding",
            ["model"],
            buckets=_SHARES,
            registry=registry,
        )
        self.queue_depth = Gauge("regard_queue_depth", "Requests waiting for the engine", registry=registry)
        self.queue_bytes = Gauge(
            "regard_queue_bytes", "Bytes of the inputs of requests that wait for the engine", registry=registry
        )
        self.received = Counter("regard_requests_received", "Requests that came", ["method"], registry=registry)
        self.submitted = Counter("regard_scheduler_received", "Requests handed to the scheduler", registry=registry)
        self.outcomes = Counter(
            "regard_scheduler_outcomes",
            "What became of requests handed to the scheduler: computed, cancelled, or the code of the refusal",
            ["outcome"],
            registry=registry,
        )
        self.engine_seconds = Counter(
            "regard_engine_seconds", "Time that lanes of the engine were busy, in seconds", ["model"], registry=registry
        )
        self.dropped = Counter(
            "regard_dropped",
            "Requests never computed: cancelled or expired in the queue",
            ["reason"],
            registry=registry,
        )
        self.cache_lookups = Counter(
            "regard_cache_lookups",
            "Requests looked up in the answer cache: hit, joined (an equal one was on its way), miss",
            ["outcome"],
            registry=registry,
        )
        self.cache_bytes = Gauge("regard_cache_bytes", "Bytes of answers in the cache", registry=registry)
        self.attention_bytes = Counter(
            "regard_attention_sent_bytes", "Attention weights sent, in bytes", ["model"], registry=registry
        )
        self.model_info = Gauge(
            "regard_model_info", "Models served; always 1", ["model", "version", "family", "device"], registry=registry
        )

    def observe_batch(self, model: str, rows: int, padding_share: float, compute_ns: int) -> None:
        """Count one batch that was computed."""
        self.engine_seconds.labels(model).inc(compute_ns / 1e9)
        self.batch_rows.labels(model).observe(rows)
        self.padding.labels(model).observe(padding_share)

    def observe_stages(self, model: str, stages_ns: dict[str, int]) -> None:
        """Record one answered request's time in each stage, in nanoseconds."""
        for stage, duration_ns in stages_ns.items():
            self.stages.labels(model, stage).observe(duration_ns / 1e9)
