"""A server whose generator writes what a test wants, for both protocols."""

from collections.abc import AsyncIterator

import pytest

from tests.server.api.generator import FakeGenerator, stand_in
from tests.server.conftest import Running, Serve


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    """Stands in for the server's."""
    return stand_in(monkeypatch)


@pytest.fixture
async def writing(generator: FakeGenerator, start: Serve) -> AsyncIterator[Running]:
    """A server with that generator."""
    async with start() as running:
        yield running
