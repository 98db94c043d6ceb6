"""A server on several devices, which the CPU stands for: all of them work, and one that fails is done without."""

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from artifact.dtypes import Array
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server import app
from server.api.regard_v1.tensors import read_tensor, write_tensor
from server.config import EMBEDDED_MODELS
from server.engine.cpus import Cpus
from server.engine.decoder import BoundStep, Decoder
from server.engine.faults import judge_gpu
from server.engine.session import Graph
from server.errors import EngineFault
from server.repository.loading import load_model
from tests.golden import GOLDEN_MODELS
from tests.server.asking import CODES, samples
from tests.server.conftest import Running, Serve

TWO = "cpu:0,cpu:1"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
TEXTS = [" ".join(["cat", "dog", "mat", "the"][: 1 + count % 4] * (1 + count // 8)) for count in range(24)]
WORDS = ("transformer", "gauge", "attention", "knight")


class Watched:
    """Runs of graphs by the device they run on; some devices fail, and the first runs may wait for each other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.devices, self.failing = list[int](), set[int]()
        self.meet = False
        self._entered = (threading.Event(), threading.Event())
        run, bind = Graph.run, Decoder.bind

        def run_instead(
            graph: Graph,
            inputs: Mapping[str, Array],
            names: Sequence[str],
            *,
            all_threads: bool = False,
            device: int = 0,
        ) -> Any:
            self.enter(device)
            return run(graph, inputs, names, all_threads=all_threads, device=device)

        def bind_instead(decoder: Decoder, *arrays: Any, device: int = 0, **how: Any) -> Any:
            return Step(bind(decoder, *arrays, device=device, **how), self, device)

        monkeypatch.setattr(Graph, "run", run_instead)
        monkeypatch.setattr(app, "judge_of", lambda device: judge_gpu)  # the CPU stands for GPUs, which can fail
        monkeypatch.setattr(Decoder, "bind", bind_instead)

    def enter(self, device: int) -> None:
        """Take note of a run that begins."""
        self.devices.append(device)
        if self.meet:
            self._entered[device].set()
            assert self._entered[1 - device].wait(30)
        if device in self.failing:
            raise RuntimeError(f"CUDA failure 214: uncorrectable ECC error encountered ; GPU={device} ; hostname=here")


class Step:
    """One step of a decoder on a device."""

    def __init__(self, step: BoundStep, watched: Watched, device: int) -> None:
        self._step, self._watched, self._device = step, watched, device

    def run(self) -> None:
        self._watched.enter(self._device)
        self._step.run()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """What runs on which device."""
    return Watched(monkeypatch)


async def embed(running: Running) -> list[Any]:
    """Ask for all vectors at once, with attention of the last layer."""
    shown = pb.AttentionRequest(layers=[-1], head_reduction=pb.HEAD_REDUCTION_MEAN)
    requests = (api.EmbedRequest(model="tiny-text", text=text, attention=shown) for text in TEXTS)
    return list(await asyncio.gather(*(running.stub.Embed(request) for request in requests)))


async def write(running: Running) -> list[str]:
    """Write all words at once."""
    asked = (running.stub.GenerateText(api.GenerateRequest(model="g2p", text=word)) for word in WORDS)
    return [answer.end.results[0].text for answer in await asyncio.gather(*asked)]


async def status(running: Running, name: str) -> int:
    """What health says of the server, or of a model."""
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
    return int(answer.status)


def same(answers: Sequence[Any], expected: Sequence[Any]) -> None:
    """Compare vectors and attention."""
    for one, other in zip(answers, expected, strict=True):
        for found, wanted in ((one.vector, other.vector), *_weights(one, other)):
            np.testing.assert_allclose(read_tensor("", found), read_tensor("", wanted), atol=1e-5)


def _weights(one: Any, other: Any) -> list[tuple[Any, Any]]:
    pairs = zip(one.attention.layers, other.attention.layers, strict=True)
    return [(layer.weights, wanted.weights) for layer, wanted in pairs]


async def test_two_devices_work_at_a_time_and_answer_as_one(start: Serve, watched: Watched) -> None:
    """Each waits for the other in its first run."""
    async with start() as running:
        expected = await embed(running)
    async with start(device=TWO) as running:
        watched.devices.clear()
        watched.meet = True
        same(await embed(running), expected)
        assert set(watched.devices) == {0, 1}
        found = await samples(running)
        assert (found["regard_device_up", "CPU:0"], found["regard_device_up", "CPU:1"]) == (1, 1)
        assert found["regard_instances",] == 2
        models = (await running.stub.ListModels(api.ListModelsRequest())).models
        assert {model.device for model in models} == {"CPU:0,CPU:1"}


async def test_a_device_that_fails_is_done_without(start: Serve, watched: Watched) -> None:
    """Every call is answered; health goes on, metrics say which it is, and a model that is loaded since runs."""
    async with start() as running:
        expected = await embed(running)
    async with start(device=TWO) as running:
        watched.failing = {1}
        watched.meet = True
        watched.devices.clear()
        same(await embed(running), expected)
        assert watched.devices.count(1) == 1
        watched.meet = False
        found = await samples(running)
        assert (found["regard_device_up", "CPU:0"], found["regard_device_up", "CPU:1"]) == (1, 0)
        assert found["regard_instances",] == 1
        assert [await status(running, name) for name in ("", "tiny-text", "fashion")] == [SERVING] * 3
        same(await embed(running), expected)
        assert watched.devices.count(1) == 1


async def test_a_model_that_is_loaded_beside_a_failed_device_is_not_loaded_there(
    start: Serve, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it could not be; the device that is left stands for it."""
    loaded_on = list[list[str]]()

    def load(folder: Path, devices: Sequence[Any], *others: Any) -> Any:
        loaded_on.append([device.name for device in devices])
        return load_model(folder, devices, *others)

    monkeypatch.setattr(app, "load_model", load)
    async with start(device=TWO, models=GOLDEN_MODELS) as running:
        watched.failing, watched.meet = {0}, True
        await embed(running)
        watched.failing, watched.meet = set(), False
        await running.stub.UnloadModel(api.UnloadModelRequest(model="tiny-text"))
        await running.stub.LoadModel(api.LoadModelRequest(model="tiny-text"))
        watched.devices.clear()
        await embed(running)
        assert set(watched.devices) == {1}
    assert loaded_on == [["CPU:0", "CPU:1"], ["CPU:1", "CPU:1"]]


async def test_without_a_device_nothing_is_served(start: Serve, watched: Watched) -> None:
    """NOT_SERVING, UNAVAILABLE to whoever asks, and the end for an orchestrator to start it anew."""
    with pytest.raises(EngineFault, match=r"the last device has failed: CPU:[01]: CUDA failure 214"):
        async with start(device=TWO) as running:
            health: Any = health_pb2_grpc.HealthStub(running.channel)
            states = health.Watch(health_pb2.HealthCheckRequest(service="tiny-text"))
            assert (await states.read()).status == SERVING
            watched.failing = {0, 1}
            calls = [running.stub.Embed(api.EmbedRequest(model="tiny-text", text=text)) for text in TEXTS]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert (await states.read()).status == NOT_SERVING
            for error in ended:
                assert isinstance(error, grpc.aio.AioRpcError)
                assert error.code() is CODES.UNAVAILABLE
            await running.task


async def test_a_model_has_no_more_batches_at_a_time_than_its_settings_say(
    start: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another model has the second instance; when the settings say no more of it, so has this one."""
    shutil.copytree(GOLDEN_MODELS / "tiny-text", tmp_path / "tiny-text")
    (tmp_path / "fashion").symlink_to(EMBEDDED_MODELS / "fashion")
    settings = tmp_path / "tiny-text" / "config.toml"
    settings.write_text("instances = 1")
    run, gate, entered = Graph.run, threading.Event(), threading.Semaphore(0)

    def wait(graph: Graph, inputs: Mapping[str, Array], *rest: Any, **how: Any) -> Any:
        if "input_ids" in inputs:
            entered.release()
            assert gate.wait(30)
        return run(graph, inputs, *rest, **how)

    async with start(models=tmp_path, instances=2) as running:
        monkeypatch.setattr(Graph, "can_use_all_threads", False)  # otherwise the first run has both instances
        monkeypatch.setattr(Graph, "run", wait)
        ids = np.full((2, 4), 5, np.int64)
        inputs = {"input_ids": write_tensor(ids), "attention_mask": write_tensor(np.ones_like(ids))}
        request = api.PredictRequest(model="tiny-text", inputs=inputs)
        calls = [asyncio.ensure_future(running.stub.Predict(request))]
        assert await asyncio.to_thread(entered.acquire, timeout=30)
        calls.append(asyncio.ensure_future(running.stub.Predict(request)))
        while not (await samples(running))["regard_queue_depth",]:
            assert not calls[0].done()
        pixels = {"pixel_values": write_tensor(np.zeros((1, 1, 28, 28), np.float32))}
        await running.stub.Predict(api.PredictRequest(model="fashion", inputs=pixels))
        assert not entered.acquire(blocking=False)
        settings.write_text("")
        await running.stub.LoadModel(api.LoadModelRequest(model="tiny-text"))
        assert await asyncio.to_thread(entered.acquire, timeout=30)
        gate.set()
        await asyncio.gather(*calls)


async def test_texts_are_written_on_two_devices(start: Serve, watched: Watched) -> None:
    """A row of one in its first step, a row of the other in its first."""
    async with start(models=EMBEDDED_MODELS) as running:
        expected = await write(running)
    async with start(models=EMBEDDED_MODELS, device=TWO) as running:
        watched.devices.clear()
        assert await write(running) == expected
        watched.meet = True
        assert await write(running) == expected
        assert set(watched.devices) == {0, 1}


async def test_a_text_goes_on_where_its_device_has_failed(start: Serve, watched: Watched) -> None:
    """In the midst of it, on the other: nothing is written twice or left out."""
    async with start(models=EMBEDDED_MODELS) as running:
        expected = await write(running)
    for failing in (0, 1):
        async with start(models=EMBEDDED_MODELS, device=TWO) as running:
            await _write_until(running, watched, failing, lambda: len(watched.devices) > 12)
            assert await write(running) == expected
            found = await samples(running)
            assert found["regard_device_up", f"CPU:{failing}"] == 0
            assert found["regard_device_up", f"CPU:{1 - failing}"] == 1
        watched.failing = set()


async def _write_until(running: Running, watched: Watched, failing: int, is_time: Callable[[], bool]) -> None:
    """Write words, and let a device fail once it has taken some steps; all of them are written all the same."""
    watched.devices.clear()
    enter = watched.enter

    def failing_later(device: int) -> None:
        if is_time() and device == failing:
            watched.failing.add(failing)
        enter(device)

    watched.enter = failing_later  # type: ignore[method-assign]
    for _ in range(60):
        await write(running)
        if watched.failing:
            break
    watched.enter = enter  # type: ignore[method-assign]
    assert watched.failing == {failing}


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="threads are bound to two CPUs here"
)
async def test_each_numa_node_has_instances_of_its_own(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound to its CPUs, of which a machine with one node has one each; answers are the same."""
    async with start() as running:
        expected = await embed(running)
    first, second = (frozenset({cpu}) for cpu in sorted(os.sched_getaffinity(0))[:2])
    monkeypatch.setattr(app, "plan_cpus", lambda threads: Cpus(2, (first, second)))
    async with start() as running:
        same(await embed(running), expected)
        assert [device.name for device in running.started.devices] == ["CPU:0", "CPU:1"]
        bound = {
            thread.name: frozenset(os.sched_getaffinity(thread.native_id or 0))
            for thread in threading.enumerate()
            if thread.name.startswith("instance_")
        }
        assert bound == {"instance_0_0": first, "instance_1_0": second}
