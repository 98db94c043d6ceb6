"""The explorer on a free port, before a real server of two small models or before a fake one."""

import http.client
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from regard.explorer.app import Settings
from regard.explorer.serve import listen, make_server, read_address
from tests.client.fake import FakeServer, serving
from tests.e2e.conftest import ROOT, environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MODELS = (ROOT / "server" / "embedded" / "fashion", ROOT / "tests" / "golden" / "models" / "tiny-text")
SANDAL = ROOT / "examples" / "clothing" / "sandal.png"
TEXT = "a good film"


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """Read it as JSON."""
        return json.loads(self.body)

    def attention(self) -> tuple[Any, list[NDArray[Any]]]:
        """Read it as the page does: the description, and each layer's numbers."""
        (length,) = struct.unpack_from("<I", self.body)
        head = json.loads(self.body[4 : 4 + length])
        return head, [
            np.frombuffer(
                self.body, np.dtype(layer["dtype"]), int(np.prod(layer["shape"])), 4 + length + layer["offset"]
            ).reshape(layer["shape"])
            for layer in head["layers"]
        ]


@dataclass(frozen=True)
class Explorer:
    """An explorer that runs."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://{self.host}:{self.port}/"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; a body that is not bytes travels as JSON."""
        if body is not None and not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"content_type": "application/json", **headers}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def attend(self, **fields: Any) -> Answer:
        """Ask for attention."""
        return self.ask("POST", "/api/attend", fields)

    def keep(self, photo: bytes) -> str:
        """Hand over a photo."""
        answer = self.ask("POST", "/api/photos", photo)
        assert answer.status == 201, answer.body
        name: str = answer.json()["photo"]
        return name


@contextmanager
def exploring(server: str, **settings: Any) -> Iterator[Explorer]:
    """Run an explorer of a server in a thread of its own."""
    with listen(read_address("127.0.0.1:0", allow_remote=False)) as opened:
        runner = make_server(Settings(server=server, **settings))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            yield Explorer(*opened.getsockname())
        finally:
            runner.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a regard server that serves an image model and a text model."""
    folder = tmp_path_factory.mktemp("models")
    for model in MODELS:
        (folder / model.name).symlink_to(model)
    command = [sys.executable, "-m", "server", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--models", str(folder)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _address(process)
        finally:
            process.kill()


def _address(process: "subprocess.Popen[str]") -> str:
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


def sandal() -> bytes:
    """The photo of a sandal."""
    return Path(SANDAL).read_bytes()


def ends_of_calls(fake: FakeServer) -> threading.Event:
    """Return an event that is set when a call has ended, for whatever reason."""
    ended, receive = threading.Event(), fake._receive

    def watched(request: Any, context: grpc.ServicerContext) -> None:
        context.add_callback(ended.set)
        receive(request, context)

    setattr(fake, "_receive", watched)  # noqa: B010 -- mypy forbids the assignment
    return ended
