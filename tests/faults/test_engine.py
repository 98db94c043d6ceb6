"""The engine raises, runs out of memory, hangs, dies: what callers and orchestrators see."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regard.v1 import regard_pb2 as api
from server import app
from server.engine.session import Graph
from server.errors import EngineFault
from server.repository.loading import load_model
from server.scheduling.dispatcher import Dispatcher
from tests.golden import GOLDEN_MODELS
from tests.processes import ROOT, environment
from tests.server.conftest import Running, Serve, make_config

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
BAD_LENGTH = 7  # tokens of the text on which the engine fails


def embed(running: Running, text: str) -> Any:
    """Ask for the vector of a text."""
    return running.stub.Embed(api.EmbedRequest(model="tiny-text", text=text))


GOOD, BAD = "the cat", "the cat sat on mat"  # 4 and 7 tokens with the special ones


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Let something happen when the engine meets the bad text."""
    run = Graph.run

    def failing(happen: Callable[[], None]) -> None:
        def instead(self: Graph, inputs: Mapping[str, Any], *rest: Any, **how: Any) -> Any:
            if "input_ids" in inputs and inputs["input_ids"].shape[1] == BAD_LENGTH:
                happen()
            return run(self, inputs, *rest, **how)

        monkeypatch.setattr(Graph, "run", instead)

    return failing


def throw(error: BaseException) -> None:
    """Raise."""
    raise error


@pytest.mark.parametrize("error", [RuntimeError("a kernel failed"), MemoryError("no room for 12 GB")])
async def test_a_run_that_raises_fails_alone(error: Exception, start: Serve, fail: Any) -> None:
    """INTERNAL without a word of the inside; others, and the next, are answered."""
    async with start() as running:
        fail(lambda: throw(error))
        calls: list[Any] = [embed(running, text) for text in (BAD, *[GOOD] * 5)]
        bad, *good = cast("list[Any]", await asyncio.gather(*calls, return_exceptions=True))
        assert isinstance(bad, grpc.aio.AioRpcError)
        assert (bad.code(), bad.details()) == (
            grpc.StatusCode.INTERNAL,
            "internal error; the server's log has the details",
        )
        assert [answer.model for answer in good] == ["tiny-text"] * 5
        assert (await embed(running, GOOD)).model == "tiny-text"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a hanging run waits for; it is let go when the test is over."""
    gate = threading.Event()
    yield gate
    gate.set()


async def test_a_run_that_hangs_ends_the_server_and_everyone_is_told(
    start: Serve, fail: Any, gate: threading.Event
) -> None:
    """Health says NOT_SERVING, who waits gets UNAVAILABLE at once, and the server ends with the reason."""
    with pytest.raises(EngineFault, match=r"a run has taken longer than 0.3 s \(--watchdog-seconds\)"):
        async with start(watchdog_seconds=0.3, instances=1) as running:
            fail(gate.wait)
            health: Any = health_pb2_grpc.HealthStub(running.channel)
            states = health.Watch(health_pb2.HealthCheckRequest())
            assert (await states.read()).status == SERVING
            hanging = asyncio.ensure_future(asyncio.wait_for(embed(running, BAD), 30))
            waiting = [asyncio.ensure_future(asyncio.wait_for(embed(running, GOOD), 30)) for _ in range(3)]
            assert (await states.read()).status == NOT_SERVING
            for call in (hanging, *waiting):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            await running.task


async def test_an_instance_that_dies_ends_the_server(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is gone, and with it whoever it was working for."""
    with pytest.raises(EngineFault, match="an instance of the engine has ended: RuntimeError"):
        async with start(instances=1) as running:
            monkeypatch.setattr(Dispatcher, "_end", lambda *args: throw(RuntimeError("a bug of ours")))
            await embed(running, GOOD)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asyncio.wait_for(embed(running, GOOD), 30)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            await running.task


async def test_a_run_that_outlasts_the_drain_does_not_hold_the_server(
    start: Serve, fail: Any, gate: threading.Event
) -> None:
    """Told to stop, it gives up what does not end in time: its caller is told, and the process can end."""
    with pytest.raises(EngineFault, match=r"a run has not ended within 0.3 s \(--drain-seconds\)"):
        async with start(drain_seconds=0.3, instances=1) as running:
            entered = threading.Event()

            def hang() -> None:
                entered.set()
                gate.wait()

            fail(hang)
            hanging = asyncio.ensure_future(asyncio.wait_for(embed(running, BAD), 30))
            assert await asyncio.to_thread(entered.wait, 30)
            running.stop.set()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await hanging
            assert (refused.value.code(), refused.value.details()) == (
                grpc.StatusCode.UNAVAILABLE,
                "the server is stopping",
            )
            await asyncio.wait_for(running.task, 30)


async def test_an_instance_that_dies_while_the_server_drains_ends_it(
    start: Serve, fail: Any, gate: threading.Event
) -> None:
    """Nobody waits for the drain's end in vain."""
    with pytest.raises(EngineFault, match="an instance of the engine has ended: SystemExit"):
        async with start(drain_seconds=3600, instances=1) as running:
            entered = threading.Event()

            def die() -> None:
                entered.set()
                gate.wait()
                raise SystemExit

            fail(die)
            health: Any = health_pb2_grpc.HealthStub(running.channel)
            states = health.Watch(health_pb2.HealthCheckRequest())
            assert (await states.read()).status == SERVING
            dying = asyncio.ensure_future(asyncio.wait_for(embed(running, BAD), 30))
            assert await asyncio.to_thread(entered.wait, 30)
            running.stop.set()
            assert (await states.read()).status == NOT_SERVING
            gate.set()
            with pytest.raises(grpc.aio.AioRpcError, match="the engine has failed"):
                await dying
            await asyncio.wait_for(running.task, 30)


async def test_told_to_stop_while_it_loads_it_ends(
    models_folder: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without having announced itself."""
    entered, stop = threading.Event(), asyncio.Event()

    def slowly(*arguments: Any) -> Any:
        entered.set()
        gate.wait()
        return load_model(*arguments)

    monkeypatch.setattr(app, "load_model", slowly)
    announced = list[app.Started]()
    serving = asyncio.create_task(app.serve(make_config(models=models_folder), stop, announced.append))
    assert await asyncio.to_thread(entered.wait, 30)
    stop.set()
    try:
        await asyncio.wait_for(serving, 30)
    finally:
        gate.set()  # the event loop's end waits for its threads
    assert not announced


HANGING = """
import sys, threading
from server import __main__
from server.engine import session as graph
run = graph.Graph.run
def instead(self, inputs, *rest, **how):
    if inputs["input_ids"].shape[1] == 7:
        threading.Event().wait()
    return run(self, inputs, *rest, **how)
graph.Graph.run = instead
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_process_ends_for_its_orchestrator_though_a_thread_hangs(log_format: str) -> None:
    """With a code of its own, and one line, which is a record of the log where that is for machines."""
    import regard

    command = [sys.executable, "-c", HANGING, "--models", str(GOLDEN_MODELS), "--watchdog-seconds", "0.3"]
    command += ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-format", log_format]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout
            assert process.stderr
            if log_format == "json":
                records = map(json.loads, iter(process.stderr.readline, ""))
                address = next(record["address"] for record in records if "address" in record)
            else:
                lines = iter(process.stdout.readline, "")
                address = next(line for line in lines if line.startswith("gRPC on ")).split()[2].rstrip(",")
            with regard.Client(address) as client, pytest.raises(regard.Unavailable, match="the engine has failed"):
                client.embed(text=BAD)
            assert process.wait(30) == 70
            *_, last = process.stderr.read().splitlines()
            if log_format == "json":
                last = f"regard: {json.loads(last)['message']}"
            assert last == "regard: fault: a run has taken longer than 0.3 s (--watchdog-seconds); ending with code 70"
        finally:
            process.kill()
