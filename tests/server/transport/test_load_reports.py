"""Load reports, as Envoy and gRPC's clients read them: with the end of a call, and as a stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub
from server.telemetry.load import LoadMeter
from server.telemetry.metrics import Metrics
from server.transport.load_reports import LoadReports
from server.transport.orca_pb2 import OrcaLoadReport, OrcaLoadReportRequest
from server.transport.orca_pb2_grpc import OpenRcaServiceStub
from tests.server.conftest import Running, Serve
from tests.server.fakes import Clock

TEXT = api.EmbedRequest(model="tiny-text", text="the cat")
SERVICE = "xds.service.orca.v3.OpenRcaService"
NAME = b"endpoint-load-metrics-bin"


def stub(running: Running) -> Any:
    """Asks for the stream."""
    return OpenRcaServiceStub(cast("grpc.Channel", running.channel))


@asynccontextmanager
async def listening(running: Running) -> AsyncIterator[tuple[RegardServiceStub, bytearray]]:
    """A stub of the server, and all that comes back: gRPC's clients keep the trailer to themselves."""
    heard, connections = bytearray(), list[asyncio.Future[Any]]()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray) -> None:
        with suppress(ConnectionError):
            while content := await reader.read(2**16):
                heard += content
                writer.write(content)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection(*running.started.address.split(":"))
        both = asyncio.gather(copy(reader, onward[1], bytearray()), copy(onward[0], writer, heard))
        connections.append(both)
        await both

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield RegardServiceStub(channel), heard
        await asyncio.gather(*connections)


ANSWERED: dict[str, Callable[[Any], Any]] = {
    "answer": lambda stub: stub.Embed(TEXT),
    "error": lambda stub: stub.Embed(api.EmbedRequest(model="made up", text="the cat")),
    "stream": lambda stub: stub.Attend(api.AttendRequest(model="tiny-text", text="the cat")).read(),
}


@pytest.mark.parametrize("how", ANSWERED)
@pytest.mark.parametrize("tells", [True, False])
async def test_a_report_goes_with_the_end_of_every_call(start: Serve, how: str, tells: bool) -> None:
    """With answers, with errors, and with streams of answers; without the flag with none."""
    async with start(load_reports=tells) as running, listening(running) as (listened, heard):
        await asyncio.gather(ANSWERED[how](listened), return_exceptions=True)
        await listened.GetModel(api.GetModelRequest(model="tiny-text"))  # what came before it has been read
        assert heard.count(b"grpc-status")
        assert (NAME in heard) == tells


async def test_a_caller_hears_its_own_id_beside_the_report(start: Serve) -> None:
    """Neither takes the other's place."""
    async with start(load_reports=True) as running:
        call = running.stub.Embed(TEXT, metadata=(("x-request-id", "mine"),))
        await call
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine"


def test_a_trailer_is_a_report() -> None:
    """Of what the meter says, written once for as long as that is the same."""
    clock = Clock()
    meter = LoadMeter(Metrics(), lambda: 2.0, lambda: clock.now / 4, lambda: 1, clock)
    reports = LoadReports(meter, 1)
    clock.now += 1.0
    ((name, content),) = reports.trailers()
    assert name.encode() == NAME
    assert isinstance(content, bytes)
    report = OrcaLoadReport.FromString(content)
    assert (report.application_utilization, dict(report.named_metrics)) == (2.25, {"queue_seconds": 2.0})
    ((_, again),) = reports.trailers()
    assert again is content
    clock.now += 1.0
    ((_, later),) = reports.trailers()
    assert later is not content


@pytest.mark.parametrize("queue_seconds", [0.0, 1.0])
@pytest.mark.parametrize("answers", [0.0, 1.0])
@pytest.mark.parametrize("faults", [0.0, 1.0])
def test_a_trailer_needs_no_padding(queue_seconds: float, answers: float, faults: float) -> None:
    """Envoy reads none without, and gRPC sends none; what fills it up says nothing."""
    clock, metrics = Clock(), Metrics()
    meter = LoadMeter(metrics, lambda: queue_seconds, lambda: 0.0, lambda: 1, clock)
    metrics.requests.of["Embed", "m", "OK"].value = answers
    metrics.requests.of["Embed", "m", "INTERNAL"].value = faults
    clock.now += 1.0
    ((_, content),) = LoadReports(meter, 1).trailers()
    assert isinstance(content, bytes)
    assert len(content) % 3 == 0
    report = OrcaLoadReport.FromString(content)
    assert (report.rps_fractional, report.eps, report.application_utilization) == (answers, faults, queue_seconds)


async def test_without_the_flag_there_is_no_stream(running: Running) -> None:
    """UNIMPLEMENTED, as balancers expect of a server that does not report."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub(running).StreamCoreMetrics(OrcaLoadReportRequest()).read()
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_says_how_busy_the_server_is(start: Serve) -> None:
    """What waits for company that does not come is seconds of work; reflection lists the service."""
    async with start(load_reports=True, max_queue_delay_ms=60_000, max_batch_size=64) as running:
        calls = [asyncio.ensure_future(running.stub.Embed(TEXT)) for _ in range(8)]
        reports = stub(running).StreamCoreMetrics(OrcaLoadReportRequest(report_interval=Duration(nanos=1)))
        while not (report := await reports.read()).application_utilization:
            pass
        assert report.application_utilization >= report.named_metrics["queue_seconds"] > 0
        assert not any(call.done() for call in calls)
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("grpc.Channel", running.channel))
        listing = reflection.ServerReflectionInfo()
        await listing.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await listing.done_writing()
        assert SERVICE in {one.name for one in (await listing.read()).list_services_response.service}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_only_so_many_streams_are_open(start: Serve) -> None:
    """As many as watches of health; who hangs up leaves room, and a server that stops ends them all."""
    async with start(load_reports=True, max_watches=2) as running:
        streams = [stub(running).StreamCoreMetrics(OrcaLoadReportRequest()) for _ in range(2)]
        assert all([await stream.read() for stream in streams])
        with pytest.raises(grpc.aio.AioRpcError, match="2 streams of load reports; expected fewer") as refused:
            await stub(running).StreamCoreMetrics(OrcaLoadReportRequest()).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        again = None
        while not again:
            try:
                again = await stub(running).StreamCoreMetrics(OrcaLoadReportRequest()).read()
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        running.stop.set()
        await running.task
        with pytest.raises(grpc.aio.AioRpcError):
            while True:
                await streams[1].read()


async def test_where_callers_are_known_the_stream_is_theirs_alone(start: Serve, tmp_path: Path) -> None:
    """How busy a server is says what others do."""
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.app]\ntokens = ["the-token-of-an-app"]\nallow = ["infer"]\n')
    async with start(load_reports=True, clients=clients) as running:
        known = (("authorization", "Bearer the-token-of-an-app"),)
        assert await stub(running).StreamCoreMetrics(OrcaLoadReportRequest(), metadata=known).read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(running).StreamCoreMetrics(OrcaLoadReportRequest()).read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


class Caller:
    """Reads so many reports, then hangs up."""

    def __init__(self, reads: int) -> None:
        self.reads, self.reports = reads, list[OrcaLoadReport]()

    async def write(self, report: OrcaLoadReport) -> None:
        self.reports.append(report)
        if len(self.reports) == self.reads:
            raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (None, 10.0),
        (Duration(seconds=5), 5.0),
        (Duration(nanos=1), 1.0),
        (Duration(seconds=-5), 1.0),
        (Duration(seconds=10**9), 60.0),
    ],
)
async def test_callers_choose_how_often_within_bounds(
    monkeypatch: pytest.MonkeyPatch, asked: Duration | None, seconds: float
) -> None:
    """Nobody has more than a report a second, or one that never comes."""
    slept = list[float]()

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr("server.transport.load_reports.asyncio.sleep", sleep)
    meter = LoadMeter(Metrics(), lambda: 0.0, lambda: 0.0, lambda: 1, Clock())
    caller: Any = Caller(reads=2)
    with pytest.raises(asyncio.CancelledError):
        await LoadReports(meter, 1).StreamCoreMetrics(OrcaLoadReportRequest(report_interval=asked), caller)
    assert (slept, len(caller.reports)) == ([seconds], 2)
