"""Every metric of the server, in a registry of its own."""

from functools import partial

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector

from server.context import STAGES, Timings
from server.telemetry.counts import Counts
from server.telemetry.tally import Counter, Distribution, Histogram, observe_each
from server.telemetry.timings import BatchTimes

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_TENTHS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75)


class Metrics:
    """The server's metrics; one object a server, so that two in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counts = Counts()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._add_server()
        self._add_requests()
        self._add_clients()
        self._add_queue()
        self._add_batches()
        self._add_answers()
        self._add_attention_samples()
        self._add_generation()

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"regard_{name}", what, labels, self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"regard_{name}", what, labels, registry=self.registry)

    def _info(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"regard_{name}", f"{what}; always 1", labels, registry=self.registry)

    def _histogram(self, name: str, what: str, *labels: str, bounds: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"regard_{name}", what, labels, self.registry, bounds)

    def _add_server(self) -> None:
        self.ready = self._gauge("ready", "Whether requests are answered: 1, or 0")
        self.build_info = self._info("build_info", "What runs", "version", "onnxruntime", "device")
        self.model_info = self._info("model_info", "Models served", "model", "version", "family", "device")
        self.device_up = self._gauge(
            "device_up", "Whether a device is in service: 1, or 0 since it has failed", "device"
        )
        self.instances = self._gauge("instances", "Instances of the engine, on devices that are in service")
        self.instances_busy = self._gauge(
            "instances_busy", "Instances of the engine that run a batch now; one with the threads of all counts once"
        )
        self.loop_lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop comes to what was due, looked at ten times a second"
        ).labels()
        self.no_descriptors = self._counter(
            "no_descriptors_seconds", "Seconds in which no file descriptor was left, so that new connections waited"
        ).labels()
        for old, new in (("lanes", self.instances), ("lanes_busy", self.instances_busy)):
            alias = self._gauge(old, f"Deprecated: regard_{old.replace('lanes', 'instances')}")
            alias.set_function(partial(_value, new))

    def _add_requests(self) -> None:
        self.received = self._counter("requests_received", "Requests that came", "method")
        self.requests = self._counter("requests", "Requests answered, by outcome", "method", "model", "code")
        self.request_seconds = self._histogram(
            "request_seconds", "Time of a request in the server, however it ended", "method"
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests in the server now, until their answers are read")
        self.held_bytes = self._gauge("held_bytes", "Bytes held for callers: requests, results, answers until read")
        self.watches = self._gauge("watches", "Streams of health.Watch that are open")
        self.cut_off = self._counter(
            "cut_off", "Calls ended because their callers stood still, by what was to be sent or read", "waited_for"
        )
        self.refused = self._counter(
            "refused",
            "Requests refused, by what was full: requests, bytes or seconds of the queue, a model's limits, a quota, "
            "bytes held, calls of health",
            "reason",
        )
        self.log_lines_left_out = self._counter(
            "log_lines_left_out",
            "Refusals of unauthenticated callers that were not logged, since there were too many in a second",
        ).labels()
        self.messages_refused = self._counter(
            "messages_refused",
            "Messages not parsed: malformed, or with too many bytes, fields or integers, or too long a text",
            "reason",
        )

        self.failed_inputs = self._counter(
            "failed_inputs", "Texts and images of calls of several that have an error of their own", "code"
        )

    def _add_clients(self) -> None:
        self.client_requests = self._counter("client_requests", "Requests answered, by client", "client", "code")
        self.client_seconds = self._counter(
            "client_compute_seconds",
            "Time of the engine that a client's requests took, by their share of each batch, in seconds",
            "client",
        )

        self.client_decoding_seconds = self._counter(
            "client_decoding_seconds",
            "Time of a CPU that a client's images, sounds and long texts took, in seconds",
            "client",
        )

    def _add_queue(self) -> None:
        self.decoding_waiting = self._gauge(
            "decoding_waiting", "Images, sounds and pieces of long texts that wait to be read"
        )
        self.queue_depth = self._gauge("queue_depth", "Requests waiting for the engine")
        self.queue_seconds = self._gauge(
            "queue_seconds", "Estimated seconds of work that wait, shared among the instances; what runs is not in it"
        )
        self.queue_bytes = self._gauge("queue_bytes", "Bytes of the inputs of requests that wait for the engine")
        self.submitted = self._counter("scheduler_received", "Requests handed to the scheduler").labels()
        self.outcomes = self._counter(
            "scheduler_outcomes",
            "What became of requests handed to the scheduler: computed, cancelled, or the code of the refusal",
            "outcome",
        )
        self.dropped = self._counter(
            "dropped",
            "Requests never computed: cancelled, expired, or later than was offered (late) in the queue",
            "reason",
        )
        self.cut = self._counter("cut", "Requests that took several runs, each too large for one").labels()
        self.cache_lookups = self._counter(
            "cache_lookups",
            "Requests looked up in the answer cache: hit, joined (an equal one was on its way), miss",
            "outcome",
        )
        self.cache_bytes = self._gauge("cache_bytes", "Bytes of answers in the cache")

    def _add_batches(self) -> None:
        self.engine_seconds = self._counter(
            "engine_seconds", "Time that instances of the engine were busy, in seconds", "model", "graph"
        )
        self.batch_seconds = self._histogram(
            "batch_seconds", "Time of a batch in the engine: collated, run, split", "model", "graph"
        )
        self.batch_rows = self._histogram("batch_rows", "Rows in a batch", "model", bounds=_ROWS)
        self.express_batches = self._counter(
            "express_batches", "Short batches run beside the instances, which were busy with other models", "model"
        )
        self.padding = self._histogram(
            "batch_padding_ratio", "Share of a batch's tokens that are padding", "model", bounds=_SHARES
        )

    def _add_answers(self) -> None:
        self.stages = self._histogram(
            "stage_seconds",
            "Time of answered requests in each stage: decode, queue, compute, encode; by graph: plain, tapped (for"
            " attention), contributions, hidden (for hidden states)",
            *("model", "stage", "graph"),
        )
        self._stages_of: dict[tuple[str, str], list[Distribution]] = {}  # of STAGES, by model and graph
        self.attention_bytes = self._counter("attention_sent_bytes", "Attention weights sent, in bytes", "model")
        self.hidden_states_bytes = self._counter("hidden_states_sent_bytes", "Hidden states sent, in bytes", "model")

    def _add_attention_samples(self) -> None:
        self.attention_samples = self._counter("attention_samples", "Inputs whose attention was sampled", "model")
        self.attention_samples_dropped = self._counter(
            "attention_samples_dropped",
            "Inputs chosen for a sample and not computed, by why: rate, busy (callers had the engine), refused, failed",
            *("model", "reason"),
        )
        labels = ("model", "input", "layer")
        self.attention_statistics = {
            "entropy": self._histogram(
                "attention_entropy_ratio",
                "Entropy of sampled rows of attention, of the logarithm of the keys, mean of a layer's heads",
                *labels,
                bounds=_TENTHS,
            ),
            "sink": self._histogram(
                "attention_sink_ratio",
                "Attention to the key that gets most in a sampled input, mean of a layer's heads",
                *labels,
                bounds=_TENTHS,
            ),
            "distance": self._histogram(
                "attention_distance_ratio",
                "Distance of attention in a sampled input, of the longest that there is, mean of a layer's heads",
                *labels,
                bounds=_TENTHS,
            ),
        }

    def _add_generation(self) -> None:
        self.generation_rows = self._gauge("generation_rows", "Rows that are written, and that wait for a place")
        self.generation_cache_bytes = self._gauge("generation_cache_bytes", "Bytes of keys and values of these rows")
        self.generated_tokens = self._counter("generated_tokens", "Tokens written", "model")
        self.generation_steps = self._counter("generation_steps", "Steps of the decoder, many rows each", "model")
        self.first_token_seconds = self._histogram(
            "first_token_seconds", "Time from a request until the first token of its text", "model"
        )
        self.token_seconds = self._histogram("token_seconds", "Time between two tokens of a text, its mean", "model")
        self.finished = self._counter("generations", "Texts written, by why they ended", "model", "reason")

    def forget_model(self, name: str) -> None:
        """Drop what says that a model is served."""
        self.model_info.remove_by_labels({"model": name})

    def observe_batch(
        self, model: str, version: str, graph: str, *, rows: int, padding_share: float, times: BatchTimes
    ) -> None:
        """Count one batch that was computed."""
        seconds = times.total_ns / 1e9
        self.engine_seconds.of[model, graph].value += seconds
        self.batch_seconds.of[model, graph].observe(seconds)
        self.batch_rows.of[model,].observe(rows)
        self.padding.of[model,].observe(padding_share)
        self.counts.of(model, version).add_batch(rows, times)

    def observe_end(self, method: str, model: str, code: str, client: str, seconds: float | None) -> None:
        """Count a request that has ended, however.

        Unauthenticated callers say nothing of how long one takes, nor does what was refused unread: `seconds` is None.
        """
        if seconds is not None and code != "UNAUTHENTICATED":
            self.request_seconds.of[method,].observe(seconds)
        self.requests.of[method, model, code].value += 1
        if client:
            self.client_requests.of[client, code].value += 1

    def observe_answer(
        self,
        model: str,
        version: str,
        graph: str,
        *,
        rows: int,
        total_ns: int,
        timings: Timings,
        further_bytes: int,
        cached: bool,
    ) -> None:
        """Count one answered request.

        Args:
            model: Which was asked.
            version: Likewise.
            graph: Which of its graphs ran: "plain", "tapped", "contributions" or "hidden".
            rows: Of its input.
            total_ns: From the moment its model was found to its answer.
            timings: The stages.
            further_bytes: Attention weights, or hidden states, in its answer.
            cached: Whether the answer cache was asked.
        """
        durations = (
            timings.decode_ns / 1e9,
            timings.queue_ns / 1e9,
            timings.compute_ns / 1e9,
            timings.encode_ns / 1e9,
        )
        stages = self._stages_of.get((model, graph))
        if stages is None:
            stages = self._stages_of[model, graph] = [self.stages.of[model, stage, graph] for stage in STAGES]
        observe_each(stages, durations)
        if further_bytes:
            sent = self.hidden_states_bytes if graph == "hidden" else self.attention_bytes
            sent.labels(model).inc(further_bytes)
        self.counts.of(model, version).add_request(rows, total_ns, timings, cached=cached)

    def observe_failure(self, model: str, version: str, total_ns: int) -> None:
        """Count a request that a model did not answer."""
        self.counts.of(model, version).failed.add(total_ns)


def _value(gauge: Gauge) -> float:
    return next(sample.value for metric in gauge.collect() for sample in metric.samples)
