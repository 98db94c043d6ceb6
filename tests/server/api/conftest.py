"""A server for the tests of a module, and one whose generator writes what a test wants, for both protocols."""

from collections.abc import AsyncIterator, Callable, Iterator
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
    if not isinstance(item, pytest.Function) or not iscoroutinefunction(item.function):
        return
    if {"running", "writing_server"} & {*item.fixturenames}:
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


@pytest.fixture(scope="module")
def standing_in() -> Iterator[FakeGenerator]:
    """Stands in for the generator of every server that a module's tests start."""
    with pytest.MonkeyPatch.context() as patch:
        yield stand_in(patch)


@pytest.fixture
def generator(standing_in: FakeGenerator) -> FakeGenerator:
    """It, as if it had never been asked."""
    standing_in.reset()
    return standing_in


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def writing_server(
    standing_in: FakeGenerator, models_folder: Path, transport: Callable[[], Transport] | None
) -> AsyncIterator[Running]:
    """A server with that generator, for all tests of a module."""
    del standing_in  # which stands in already
    async with starting(models_folder, transport) as server:
        yield server


@pytest.fixture
def writing(generator: FakeGenerator, writing_server: Running) -> Running:
    """It, for one test."""
    del generator  # which has forgotten the others
    return writing_server
