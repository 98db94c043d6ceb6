"""A server whose generator writes what a test wants, for both protocols."""

from collections.abc import AsyncIterator, Callable

import pytest

from server.transport.transport import Transport
from tests.server.api.generator import FakeGenerator, stand_in
from tests.server.asgi import HypercornTransport
from tests.server.conftest import Running, Serve


@pytest.fixture(params=["grpcio", "asgi"])
def transport(request: pytest.FixtureRequest) -> Callable[[], Transport] | None:
    """What carries calls: each of both."""
    return HypercornTransport if request.param == "asgi" else None


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    """Stands in for the server's."""
    return stand_in(monkeypatch)


@pytest.fixture
async def writing(generator: FakeGenerator, start: Serve) -> AsyncIterator[Running]:
    """A server with that generator."""
    async with start() as running:
        yield running
