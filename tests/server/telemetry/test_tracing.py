"""Spans in memory, and sent to a real receiver of OpenTelemetry's protocol."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api import handler
from server.errors import StartError
from server.telemetry.tracing import Tracing
from tests.server.conftest import Running, Serve

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # of the W3C's own example
CALLER = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
TEXT = api.EmbedRequest(model="tiny-text", text="the cat", attention=pb.AttentionRequest())


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where spans of servers started in the test end up."""
    exporter = InMemorySpanExporter()

    def traced() -> Tracing:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return Tracing(provider)

    monkeypatch.setattr(Tracing, "from_environment", traced)
    return exporter


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    """The only span of a name."""
    (found,) = (span for span in spans.get_finished_spans() if span.name == name)
    return found


async def test_a_request_is_a_part_of_its_callers_trace(start: Serve, spans: InMemorySpanExporter) -> None:
    """With a span a stage, one behind the other within it; its batch has a span that links to it."""
    async with start() as running:
        await running.stub.Embed(TEXT, metadata=CALLER)
    request = named(spans, "Embed")
    assert request.context and request.parent and request.attributes
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    expected = {"rpc.method": "Embed", "regard.model": "tiny-text", "regard.graph": "tapped", "rpc.grpc.status": "OK"}
    assert request.attributes.items() >= expected.items()
    stages = [named(spans, stage) for stage in ("decode", "queue", "compute", "encode")]
    assert {stage.parent and stage.parent.span_id for stage in stages} == {request.context.span_id}
    assert all(one.end_time == other.start_time for one, other in itertools.pairwise(stages))
    batch = named(spans, "batch")
    assert batch.attributes
    assert [link.context.span_id for link in batch.links] == [request.context.span_id]
    assert batch.attributes["regard.batch_rows"] == 1
    assert {span.name for span in spans.get_finished_spans()} >= {"collate", "run", "split"}


async def test_a_batch_links_to_all_of_its_requests(start: Serve, spans: InMemorySpanExporter) -> None:
    """Whoever came together."""
    async with start(max_queue_delay_ms=200, max_batch_size=4) as running:
        await asyncio.gather(*(running.stub.Embed(TEXT) for _ in range(4)))
    links = [link.context.span_id for span in spans.get_finished_spans() if span.name == "batch" for link in span.links]
    requests = [span.context.span_id for span in spans.get_finished_spans() if span.name == "Embed" and span.context]
    assert sorted(links) == sorted(requests)
    assert len(requests) == 4


async def test_a_refusal_is_an_error_in_the_trace(start: Serve, spans: InMemorySpanExporter) -> None:
    """With its code, without its content."""
    async with start() as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Embed(api.EmbedRequest(model="made up", text="a secret"))
    span = named(spans, "Embed")
    assert span.status.description == "NOT_FOUND"
    assert "secret" not in span.to_json()


async def test_a_span_ends_where_its_line_in_the_log_cannot_be_written(
    start: Serve, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that never ends is never sent."""

    def fail(*given: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(handler, "log_rpc", fail)
    async with start() as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Embed(TEXT)
    assert named(spans, "Embed").end_time


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what is exported to it."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 -- the protocol's name
        self.received.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    """One that listens, and its address."""
    server, receiver = grpc.server(futures.ThreadPoolExecutor(1)), Receiver()
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield receiver, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


async def test_spans_reach_a_receiver_by_the_time_the_server_has_stopped(
    start: Serve, receiver: tuple[Receiver, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By OpenTelemetry's own variables."""
    kept, address = receiver
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    async with start() as running:
        await running.stub.Embed(TEXT)
    resources = [one for request in kept.received for one in request.resource_spans]
    names = {span.name for one in resources for scope in one.scope_spans for span in scope.spans}
    assert names >= {"Embed", "decode", "queue", "compute", "encode", "batch"}
    described = {pair.key: pair.value.string_value for pair in resources[0].resource.attributes}
    assert described["service.name"] == "regard"


async def test_without_an_endpoint_nothing_is_traced(running: Running) -> None:
    """And nothing is asked for."""
    assert (await running.stub.Embed(TEXT, metadata=CALLER)).model == "tiny-text"


def test_an_endpoint_without_the_packages_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(
        StartError,
        match=r"OTEL_EXPORTER_OTLP_ENDPOINT: is set, but .* is not installed: install regard with its extra trace",
    ):
        Tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"})
