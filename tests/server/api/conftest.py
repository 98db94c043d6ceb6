"""A server for the tests of a module, and one whose generator writes what a test wants, for both protocols."""

from collections.abc import AsyncIterator, Callable
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
import pytest_asyncio

from server.transport.transport import Transport
from tests.server.api.generator import FakeGenerator, stand_in
from tests.server.asgi import HypercornTransport
from tests.server.conftest import Running, Serve, starting


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whoever asks a module's server does so in the loop that it runs in."""
    if isinstance(item, pytest.Function) and "running" in item.fixturenames and iscoroutinefunction(item.function):
        item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest.fixture(scope="module", params=["grpcio", "asgi"])
def transport(request: pytest.FixtureRequest) -> Callable[[], Transport] | None:
    """What carries calls: each of both."""
    return HypercornTransport if request.param == "asgi" else None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(models_folder: Path, transport: Callable[[], Transport] | None) -> AsyncIterator[Running]:
    """A server with default settings, for all tests of a module: such a test leaves it as it was, in one event loop."""
    async with starting(models_folder, transport) as server:
        yield server


@pytest.fixture
async def alone(start: Serve) -> AsyncIterator[Running]:
    """A server for one test: which counts what is asked, or changes how it is done."""
    async with start() as server:
        yield server


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    """Stands in for the server's."""
    return stand_in(monkeypatch)


@pytest.fixture
async def writing(generator: FakeGenerator, start: Serve) -> AsyncIterator[Running]:
    """A server with that generator."""
    async with start() as running:
        yield running
