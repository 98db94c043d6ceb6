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

from regard.v1.types_pb2 import Timings
from server.scheduling.batch import BatchTimes, GraphKind, Load
from server.telemetry.counts import Statistics

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75)
STAGES = ("decode", "queue", "compute", "encode")


class Metrics:
    """The server's metrics; one object a server, so that two in a process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.statistics = Statistics()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.requests = Counter(
            "regard_requests", "Requests answered, by outcome", ["method", "model", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "regard_request_seconds",
            "Time of a request in the server, however it ended",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "regard_stage_seconds",
            "Time of answered requests in each stage: decode, queue, compute, encode; by graph: plain, tapped (for"
            " attention), contributions",
            ["model", "stage", "graph"],
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
            "regard_engine_seconds",
            "Time that lanes of the engine were busy, in seconds",
            ["model", "graph"],
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "regard_batch_seconds",
            "Time of a batch in the engine: joined, run, parted",
            ["model", "graph"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.refused = Counter(
            "regard_refused",
            "Requests refused, by what was full: requests, bytes or seconds of the queue, a model's limits, a quota",
            ["reason"],
            registry=registry,
        )
        self.client_requests = Counter(
            "regard_client_requests", "Requests answered, by client", ["client", "code"], registry=registry
        )
        self.client_seconds = Counter(
            "regard_client_compute_seconds",
            "Time of the engine that a client's requests took, by their share of each batch, in seconds",
            ["client"],
            registry=registry,
        )
        self.in_flight = Gauge("regard_requests_in_flight", "Requests in the server now", registry=registry)
        self.lanes = Gauge("regard_lanes", "Lanes of the engine", registry=registry)
        self.lanes_busy = Gauge("regard_lanes_busy", "Lanes of the engine that run a batch now", registry=registry)
        self.ready = Gauge("regard_ready", "Whether requests are answered: 1, or 0", registry=registry)
        self.build_info = Gauge(
            "regard_build_info", "What runs; always 1", ["version", "onnxruntime", "device"], registry=registry
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

    def forget_model(self, name: str) -> None:
        """Drop what says that a model is served."""
        self.model_info.remove_by_labels({"model": name})

    def observe_batch(self, model: str, version: str, graph: GraphKind, load: Load, times: BatchTimes) -> None:
        """Count one batch that was computed."""
        self.engine_seconds.labels(model, graph).inc(times.total_ns / 1e9)
        self.batch_seconds.labels(model, graph).observe(times.total_ns / 1e9)
        self.batch_rows.labels(model).observe(load.rows)
        self.padding.labels(model).observe(load.padding_share)
        durations = {"compute_input": times.join_ns, "compute_infer": times.run_ns, "compute_output": times.part_ns}
        self.statistics.of(model, version).add_batch(load.rows, durations)

    def observe_end(self, method: str, model: str, code: str, client: str, seconds: float) -> None:
        """Count a request that has ended, however."""
        self.request_seconds.labels(method).observe(seconds)
        self.requests.labels(method, model, code).inc()
        if client:
            self.client_requests.labels(client, code).inc()

    def observe_answer(
        self,
        model: str,
        version: str,
        graph: GraphKind,
        *,
        rows: int,
        total_ns: int,
        timings: Timings,
        attention_bytes: int,
        cached: bool,
    ) -> None:
        """Count one answered request.

        Args:
            model: Which was asked.
            version: Likewise.
            graph: Which of its graphs ran.
            rows: Of its input.
            total_ns: From its arrival to its answer.
            timings: The stages.
            attention_bytes: Attention weights in its answer.
            cached: Whether the answer cache was asked.
        """
        stages = {"decode": timings.decode_ns, "queue": timings.queue_ns}
        stages |= {"compute": timings.compute_ns, "encode": timings.encode_ns}
        for stage, duration_ns in stages.items():
            self.stages.labels(model, stage, graph).observe(duration_ns / 1e9)
        if attention_bytes:
            self.attention_bytes.labels(model).inc(attention_bytes)
        durations = {"queue": timings.queue_ns, "compute_input": timings.decode_ns}
        durations |= {"compute_infer": timings.compute_ns, "compute_output": timings.encode_ns}
        if cached:
            durations["cache_miss" if timings.batch_size else "cache_hit"] = timings.decode_ns
        self.statistics.of(model, version).add_request(rows, total_ns, durations)

    def observe_failure(self, model: str, version: str, total_ns: int) -> None:
        """Count a request that a model did not answer."""
        self.statistics.of(model, version).requests["fail"].add(total_ns)
