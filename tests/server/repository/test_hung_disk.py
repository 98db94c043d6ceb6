"""A models folder on a disk that hangs holds those who ask about it, and nobody else."""

import asyncio
import threading
from pathlib import Path

import grpc
import pytest

from regard.v1 import regard_pb2 as api
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.repository import models_folder
from tests.server.conftest import Serve


class HungDisk:
    """Lists no version until it is let go."""

    def __init__(self) -> None:
        self.asked, self.gate = threading.Event(), threading.Event()

    def versions(self, folder: Path) -> list[int]:
        """Wait, then know of none."""
        del folder
        self.asked.set()
        assert self.gate.wait(30)
        return []


async def test_a_disk_that_hangs_does_not_hold_the_loop(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists, loads and unknown models wait; what is loaded answers."""
    disk = HungDisk()
    async with start() as running:
        infer = GRPCInferenceServiceStub(running.channel)
        monkeypatch.setattr(models_folder, "versions", disk.versions)
        stuck = [
            asyncio.ensure_future(call)
            for call in (
                running.stub.ListModels(api.ListModelsRequest()),
                infer.RepositoryIndex(pb.RepositoryIndexRequest()),
                running.stub.LoadModel(api.LoadModelRequest(model="tiny-text")),
            )
        ]
        assert await asyncio.to_thread(disk.asked.wait, 30)
        answer = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat"))
        assert answer.model == "tiny-text"
        assert not any(call.done() for call in stuck)
        disk.gate.set()
        *_, load = await asyncio.gather(*stuck, return_exceptions=True)
        assert isinstance(load, grpc.aio.AioRpcError)
        assert load.code() == grpc.StatusCode.NOT_FOUND
