"""A store that tells what was read of it and can be held up, for tests and for processes that they start.

`python -m tests.server.repository.stores URL CACHE CHUNK_BYTES` fetches the newest version of tiny-text and prints
where it is then. SERVER is a server that knows it.
"""

import logging
import os
import sys
from pathlib import Path
from threading import Event
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from server import __main__
from server.repository.store import store as module
from server.repository.store.cache import Cache
from server.repository.store.remote_models import RemoteModels
from tests.faults.callers import wait_until

LOG, GATE, HANG = "WATCHED_LOG", "WATCHED_GATE", "WATCHED_HANG"
SERVER = (sys.executable, "-c", "from tests.server.repository.stores import serve; serve()")


class WatchedStore(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """A folder, as watched://FOLDER.

    With $WATCHED_LOG it writes what is read into that file, a line each: name, first byte. With $WATCHED_GATE, which is
    NAME:FIRST_BYTE:FILE, who reads that waits until the file is there. With $WATCHED_HANG, which is NAME:FILE, who
    reads that, or lists where it is "list", writes it into the file where that is there, and waits for ever.
    """

    protocol = "watched"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.removeprefix("watched://"))

    def find(self, path: str, **kwargs: Any) -> Any:
        _hang("list")
        return super().find(path, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        name = Path(path).name
        if log := os.environ.get(LOG):
            with Path(log).open("a") as lines:
                lines.write(f"{name} {start}\n")
        gated, first, gate = os.environ.get(GATE, "::").split(":")
        if gated == name and int(first) == start:
            wait_until(Path(gate).exists)
        _hang(name)
        return bytes(super().cat_file(path, start=start, end=end, **kwargs))


def _hang(name: str) -> None:
    hangs, _, told = os.environ.get(HANG, ":").partition(":")
    if hangs == name and Path(told).exists():
        Path(told).write_text(name)
        Event().wait()


def watch_stores() -> None:
    """Have fsspec know watched://."""
    fsspec.register_implementation("watched", WatchedStore, clobber=True)


def reads(log: Path) -> list[tuple[str, int]]:
    """What was read, in order: names and first bytes."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(name, int(first)) for name, first in map(str.split, lines)]


def open_store(url: str, cache: Path, max_bytes: int = 0, stopping: Event | None = None) -> RemoteModels:
    """The models of a store, listed."""
    stopping = stopping or Event()
    models = RemoteModels(url, Cache(cache, max_bytes, stopping), stopping)
    models.refresh()
    return models


def serve() -> None:
    """Be a server whose models may lie in watched://."""
    watch_stores()
    sys.exit(__main__.main())


def main(url: str, cache: str, chunk_bytes: str) -> None:
    """Fetch it, one chunk at a time."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    watch_stores()
    module._CHUNK_BYTES, module._MAX_CHUNKS = int(chunk_bytes), 1
    models = open_store(url, Path(cache))
    with models.version("tiny-text", models.versions("tiny-text")[0]) as place:
        print(f"it is in {place}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
