"""Traces for OpenTelemetry: a span for each request with its stages, one for each batch that links to its requests.

Off unless an endpoint is set by OpenTelemetry's own variables, and then nothing of it is imported. Stages are told when
they are over, from the times that answers carry anyway.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from server.context import STAGES, Metadata, RpcContext, Timings
from server.errors import StartError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def trace_id_of(span: Any) -> str:
    """The trace that a span is part of, 32 hexadecimal digits; empty without a span."""
    return f"{span.get_span_context().trace_id:032x}" if span is not None else ""


class Tracing:
    """Makes spans, or does nothing."""

    def __init__(self, provider: Any = None) -> None:
        """Take a provider of the OpenTelemetry SDK; None traces nothing."""
        self._provider = provider
        self._tracer = provider.get_tracer("regard") if provider else None
        self.is_on = self._tracer is not None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Tracing":
        """Export to the endpoint that is set, with whatever else OTEL_* says; without one, trace nothing.

        Raises:
            StartError: An endpoint is set and the packages are not installed.
        """
        found = next((name for name in _ENDPOINTS if environment.get(name)), None)
        if found is None:
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise StartError(
                f"{found}: is set, but {error.name} is not installed: install regard with its extra trace"
            ) from error
        named = {} if "OTEL_SERVICE_NAME" in environment else {"service.name": "regard"}
        provider = TracerProvider(resource=Resource.create(named))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def begin(self, context: RpcContext, metadata: Metadata) -> None:
        """Trace a request until `end`, as a part of the caller's trace (W3C Trace Context, traceparent)."""
        if self._tracer is None:
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {name: metadata[name] for name in ("traceparent", "tracestate") if name in metadata}
        parent = TraceContextTextMapPropagator().extract(carrier)
        attributes = {"rpc.system": "grpc", "rpc.method": context.method}
        context.span = self._tracer.start_span(
            context.method, context=parent, kind=SpanKind.SERVER, attributes=attributes
        )

    def stages(self, span: Any, timings: Timings, attributes: Mapping[str, str | int]) -> None:
        """Tell how long each stage of a request took, one behind the other up to now; no span tells nothing."""
        if span is None or self._tracer is None:
            return
        span.set_attributes({**attributes, "regard.batch_rows": timings.batch_size})
        durations = [getattr(timings, f"{stage}_ns") for stage in STAGES]
        began = time.time_ns() - sum(durations)
        for stage, duration in zip(STAGES, durations, strict=True):
            child = self._tracer.start_span(stage, context=_under(span), start_time=began)
            began += duration
            child.end(began)

    def batch(self, model: str, rows: int, spans: Sequence[Any], durations_ns: Mapping[str, int]) -> None:
        """Tell of a batch that has just been run.

        Args:
            model: Which ran.
            rows: In the batch.
            spans: Of the requests in it; None for those that are not traced.
            durations_ns: Its steps, one behind the other.
        """
        if self._tracer is None:
            return
        from opentelemetry.trace import Link

        links = [Link(span.get_span_context()) for span in spans if span is not None]
        began = time.time_ns() - sum(durations_ns.values())
        attributes = {"regard.model": model, "regard.batch_rows": rows, "regard.batch_requests": len(spans)}
        span = self._tracer.start_span("batch", links=links, attributes=attributes, start_time=began)
        for step, duration in durations_ns.items():
            child = self._tracer.start_span(step, context=_under(span), start_time=began)
            began += duration
            child.end(began)
        span.end(began)

    def close(self) -> None:
        """Send what has not been sent yet."""
        if self._provider is not None:
            self._provider.shutdown()


def end(context: RpcContext, code: str) -> None:
    """Write how a request ended into its span, and end it."""
    if context.span is None:
        return
    from opentelemetry.trace import Status, StatusCode

    context.span.set_attributes({"rpc.grpc.status": code, "regard.client": context.caller.name})
    if code not in ("OK", "CANCELLED"):
        context.span.set_status(Status(StatusCode.ERROR, code))
    context.span.end()


def _under(span: Any) -> Any:
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span)
