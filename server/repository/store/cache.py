"""The folder on this machine where artifacts of stores are kept: NAME/VERSION-CONTENT, each put there as a whole.

A content never changes where it lies, so whoever loads it is not disturbed by whoever fetches another. While one is
being loaded its lock is held shared; who fetches or removes it holds the lock alone.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Event

from artifact.files import sync_to_disk
from server.errors import ShuttingDown, StartError
from server.repository.store.artifact import Artifact
from server.repository.store.fetching import Fetch, is_whole
from server.repository.store.locks import Lock, check_locks, try_lock, wait_for_lock
from server.repository.store.room import Room, lock_of, part_of

_log = logging.getLogger(__name__)
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_OTHERS_MAY = 0o022  # write
_MAX_TRANSFERS = 4  # artifacts that are fetched at a time, of which each has up to 32 MiB under way
_LOOK_SECONDS = 0.1
_MAX_ROUNDS = 5  # of fetching, or of having others fetch, what is gone again before it can be held


@dataclass(frozen=True)
class Held:
    """An artifact in the cache, which no process removes until the block ends."""

    folder: Path
    lock: ExitStack

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(self, *_: object) -> None:
        self.lock.close()


class Cache:
    """The folder, shared by all processes of the machine."""

    def __init__(self, folder: Path | None, max_bytes: int, stopping: Event) -> None:
        """Make the folder.

        Args:
            folder: Where; None for one of the user's own.
            max_bytes: Most bytes of all artifacts in it, those on their way included, for which those are removed that
                were not used for longest; 0 removes nothing.
            stopping: Set where the server stops.

        Raises:
            StartError: It cannot be made, or is one that others may write to.
        """
        check_locks()
        self.folder, self._stopping = folder or default_folder(), stopping
        self._transfers = BoundedSemaphore(_MAX_TRANSFERS)
        self._room = Room(self.folder, max_bytes, stopping)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder is None:
                _check_own(self.folder)
        except OSError as error:
            raise StartError(f"--models-cache: {self.folder}: cannot be made: {error.strerror}") from error

    def of_store(self, store: str, url: str) -> Path:
        """Name the folder where the models of one store are kept."""
        return self.folder / f"{_ODD.sub('-', store)[:80]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"

    def fetch(self, model: Path, number: int, artifact: Artifact, fetch: Fetch) -> Held:
        """Return an artifact that lies there, or fetch it; one process does, while others wait.

        Args:
            model: The folder of the model in the cache.
            number: The version.
            artifact: What it is made of.
            fetch: Fetches it into a folder.

        Raises:
            StartError: It cannot be fetched, or there is no room for it.
            Unfit: It does not match its hashes, or is larger than the cache may be.
            ShuttingDown: The server stops meanwhile.
        """
        place = model / f"{number}-{artifact.key}"
        part = part_of(place)
        try:
            model.mkdir(mode=0o700, parents=True, exist_ok=True)
            for _ in range(_MAX_ROUNDS):
                with ExitStack() as held:
                    held.enter_context(self._wait(place, shared=True))
                    if is_whole(place, artifact):
                        os.utime(place)
                        return Held(place, held.pop_all())
                with self._wait(place):
                    if is_whole(place, artifact):
                        continue  # another has fetched it
                    if place.exists():
                        _log.warning("%s: changed or damaged; what is wrong of it is fetched again", place)
                        shutil.rmtree(part, ignore_errors=True)
                        place.rename(part)
                    with self._transfer(), self._room.promised(place, fetch.total_bytes):
                        fetch(part)
                        part.rename(place)
                    sync_to_disk(model)
        except OSError as error:
            raise StartError(f"{place}: cannot be written: {error.strerror or error}") from error
        raise StartError(f"{place}: was fetched {_MAX_ROUNDS} times, and was gone or damaged each time before its load")

    @contextmanager
    def _transfer(self) -> Iterator[None]:
        """Wait until few enough are fetched; what is in the cache does not wait for those that are."""
        while not self._transfers.acquire(timeout=_LOOK_SECONDS):
            if self._stopping.is_set():
                raise ShuttingDown("the server is stopping")
        try:
            yield
        finally:
            self._transfers.release()

    def _wait(self, place: Path, *, shared: bool = False) -> Lock:
        lock = lock_of(place)
        if (held := try_lock(lock, shared=shared)) is not None:
            return held
        _log.info("%s: waiting for another process, which has it", place)
        return wait_for_lock(lock, self._stopping, shared=shared)


def default_folder() -> Path:
    """Return a folder of the user's own: among the user's caches, or, without any, in the temporary folder."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 -- a user without a home has none
    nearest = next((folder for folder in (caches, *caches.parents) if os.access(folder, os.F_OK)), caches)
    if caches.is_absolute() and os.access(nearest, os.W_OK):
        return caches / "regard" / "models"
    return Path(tempfile.gettempdir()) / f"regard-models-{os.getuid()}"


def _check_own(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & _OTHERS_MAY:
        raise StartError(f"--models-cache: {folder}: others may write to it; expected a folder of this user alone")
