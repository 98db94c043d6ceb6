"""What a caller can make large or do often, tried; the server refuses and still answers others."""

import asyncio
import gzip
import io
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper
from PIL import Image

from regard.v1 import regard_pb2 as api
from server.address import split_address
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.errors import StartError
from tests.server.api.open_inference.messages import make_bytes_request
from tests.server.asgi import BOTH
from tests.server.asking import samples
from tests.server.conftest import Running, Serve

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7  # RFC 9113, section 6
MAX_CONCURRENT_STREAMS = 3
TEXT = api.EmbedRequest(model="tiny-text", text="the cat")


def frame(kind: int, content: bytes = b"") -> bytes:
    """A frame of HTTP/2 on the connection itself."""
    return len(content).to_bytes(3, "big") + bytes([kind, 0, 0, 0, 0, 0]) + content


@asynccontextmanager
async def connected(running: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that speaks for itself."""
    host, port = split_address(running.started.address)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(PREFACE + frame(SETTINGS))
    yield reader, writer
    writer.close()


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Kind and content of the next frame."""
    head = await reader.readexactly(9)
    return head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))


async def refused(running: Running, request: api.ClassifyRequest, **how: object) -> grpc.StatusCode:
    """How a call is refused; the next one is answered."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await running.stub.Classify(request, **how)
    assert (await running.stub.Embed(TEXT)).model == "tiny-text"
    return error.value.code()


@BOTH
async def test_a_message_that_inflates_beyond_the_limit_is_refused(start: Serve) -> None:
    """64 MB of nothing are 64 KB on the way."""
    bomb = api.ClassifyRequest(model="fashion", image=bytes(64 * 2**20))
    assert len(gzip.compress(bomb.SerializeToString())) < 2**17
    async with start(max_message_bytes=2**20) as running:
        assert await refused(running, bomb, compression=grpc.Compression.Gzip) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_image_that_inflates_beyond_the_limit_is_refused(running: Running) -> None:
    """400 million white pixels are 50 KB of PNG; they are never decoded."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    assert len(file.getvalue()) < 2**17
    request = api.ClassifyRequest(model="fashion", image=file.getvalue())
    assert await refused(running, request) is grpc.StatusCode.INVALID_ARGUMENT


async def test_much_metadata_is_refused(running: Running) -> None:
    """A hundred kilobytes that no method wants."""
    metadata = tuple((f"x-filler-{number}", "x" * 1000) for number in range(100))
    request = api.ClassifyRequest(model="fashion")
    assert await refused(running, request, metadata=metadata) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_connection_has_so_many_streams_and_no_more(running: Running) -> None:
    """The server says so when it is greeted."""
    async with connected(running) as (reader, _):
        kind, content = await read_frame(reader)
        assert kind == SETTINGS
        settings = dict(struct.iter_unpack(">HI", content))
    assert settings[MAX_CONCURRENT_STREAMS] == 1024


async def test_whoever_pings_without_end_is_disconnected(running: Running) -> None:
    """Frames that cost the caller nothing end its connection."""
    async with connected(running) as (reader, writer):
        writer.write(frame(PING, bytes(8)) * 100)
        while (received := await read_frame(reader))[0] != GOAWAY:
            pass
        assert b"too_many_pings" in received[1]
    assert (await running.stub.Embed(TEXT)).model == "tiny-text"


async def test_a_watch_of_health_that_ends_leaves_the_others(running: Running) -> None:
    """An unauthenticated caller who watches the same and hangs up; whoever stays is told what changes."""
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    asked = health_pb2.HealthCheckRequest(service="tiny-text")
    staying, leaving = health.Watch(asked), health.Watch(asked)
    assert (await staying.read()).status == (await leaving.read()).status == health_pb2.HealthCheckResponse.SERVING
    leaving.cancel()
    assert await leaving.code() is grpc.StatusCode.CANCELLED
    again = health.Watch(asked)  # which the server sees after the end
    await again.read()
    await running.stub.UnloadModel(api.UnloadModelRequest(model="tiny-text"))
    told = await asyncio.wait_for(staying.read(), 30)
    assert told.status == health_pb2.HealthCheckResponse.NOT_SERVING
    await running.stub.LoadModel(api.LoadModelRequest(model="tiny-text"))
    assert (await staying.read()).status == health_pb2.HealthCheckResponse.SERVING


@BOTH
async def test_watches_beyond_the_limit_are_refused(start: Serve) -> None:
    """Counted and told when to come back, as all that is refused."""
    async with start(max_watches=1) as running:
        health: Any = health_pb2_grpc.HealthStub(running.channel)
        staying = health.Watch(health_pb2.HealthCheckRequest())
        assert (await staying.read()).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(
            grpc.aio.AioRpcError, match="1 watches, 1 of them of this address; expected fewer"
        ) as refused:
            await health.Watch(health_pb2.HealthCheckRequest()).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(refused.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "1000"
        assert (await samples(running))[("regard_refused_total", "health")] == 1
        staying.cancel()


async def test_connections_beyond_the_limit_are_closed(start: Serve) -> None:
    """Those that are there stay, and new ones find room when others have gone."""
    async with start(max_connections=3) as running:
        assert (await running.stub.Embed(TEXT)).model == "tiny-text"
        async with connected(running) as (one, _), connected(running) as (other, _):
            assert (await read_frame(one))[0] == (await read_frame(other))[0] == SETTINGS
            async with connected(running) as (beyond, _):
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    while True:
                        await read_frame(beyond)
            assert (await running.stub.Embed(TEXT)).model == "tiny-text"


def write_model(folder: Path, location: str) -> None:
    """A model without a contract whose weights are said to lie somewhere."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [tensor])
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "location", ["../secret.bin", "{outside}/secret.bin", "link.bin", "up/secret.bin", "a/../../secret.bin"]
)
async def test_a_model_cannot_read_what_lies_outside_its_folder(location: str, start: Serve, tmp_path: Path) -> None:
    """By a way up, by an absolute path, by a link: the file of somebody else would be its weights, and come back."""
    (tmp_path / "models" / "spy").mkdir(parents=True)
    (tmp_path / "models" / "spy" / "secret.bin").write_bytes(bytes(16))
    folder = tmp_path / "models" / "spy" / "1"
    write_model(folder, location.format(outside=folder.parent))
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    (folder / "up").symlink_to(folder.parent)
    with pytest.raises(StartError, match="External data path validation failed"):
        async with start(models=tmp_path / "models"):
            pass


LARGE = {
    "fields": oip.ModelInferRequest(model_name="tiny-text", raw_input_contents=[b""] * 5000),
    "integers": oip.ModelInferRequest(
        inputs=[oip.ModelInferRequest.InferInputTensor(contents=oip.InferTensorContents(int64_contents=range(5000)))]
    ),
}


@BOTH
@pytest.mark.parametrize("what", LARGE)
async def test_a_message_that_would_take_much_once_parsed_is_refused(
    what: str, start: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Alone and in a stream, whose other requests are answered; counted and logged like one that is malformed."""
    caplog.set_level("INFO", "server.requests")
    message = f"more than 4000 {what} in the message; expected at most 4000 (the server's --max-message-{what})"
    async with start(**{f"max_message_{what}": 4000}) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        with pytest.raises(grpc.aio.AioRpcError, match=re.escape(message)) as error:
            await stub.ModelInfer(LARGE[what])
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        good = make_bytes_request("tiny-text", "text", b"the cat")
        answers = [answer async for answer in stub.ModelStreamInfer(iter([LARGE[what], good]))]
        assert sorted(bool(answer.error_message) for answer in answers) == [False, True]
        assert any(message in answer.error_message for answer in answers)
        counted = await samples(running)
    assert counted[("regard_messages_refused_total", what)] == 2
    assert counted[("regard_requests_total", "INVALID_ARGUMENT", "ModelInfer", "")] == 1
    assert f"ModelInfer of '': INVALID_ARGUMENT: {message}" in caplog.text


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("/grpc.health.v1.Health/Check", b"\xff\xff", "the bytes are no message of this method"),
        ("/inference.GRPCInferenceService/ServerLive", b"\xff\xff", "the bytes are no message of this method"),
        ("/grpc.health.v1.Health/Check", bytes(5000), "a message of 5000 bytes; expected at most 4096 of this method"),
    ],
)
async def test_a_message_that_is_not_parsed_is_counted_and_logged_of_every_method(
    path: str, content: bytes, message: str, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Also of those that are no requests to a model: health and readiness."""
    caplog.set_level("INFO", "server.requests")
    call: Any = running.channel.unary_unary(path)
    with pytest.raises(grpc.aio.AioRpcError, match=message) as error:
        await call(content)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    method, counted = path.rpartition("/")[2], await samples(running)
    assert counted[("regard_requests_total", "INVALID_ARGUMENT", method, "")] == 1
    assert counted[("regard_messages_refused_total", "bytes" if len(content) > 4096 else "malformed")] == 1
    assert f"{method} of '': INVALID_ARGUMENT: {message}" in caplog.text
