"""A real server on free ports, with the embedded image model and the golden text model."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from regard.v1.regard_pb2_grpc import RegardServiceStub
from server import app
from server.app import Started, serve
from server.config import EMBEDDED_MODELS, Config
from server.engine import engine
from server.transport.transport import Transport
from tests.golden import GOLDEN_MODELS

Serve = Callable[..., AbstractAsyncContextManager["Running"]]


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    started: Started
    channel: grpc.aio.Channel
    stub: RegardServiceStub
    stop: asyncio.Event
    task: "asyncio.Task[None]"


@pytest.fixture(scope="session", autouse=True)
def brief() -> Iterator[None]:
    """Servers of tests measure what a batch costs, and wait for late calls when they stop, for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_MEASURING_SECONDS", 0.01)
        patch.setattr(app, "_LAST_MOMENT_SECONDS", 0.1)
        yield


def link_models(folder: Path) -> Path:
    """Put the embedded image model and the golden text model into a folder."""
    (folder / "fashion").symlink_to(EMBEDDED_MODELS / "fashion")
    (folder / "tiny-text").symlink_to(GOLDEN_MODELS / "tiny-text")
    return folder


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with both models."""
    return link_models(tmp_path_factory.mktemp("models"))


def make_config(**settings: Any) -> Config:  # one keyword for each flag
    """Settings for a test: free ports, two threads."""
    defaults: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "metrics": "127.0.0.1:0",
        "device": "cpu",
        "threads": 2,
        "trial_load": False,
    }
    return Config(**(defaults | settings))


@pytest.fixture
def transport() -> Callable[[], Transport] | None:
    """What carries calls: grpcio."""
    return None


@asynccontextmanager
async def starting(
    models_folder: Path, transport: Callable[[], Transport] | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Start a server with given settings; it is stopped when the block ends."""
    config = make_config(**({"models": models_folder} | settings))
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    carrying = transport() if transport else None
    task = asyncio.create_task(serve(config, stop, started.set_result, carrying))
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    async with grpc.aio.insecure_channel(started.result().address) as channel:
        yield Running(started.result(), channel, RegardServiceStub(channel), stop, task)
        stop.set()
        await task


@pytest.fixture
def start(models_folder: Path, transport: Callable[[], Transport] | None) -> Serve:
    """Start a server with given settings; it is stopped when the block ends."""
    return partial(starting, models_folder, transport)


@pytest.fixture
async def running(start: Serve) -> AsyncIterator[Running]:
    """A server with default settings."""
    async with start() as server:
        yield server
