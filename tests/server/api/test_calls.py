"""Callers who stand still: what they hold is counted, bounded, and given back when they are cut off."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.calls import Calls
from server.api.open_inference import open_inference_pb2 as oip
from server.api.servicer import Task
from server.errors import TooBusy
from server.ledger import Account, Ledger
from server.telemetry.metrics import Metrics
from server.transport.grpc_calls import end_calls
from tests.server.asking import samples, until
from tests.server.conftest import Running, Serve

# Envoy hangs up on them, which tests/faults see; Hypercorn in its place waits for them.
ON_GRPCIO = pytest.mark.parametrize("transport", [None], ids=["grpcio"])
SERVICE = "/regard.v1.RegardService"
LONG = "the cat sat on the mat " * 8  # its attention is more than a window that is closed
LITTLE = api.EmbedRequest(model="tiny-text", text="the cat")
_ROOM = 1_000_000  # bytes: some answers of LONG
HELD, IN_FLIGHT = ("regard_held_bytes",), ("regard_requests_in_flight",)
ANSWERED, REFUSED = ("regard_batch_rows_count", "tiny-text"), ("regard_refused_total", "held")


def embedding() -> tuple[str, Any]:
    """A call with one answer."""
    return f"{SERVICE}/Embed", api.EmbedRequest(
        model="tiny-text", text=LONG, truncate=True, attention=pb.AttentionRequest()
    )


def attending() -> tuple[str, Any]:
    """A call with an answer a layer."""
    request = api.AttendRequest(model="tiny-text", text=LONG, truncate=True, attention=pb.AttentionRequest())
    return f"{SERVICE}/Attend", request


def streaming() -> tuple[str, Any]:
    """A call with a stream of requests."""
    request = oip.ModelInferRequest(model_name="tiny-text")
    request.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(LONG.encode())
    request.parameters["truncate"].bool_param = True
    for layer in (0, 1):
        request.outputs.add(name=f"attention.{layer}")
    return "/inference.GRPCInferenceService/ModelStreamInfer", request


@asynccontextmanager
async def lazy(running: Running) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of callers who have no room for more than the first bytes of an answer."""
    options = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(running.started.address, options) as channel:
        yield channel


def ask(channel: grpc.aio.Channel, path: str, request: Any) -> Any:
    """Begin a call of which nothing is read."""
    content = request.SerializeToString()
    return channel.stream_stream(path)(iter([content] * 20 if "Stream" in path else [content]))


async def silent_call(calls: Calls) -> None:
    """A call whose message does not come."""
    calls.begin(reads=True)
    await asyncio.Event().wait()


async def others(running: Running) -> None:
    """Ask as others do all the time: gRPC holds the calls that it took last until it takes more."""
    for _ in range(2):
        assert (await running.stub.Embed(LITTLE)).model == "tiny-text"


@ON_GRPCIO
@pytest.mark.parametrize("call", [embedding, attending, streaming])
async def test_who_does_not_read_is_cut_off(call: Any, start: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """After the stated time: it is counted, logged, and what was held is given back; others are answered."""
    async with start(max_stall_seconds=0.5) as running, lazy(running) as channel:
        await others(running)
        path, request = call()
        stuck = ask(channel, path, request)
        await until(running, ("regard_cut_off_total", "answer"), 1)
        await until(running, IN_FLIGHT, 0)
        await until(running, HELD, 0)
        await others(running)
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            async with asyncio.timeout(20):
                while await stuck.read() is not grpc.aio.EOF:
                    pass
        assert cut.value.code() is grpc.StatusCode.CANCELLED
    name = path.rpartition("/")[2]
    assert f"{name}: cut off, its caller has not read its answer for 0.5 s (--max-stall-seconds)" in caplog.text
    assert "Traceback" not in caplog.text
    assert "stays in memory" not in caplog.text


async def test_who_does_not_send_is_cut_off(start: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A call whose one message does not come; a stream of requests may be silent as long as it likes."""
    async with start(max_stall_seconds=0.5) as running:
        await others(running)
        silent: Any = running.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
        stuck: Any = running.channel.stream_unary(f"{SERVICE}/Embed")()
        await until(running, ("regard_cut_off_total", "request"), 1)
        await others(running)
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await asyncio.wait_for(stuck, 20)
        assert cut.value.code() is grpc.StatusCode.CANCELLED
        await silent.write(streaming()[1].SerializeToString())
        assert oip.ModelStreamInferResponse.FromString(await silent.read()).infer_response.model_name == "tiny-text"
        silent.cancel()
    assert "a call: cut off, its caller has not sent its request for 0.5 s" in caplog.text


@pytest.mark.parametrize("call", [embedding, attending])
async def test_an_answer_that_is_not_read_is_in_the_server(call: Any, start: Serve) -> None:
    """Until its caller has it or hangs up; hanging up is no fault of the server's."""
    async with start() as running, lazy(running) as channel:
        path, request = call()
        stuck = ask(channel, path, request)
        await until(running, ANSWERED, 1)
        found = await until(running, IN_FLIGHT, 1)
        assert found[HELD] > len(request.SerializeToString())
        stuck.cancel()
        await until(running, IN_FLIGHT, 0)
        found = await until(running, HELD, 0)
        assert not [sample for sample in found if "INTERNAL" in sample]


async def test_what_does_not_fit_beside_an_unread_answer_is_refused(start: Serve) -> None:
    """One alone is let in however large; the next comes back when it has gone."""
    async with start(max_held_bytes=1) as running, lazy(running) as channel:
        stuck = ask(channel, *embedding())
        await until(running, ANSWERED, 1)
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"for its callers, of 1 at most \(--max-held-bytes\); retry"
        ) as refused:
            await running.stub.Embed(LITTLE)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(refused.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "1000"
        found = await samples(running)
        assert found[REFUSED] == 1
        assert found[("regard_requests_total", "RESOURCE_EXHAUSTED", "Embed", "")] == 1
        stuck.cancel()
        await until(running, HELD, 0)
        assert (await running.stub.Embed(LITTLE)).model == "tiny-text"


@ON_GRPCIO
async def test_who_does_not_read_leaves_room_for_other_clients(
    start: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asks beyond its share is refused, and before it is read where it already holds more."""
    names = ("greedy", "modest")
    greedy, modest = ([("authorization", f"Bearer the-token-of-{name}")] for name in names)
    clients = tmp_path / "clients.toml"
    clients.write_text("".join(f'[clients.{name}]\ntokens = ["the-token-of-{name}"]\n' for name in names))
    path, request = embedding()
    async with start(clients=clients, max_held_bytes=_ROOM) as running, lazy(running) as channel:
        ask_much: Any = channel.stream_stream(path)
        stuck, refused = list[Any](), 0.0
        while not refused:
            stuck.append(ask_much(iter([request.SerializeToString()]), metadata=greedy))
            found, answered = await samples(running), 0.0
            async with asyncio.timeout(30):
                while answered + refused != len(stuck):
                    found = await samples(running)
                    answered, refused = (found.get(sample, 0.0) for sample in (ANSWERED, REFUSED))
        assert _ROOM / 2 < found[HELD] < _ROOM
        for _ in range(3):
            assert (await running.stub.Embed(LITTLE, metadata=modest)).model == "tiny-text"
        monkeypatch.setattr("server.ledger.CLIENT_FACTOR", 1)
        silent: Any = running.channel.stream_unary(path)
        with pytest.raises(grpc.aio.AioRpcError, match=r"bytes for this client; .* held for all, of 1000000") as error:
            await asyncio.wait_for(silent(metadata=greedy), 20)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        found = await samples(running)
        assert found[("regard_client_requests_total", "greedy", "RESOURCE_EXHAUSTED")] == refused + 1
        answered = found[("regard_requests_total", "OK", "Embed", "tiny-text")]
        assert found[("regard_request_seconds_count", "Embed")] == answered + refused, "what is unread has no latency"
        for call in stuck:
            call.cancel()
        await until(running, HELD, 0)
        assert (await running.stub.Embed(LITTLE, metadata=greedy)).model == "tiny-text"


async def test_a_message_that_is_long_in_coming_counts_as_the_largest() -> None:
    """Nobody knows how much of it is there; once it has come, its own size counts."""
    ledger = Ledger()
    calls = Calls(ledger, Metrics(), unseen_bytes=1000, max_seconds=60, end_calls=end_calls)

    async def run() -> list[int]:
        calls.begin(reads=True)
        calls.look(time.monotonic() + 0.5)
        found = [ledger.held_bytes]
        calls.look(time.monotonic() + 2)
        found.append(ledger.held_bytes)
        calls.received(10)
        calls.look(time.monotonic() + 2)
        return [*found, ledger.held_bytes]

    assert await asyncio.create_task(run()) == [0, 1000, 20]
    await asyncio.sleep(0)
    assert ledger.held_bytes == 0


async def test_many_calls_are_cut_off_in_one_look(caplog: pytest.LogCaptureFixture) -> None:
    """All of gRPC's tasks are looked through once, and ten lines say so, and one how many more."""
    looks = list[int]()

    def end_once(tasks: Sequence[Task]) -> None:
        looks.append(len(tasks))
        end_calls(tasks)

    calls = Calls(Ledger(), Metrics(), unseen_bytes=1000, max_seconds=60, end_calls=end_once)
    tasks = [asyncio.create_task(silent_call(calls)) for _ in range(50)]
    await asyncio.sleep(0)
    calls.look(time.monotonic() + 59)
    assert not looks
    calls.look(time.monotonic() + 61)
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert looks == [50]
    told = [message for message in caplog.messages if "cut off, its caller" in message]
    assert len(told) == 10
    assert "40 more calls were cut off" in caplog.messages


async def test_answers_that_wait_to_be_read_leave_room_for_requests(start: Serve) -> None:
    """However many of one caller there are: they are computed, and their bytes count."""
    async with start(max_queue_size=2) as running, lazy(running) as channel:
        path, request = embedding()
        stuck = [ask(channel, path, request)]
        for number in range(1, 6):
            await until(running, ANSWERED, number)
            stuck.append(ask(channel, path, request))
        await until(running, IN_FLIGHT, 6)
        assert (await running.stub.Embed(LITTLE)).model == "tiny-text"
        for call in stuck:
            call.cancel()
        await until(running, HELD, 0)


async def test_messages_that_are_long_in_coming_give_way_where_there_is_no_room() -> None:
    """Those that began first stay, and one alone always does."""
    calls = Calls(Ledger(2500), Metrics(), unseen_bytes=1000, max_seconds=60, end_calls=end_calls)

    tasks = [asyncio.create_task(silent_call(calls)) for _ in range(4)]
    await asyncio.sleep(0)
    calls.look(time.monotonic() + 2)
    assert calls.ledger.held_bytes == 2000
    await asyncio.wait(tasks[2:])
    assert [task.cancelled() for task in tasks] == [False, False, True, True]
    for task in tasks[:2]:
        task.cancel()
    await asyncio.wait(tasks)
    assert calls.ledger.held_bytes == 0


async def test_a_call_that_has_not_begun_joins_no_client() -> None:
    """One of a method that nobody serves, or that is refused where much is held: nothing would part it again."""
    calls = Calls(Ledger(1000), Metrics(), unseen_bytes=1000, max_seconds=60, end_calls=end_calls)
    held = Account(calls.ledger)
    held.belong_to("one")
    held.hold("request", 900)
    with pytest.raises(TooBusy):
        calls.belong_to("one")
    calls.belong_to("other")
    held.close()
    assert not calls.ledger._clients
