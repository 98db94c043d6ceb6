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
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from artifact.files import sync_to_disk
from server.errors import StartError
from server.repository.store.artifact import Artifact, Unfit
from server.repository.store.fetching import Fetch, is_whole
from server.repository.store.locks import Lock, check_locks, try_lock, wait_for_lock

_log = logging.getLogger(__name__)
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_PART, _LOCK = ".part", ".lock"
_OTHERS_MAY = 0o022  # write
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
            max_bytes: Most bytes of all artifacts in it, for which those are removed that were not used for longest;
                0 removes nothing.
            stopping: Set where the server stops.

        Raises:
            StartError: It cannot be made, or is one that others may write to.
        """
        check_locks()
        self.folder, self._max_bytes, self._stopping = folder or default_folder(), max_bytes, stopping
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
        part = _part(place)
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
                    self._make_room(fetch.total_bytes, part, place)
                    fetch(part)
                    part.rename(place)
                    sync_to_disk(model)
        except OSError as error:
            raise StartError(f"{place}: cannot be written: {error.strerror or error}") from error
        raise StartError(f"{place}: was fetched {_MAX_ROUNDS} times, and was gone or damaged each time before its load")

    def _wait(self, place: Path, *, shared: bool = False) -> Lock:
        lock = _lock(place)
        if (held := try_lock(lock, shared=shared)) is not None:
            return held
        _log.info("%s: waiting for another process, which has it", place)
        return wait_for_lock(lock, self._stopping, shared=shared)

    def _make_room(self, coming_bytes: int, part: Path, place: Path) -> None:
        """Remove what was not used for longest, where the limit asks for it, and see whether the disk has room."""
        if most := self._max_bytes:
            if coming_bytes > most:
                raise Unfit(f"{place}: has {coming_bytes} bytes; expected at most {most} (--models-cache-bytes)")
            self._remove_until(most - coming_bytes, but=part)
        missing, free = coming_bytes - _size(part), shutil.disk_usage(self.folder).free
        if missing > free:
            raise StartError(f"{place}: {missing} bytes are to be fetched; {self.folder} has {free} free")

    def _remove_until(self, max_bytes: int, but: Path) -> None:
        others = [path for path in self.folder.glob("*/*/*-*") if path.is_dir() and path != but]
        sizes = {path: _size(path) for path in others}
        total = sum(sizes.values())
        for path in sorted(others, key=_last_used_ns):
            if total <= max_bytes:
                return
            whole = path.with_name(path.name.removesuffix(_PART).removeprefix(".")) if path.suffix == _PART else path
            if (lock := try_lock(_lock(whole))) is None:
                continue
            with lock:
                if path.is_dir():  # another process may have removed it before
                    shutil.rmtree(path)
            _log.info("%s is removed from the cache, which has room for %d bytes", path, self._max_bytes)
            total -= sizes[path]
        if total > max_bytes:
            raise StartError(f"{but}: no room beside what is being loaded, {total} bytes (--models-cache-bytes)")


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


def _part(place: Path) -> Path:
    return place.with_name(f".{place.name}{_PART}")


def _lock(place: Path) -> Path:
    return place.with_name(f".{place.name}{_LOCK}")


def _size(folder: Path) -> int:
    """Bytes of a folder's files; none of one that another process removes meanwhile."""
    with suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return 0


def _last_used_ns(folder: Path) -> int:
    """When a folder was last used, in nanoseconds of the epoch; 0 for one that is there no more."""
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime_ns
    return 0
