"""Servers that are attacked, and the table of what was measured."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.config import EMBEDDED_MODELS
from tests.golden import GOLDEN_MODELS
from tests.hostile.measure import (
    ATTACKED,
    HEADER,
    IS_FULL,
    LIMIT_BYTES,
    RECORDED,
    Hostile,
    Withstand,
    attacked,
    withstanding,
)
from tests.processes import ROOT
from tests.server.conftest import brief

__all__ = ["brief"]

_TABLE = ROOT / "build" / "hostile.md"
_EXPORTED = ROOT / "models"


def folder_of(folder: Path, *exported: str) -> Path:
    """Make a models folder with the embedded model, the golden one, and exported ones where they are there."""
    folder.mkdir()
    sources = [EMBEDDED_MODELS / "fashion", GOLDEN_MODELS / "tiny-text", *(_EXPORTED / name for name in exported)]
    for source in sources:
        if source.is_dir():
            (folder / source.name).symlink_to(source)
    return folder


class Servers:
    """The server that is attacked now."""

    def __init__(self, folder: Path, transport: str) -> None:
        self._transport = transport
        self._models = folder_of(folder / "models", *(["minilm"] if IS_FULL else []))
        self._clients = folder / "clients.toml"
        self._running = ExitStack()
        self._hostile: Hostile | None = None

    def take(self) -> Hostile:
        """Give the one that there is; a new one where an attack spoilt it, and in full always."""
        if IS_FULL or self._hostile is None or self._hostile.is_spoilt:
            self.close()
            self._hostile = self._running.enter_context(attacked(self._transport, self._models, self._clients))
        return self._hostile

    def close(self) -> None:
        """End it."""
        self._running.close()


@pytest.fixture(scope="package", params=ATTACKED)
def transport(request: pytest.FixtureRequest) -> str:
    """What carries calls."""
    name: str = request.param
    return name


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Servers]:
    """Servers with the embedded and the golden model, in full with minilm, too.

    Not for longer than these tests: an honest caller asks them all the time.
    """
    servers = Servers(tmp_path_factory.mktemp("hostile"), transport)
    yield servers
    servers.close()


@pytest.fixture
def hostile(servers: Servers) -> Hostile:
    """A server to attack."""
    return servers.take()


@pytest.fixture
def withstand(hostile: Hostile, record_property: Callable[[str, object], None]) -> Withstand:
    """Attack that server, and see that it holds."""
    return withstanding(hostile, record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and keep the table, where everything ran."""
    rows = [
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == RECORDED
    ]
    if not (rows and (IS_FULL or "REGARD_HOSTILE_TRANSPORT" in os.environ)):
        return
    limit = f"with a limit of {LIMIT_BYTES / 2**20:.0f} MiB" if LIMIT_BYTES else "without a limit of memory"
    _TABLE.parent.mkdir(exist_ok=True)
    _TABLE.write_text(f"Server {limit}.\n\n" + "\n".join([HEADER, *rows]) + "\n")
    terminalreporter.section("what the attacks did")
    terminalreporter.write_line(_TABLE.read_text())
