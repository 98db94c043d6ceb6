"""Versions change under constant load: nobody notices but by the version that answers."""

import asyncio
import shutil
import struct
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.engine.engine import Engine
from tests.golden import BARE_ONNX_MODELS, CONSTANT
from tests.server.api.open_inference.messages import make_request, read
from tests.server.conftest import Serve

CALLERS = 8


def publish(folder: Path, version: int, *, broken: bool = False) -> None:
    """Put a version into the folder that adds its own number; complete at once, as the exporter does it."""
    hidden = folder / ".new"
    shutil.copytree(BARE_ONNX_MODELS / "plus" / "1", hidden)
    path = hidden / "model.onnx"
    content = path.read_bytes().replace(struct.pack("<f", CONSTANT), struct.pack("<f", version))
    path.write_bytes(content[: len(content) // 2] if broken else content)
    hidden.rename(folder / str(version))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model's folder, with one version."""
    folder = tmp_path / "models" / "plus"
    folder.mkdir(parents=True)
    publish(folder, 1)
    return folder


class Load:
    """Callers who ask in a loop until told to stop."""

    def __init__(self, stub: GRPCInferenceServiceStub) -> None:
        self._stub = stub
        self._going = True
        self.answered = asyncio.Condition()
        self.count = 0
        self.versions: set[int] = set()
        self._tasks = [asyncio.create_task(self._ask(caller)) for caller in range(CALLERS)]

    async def _ask(self, caller: int) -> None:
        try:
            await self._ask_on(np.full((1, 1 + caller % 3), float(caller), np.float32))
        finally:
            async with self.answered:
                self.answered.notify_all()

    async def _ask_on(self, array: NDArray[np.float32]) -> None:
        newest = 0
        while self._going:
            response = await self._stub.ModelInfer(make_request("plus", x=array))
            version = int(response.model_version)
            np.testing.assert_array_equal(read(response)["y"], array + version)
            assert version >= newest, "an answer of an older version came after one of a newer"
            newest = version
            async with self.answered:
                self.count += 1
                self.versions.add(version)
                self.answered.notify_all()

    async def wait_for(self, version: int) -> None:
        """Until that version has answered and everyone was answered a few times more."""
        async with self.answered:
            await self.answered.wait_for(lambda: version in self.versions or self._failed)
            enough = self.count + 5 * CALLERS
            await self.answered.wait_for(lambda: self.count >= enough or self._failed)
        await asyncio.gather(*(task for task in self._tasks if task.done()))

    @property
    def _failed(self) -> bool:
        return any(task.done() for task in self._tasks)

    async def stop(self) -> None:
        """Let everyone finish; raises what went wrong for any of them."""
        self._going = False
        await asyncio.gather(*self._tasks)


@pytest.fixture
async def load(start: Serve, folder: Path) -> AsyncIterator[tuple[Load, GRPCInferenceServiceStub]]:
    """A server under load."""
    async with start(models=folder.parent) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        load = Load(stub)
        yield load, stub
        await load.stop()


async def test_no_request_fails_while_versions_change(
    load: tuple[Load, GRPCInferenceServiceStub], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten new versions and a broken one; each answer is exactly one version's, and old ones are freed."""
    load_, stub = load
    engines = weakref.WeakSet[Engine]()
    original = Engine.warm_up

    def warm_up(engine: Engine) -> None:
        engines.add(engine)
        original(engine)

    monkeypatch.setattr(Engine, "warm_up", warm_up)
    await load_.wait_for(1)
    for version in range(2, 12):
        publish(folder, version)
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="plus"))
        await load_.wait_for(version)
    publish(folder, 12, broken=True)
    with pytest.raises(grpc.aio.AioRpcError, match=r"12/model.onnx: ONNX Runtime cannot load it"):
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="plus"))
    await load_.wait_for(11)
    await load_.stop()
    assert load_.versions == set(range(1, 12))
    index = (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
    states = {int(one.version): one.state for one in index}
    assert states == dict.fromkeys([*range(1, 11), 12], "UNAVAILABLE") | {11: "READY"}
    assert len(engines) == 1
    statistics = (await stub.ModelStatistics(pb.ModelStatisticsRequest(name="plus"))).model_stats[0]
    assert statistics.version == "11"


async def test_a_watched_folder_is_followed(start: Serve, folder: Path) -> None:
    """New versions take over, broken ones do not, and a model whose folder has gone is unloaded."""
    async with start(models=folder.parent, watch=True) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        load = Load(stub)
        publish(folder, 2)
        await load.wait_for(2)
        publish(folder, 3, broken=True)
        publish(folder, 4)
        await load.wait_for(4)
        await load.stop()
        assert load.versions <= {1, 2, 4}
        shutil.rmtree(folder)
        while (await stub.ModelReady(pb.ModelReadyRequest(name="plus"))).ready:
            pass
