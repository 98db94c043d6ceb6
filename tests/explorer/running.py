"""An explorer that runs in this process, and what is sent to it."""

import http.client
import io
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regard.explorer.app import Settings
from regard.explorer.serve import listen, make_server, read_address
from tests.client.fake import FakeServer

SANDAL = Path(__file__).parents[2] / "examples" / "clothing" / "sandal.png"
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

    def pixels(self, name: str) -> NDArray[np.uint8]:
        """The pixels of a photo that it keeps, [height, width, 3]."""
        with Image.open(io.BytesIO(self.ask("GET", f"/api/photos/{name}").body)) as photo:
            return np.asarray(photo.convert("RGB"))


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


def sandal() -> bytes:
    """The photo of a sandal."""
    return SANDAL.read_bytes()


def striped() -> bytes:
    """A photo whose left half is red and whose right half is blue."""
    picture, file = Image.new("RGB", (280, 280), (200, 30, 30)), io.BytesIO()
    picture.paste((30, 30, 200), (140, 0, 280, 280))
    picture.save(file, "PNG")
    return file.getvalue()


def end_of_next_call(fake: FakeServer) -> threading.Event:
    """Return an event that is set when the next call has ended, for whatever reason."""
    ended, note, seen = threading.Event(), fake._note, list[Any]()

    def watched(request: Any, context: grpc.ServicerContext) -> None:
        if not seen:
            seen.append(request)
            context.add_callback(ended.set)
        note(request, context)

    setattr(fake, "_note", watched)  # noqa: B010 -- mypy forbids the assignment
    return ended
