import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.engine.session import Graph
from server.errors import StartError
from server.inference import image_rows
from tests.server.asking import get, samples
from tests.server.conftest import Running, Serve

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_metrics_tell_what_was_asked_and_what_it_cost(running: Running) -> None:
    """Requests by outcome, stages, batches, attention bytes, models."""
    attention = pb.AttentionRequest(layers=[0], cls_only=True, head_reduction=pb.HEAD_REDUCTION_MEAN)
    await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat", attention=attention))
    with pytest.raises(grpc.aio.AioRpcError):
        await running.stub.Embed(api.EmbedRequest(model="made up", text="the cat"))
    found = await samples(running)
    assert found[("regard_requests_total", "OK", "Embed", "tiny-text")] == 1
    assert found[("regard_requests_total", "NOT_FOUND", "Embed", "")] == 1
    stages = ("decode", "queue", "compute", "encode")
    assert {found[("regard_stage_seconds_count", "tapped", "tiny-text", stage)] for stage in stages} == {1}
    assert found[("regard_batch_seconds_count", "tapped", "tiny-text")] == 1
    assert found[("regard_client_requests_total", "anyone", "OK")] == 1
    assert found[("regard_client_compute_seconds_total", "anyone")] > 0
    assert (found[("regard_requests_in_flight",)], found[("regard_instances_busy",)], found[("regard_ready",)]) == (
        0,
        0,
        1,
    )
    assert found[("regard_instances",)] == 2
    assert (found[("regard_lanes",)], found[("regard_lanes_busy",)]) == (2, 0)  # deprecated
    assert found[("regard_request_seconds_count", "Embed")] == 2
    assert found[("regard_batch_rows_sum", "tiny-text")] == 1
    assert found[("regard_batch_padding_ratio_count", "tiny-text")] == 1
    assert found[("regard_attention_sent_bytes_total", "tiny-text")] == 4 * 4
    assert found[("regard_queue_depth",)] == 0
    assert found[("regard_model_info", "CPU", "regard-vit", "fashion", "1")] == 1


async def test_health_and_readiness_follow_the_servers_life(running: Running) -> None:
    """Serving for every model while it runs; a watcher sees it stop."""
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    for name in ("", "regard.v1.RegardService", "fashion", "tiny-text"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="nope"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert await get(running, "/healthz") == (200, "alive\n")
    assert await get(running, "/readyz") == (200, "ready\n")
    assert (await get(running, "/elsewhere"))[0] == 404
    watch = health.Watch(health_pb2.HealthCheckRequest(service="fashion"))
    assert (await watch.read()).status == SERVING
    running.stop.set()
    assert (await watch.read()).status == NOT_SERVING
    await running.task


async def test_reflection_lists_the_services(running: Running) -> None:
    """So that grpcurl works without the proto files."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("grpc.Channel", running.channel))
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.done_writing()
    names = {service.name for service in (await call.read()).list_services_response.service}
    assert {"regard.v1.RegardService", "grpc.health.v1.Health"} <= names


async def test_accepted_requests_are_answered_when_the_server_stops(start: Serve) -> None:
    """Forty in flight, then a stop: every one ends well or, had it not been accepted, UNAVAILABLE."""
    async with start() as running:
        request = api.EmbedRequest(model="tiny-text", text="the cat sat on the mat")
        calls = [asyncio.ensure_future(running.stub.Embed(request)) for _ in range(40)]
        await calls[0]
        running.stop.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await running.task
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert all(isinstance(error, grpc.aio.AioRpcError) for error in failed)
        assert {error.code() for error in failed if isinstance(error, grpc.aio.AioRpcError)} <= {
            grpc.StatusCode.UNAVAILABLE
        }
        assert len(failed) < 40


async def test_a_server_that_stops_does_not_wait_for_an_image(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for one that takes longer than --drain-seconds is told to go elsewhere."""
    began, may_end = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        began.set()
        assert may_end.wait(60)

    monkeypatch.setattr(image_rows, "open_image", hang)
    async with start(drain_seconds=0.1) as running:
        call = running.stub.Classify(api.ClassifyRequest(model="fashion", image=b"x"))
        assert await asyncio.to_thread(began.wait, 60)
        running.stop.set()
        await running.task
        assert not may_end.is_set()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    may_end.set()


async def test_a_deadline_that_passes_in_the_queue_is_counted_and_not_computed(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller sees DEADLINE_EXCEEDED."""
    may_end, run = threading.Event(), Graph.run

    def held(graph: Graph, *args: Any, **how: Any) -> Any:
        assert may_end.wait(60)
        return run(graph, *args, **how)

    async with start(instances=1) as running:
        monkeypatch.setattr(Graph, "run", held)
        request = api.EmbedRequest(model="tiny-text", text="the cat")
        before = asyncio.ensure_future(running.stub.Embed(request))
        async with asyncio.timeout(30):
            while not (await samples(running))[("regard_instances_busy",)]:
                pass
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Embed(request, timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        dropped = list[float]()  # as cancelled where the server hears of it first, or as it would have been too late
        async with asyncio.timeout(30):
            while not dropped:
                found = await samples(running)
                dropped = [value for name, value in found.items() if name[0] == "regard_dropped_total" and value]
        assert dropped == [1]
        may_end.set()
        await before
        assert (await samples(running))[("regard_batch_rows_sum", "tiny-text")] == 1


async def test_a_port_that_is_taken_stops_the_start(running: Running, start: Serve) -> None:
    """For gRPC and for the metrics, each by its flag."""
    with pytest.raises(StartError, match=r"--listen: .*: cannot listen"):
        async with start(listen=running.started.address):
            pass
    with pytest.raises(StartError, match=r"--metrics: .*: cannot listen: Address already in use"):
        async with start(metrics=running.started.metrics_address):
            pass


async def test_a_host_that_is_not_this_machines_stops_the_start(start: Serve) -> None:
    """192.0.2.1 is reserved for documentation."""
    with pytest.raises(StartError, match=r"--listen: 192\.0\.2\.1:0: cannot listen"):
        async with start(listen="192.0.2.1:0", allow_insecure=True):
            pass


async def test_a_folder_without_models_stops_the_start(start: Serve, tmp_path: Path) -> None:
    """And frees its ports."""
    with pytest.raises(StartError, match="holds no artifact"):
        async with start(models=tmp_path):
            pass


async def test_metrics_are_served_on_ipv6(start: Serve) -> None:
    """[::1]:0 takes a free port there, and the address that is told can be asked."""
    async with start(metrics="[::1]:0") as running:
        assert running.started.metrics_address.startswith("[::1]:")
        assert (await get(running, "/readyz"))[0] == 200


@pytest.mark.parametrize(
    ("path", "streams"),
    [
        ("/regard.v1.RegardService/Predict", False),
        ("/regard.v1.RegardService/Attend", True),
        ("/inference.GRPCInferenceService/ModelInfer", False),
        ("/inference.GRPCInferenceService/ModelMetadata", False),
    ],
)
async def test_bytes_that_are_no_message_are_the_callers_fault(
    running: Running, caplog: pytest.LogCaptureFixture, path: str, streams: bool
) -> None:
    """INVALID_ARGUMENT, for one response and for a stream of them alike; counted and logged as other refusals."""
    caplog.set_level("INFO", "server.requests")
    call: Any = running.channel.unary_stream(path) if streams else running.channel.unary_unary(path)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        answer = call(b"\xff\xff")
        await (answer.read() if streams else answer)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "the bytes are no message of this method" in (refused.value.details() or "")
    method = path.rpartition("/")[2]
    assert f"{method} of '': INVALID_ARGUMENT: the bytes are no message" in caplog.text
    assert (await samples(running))[("regard_requests_total", "INVALID_ARGUMENT", method, "")] == 1


async def test_a_stream_of_bytes_that_are_no_message_is_the_callers_fault(running: Running) -> None:
    """Reflection, whose requests are a stream."""
    call: Any = running.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.aio.AioRpcError, match="the bytes are no message of this method") as refused:
        await call(iter([b"\xff\xff"])).read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_name_of_megabytes_is_not_held_for_a_watch(running: Running, method: str) -> None:
    """Health is open to everybody, and a watch lasts as long as its caller likes."""
    stub, names = health_pb2_grpc.HealthStub(running.channel), ("x" * 4000, "x" * 5000)
    expected = {"Check": grpc.StatusCode.NOT_FOUND, "Watch": None}[method]
    for name, code in zip(names, (expected, grpc.StatusCode.INVALID_ARGUMENT), strict=True):
        call = getattr(stub, method)(health_pb2.HealthCheckRequest(service=name))
        try:
            answer = await (call.read() if method == "Watch" else call)
            assert (code, answer.status) == (None, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        except grpc.aio.AioRpcError as error:
            assert error.code() is code
        call.cancel()
