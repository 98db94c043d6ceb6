"""The fake server, a client of it and a command line that asks it, one set a test."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from regard import AsyncClient, Client, cli
from tests.client.fake import FakeServer, photo_bytes, serving


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


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
async def aio_client(server: FakeServer) -> AsyncIterator[AsyncClient]:
    """An asyncio client of the fake server."""
    async with AsyncClient(server.address) as client:
        yield client


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo's file."""
    path = tmp_path / "holiday.png"
    path.write_bytes(photo_bytes())
    return path


@pytest.fixture
def run(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `regard` with arguments in an empty folder against the fake server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGARD_SERVER", server.address)
    monkeypatch.setenv("COLUMNS", "200")  # whatever the terminal of the tests has

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["regard", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return run
