"""A server that also listens for HTTP, with every kind of model that its protocols ask."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from server.config import EMBEDDED_MODELS
from server.transport.transport import Transport
from tests.golden import BARE_ONNX_MODELS, GOLDEN_MODELS, GOLDEN_PAIRS
from tests.server.conftest import Running, starting

pytest.importorskip("uvicorn", reason="HTTP needs the extra http")


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of every type, text, images, pairs, and what writes."""
    folder = tmp_path_factory.mktemp("models")
    for source in (BARE_ONNX_MODELS, GOLDEN_MODELS, GOLDEN_PAIRS, EMBEDDED_MODELS):
        for one in source.iterdir():
            (folder / one.name).symlink_to(one)
    return folder


@pytest.fixture(scope="module")
def transport() -> Callable[[], Transport] | None:
    """What carries gRPC beside it: grpcio."""
    return None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(models_folder: Path) -> AsyncIterator[Running]:
    """A server with default settings, and HTTP, for all tests of a module."""
    async with starting(models_folder, http="127.0.0.1:0") as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(running: Running) -> AsyncIterator[httpx2.AsyncClient]:
    """What asks it."""
    async with httpx2.AsyncClient(base_url=f"http://{running.started.http_address}", timeout=60) as client:
        yield client
