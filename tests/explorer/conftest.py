"""The explorer on a free port, before a real server of two small models or before a fake one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from regard.generate_calls import AsyncTokenStream
from tests.client.fake import FakeServer, serving
from tests.explorer.running import Explorer, exploring
from tests.explorer.writing import HeldTokens
from tests.processes import ROOT, environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MODELS = (ROOT / "server" / "embedded" / "fashion", ROOT / "tests" / "golden" / "models" / "tiny-text")
WRITERS = (ROOT / "server" / "embedded" / "g2p", ROOT / "tests" / "golden" / "models" / "tiny-text")


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a regard server that serves an image model and a text model."""
    with serving_models(tmp_path_factory.mktemp("models"), *MODELS) as address:
        yield address


@contextmanager
def serving_models(folder: Path, *models: Path) -> Iterator[str]:
    """A regard server that serves these; its address."""
    for model in models:
        (folder / model.name).symlink_to(model)
    command = [sys.executable, "-m", "server", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--models", str(folder)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield address_of(process)
        finally:
            process.kill()


def address_of(process: "subprocess.Popen[str]") -> str:
    """Read what a server prints until it is ready."""
    assert process.stdout is not None
    address = ""
    for line in process.stdout:
        if line.startswith("gRPC on "):
            address = line.split()[2].rstrip(",")
        if line.startswith("ready"):
            return address
    raise AssertionError("the server ended before it was ready")


@pytest.fixture(scope="session")
def explorer(real_server: str) -> Iterator[Explorer]:
    """An explorer of the real server."""
    with exploring(real_server) as running:
        yield running


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a regard server with a model that writes, letters to phonemes, and with one that does not."""
    with serving_models(tmp_path_factory.mktemp("models"), *WRITERS) as address:
        yield address


@pytest.fixture(scope="session")
def before_writer(writer: str) -> Iterator[Explorer]:
    """An explorer of that server."""
    with exploring(writer) as running:
        yield running


@pytest.fixture
def held_tokens(monkeypatch: pytest.MonkeyPatch) -> HeldTokens:
    """Every token waits in the explorer until it is let, and so does the end of each text."""
    held, receive = HeldTokens(), AsyncTokenStream.__anext__

    async def wait_and_receive(tokens: AsyncTokenStream) -> Any:
        await held.wait()
        return await receive(tokens)

    monkeypatch.setattr(AsyncTokenStream, "__anext__", wait_and_receive)
    return held


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A server with canned answers, for what goes wrong."""
    with serving() as server:
        yield server


@pytest.fixture
def before_fake(fake: FakeServer) -> Iterator[Explorer]:
    """An explorer of the fake server."""
    with exploring(fake.address) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium, for the tests of one module: Playwright's event loop must not run beside those of others."""
    from playwright.sync_api import sync_playwright

    from tests.explorer.browsing import ARGUMENTS, find_chromium

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield started
        started.close()
