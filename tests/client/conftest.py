"""The fake server and a client of it, one pair a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from regard import Client
from tests.client.fake import FakeServer, photo_bytes, serving


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server on a free port."""
    with serving() as fake:
        yield fake


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    """A blocking client of the fake server."""
    with Client(server.address) as client:
        yield client


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo's file."""
    path = tmp_path / "holiday.png"
    path.write_bytes(photo_bytes())
    return path
