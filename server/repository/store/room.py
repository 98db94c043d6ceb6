"""The room in the cache: what lies there and what fetches under way will put there stay within a bound together.

A fetch is promised its room before it begins. How much is written into the file of the lock that it holds, where all
processes of the machine see it; the promise of one that was killed ends with its lock.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from server.repository.models_folder import NoRoom
from server.repository.store.artifact import Unfit
from server.repository.store.locks import try_lock, wait_for_lock

_log = logging.getLogger(__name__)
_PART, _LOCK, _ROOM_LOCK = ".part", ".lock", ".room.lock"
_OF_PLACE = re.compile(rf"\.?(?P<place>[1-9][0-9]*-[0-9a-f]+)({re.escape(_PART)}|{re.escape(_LOCK)})?")


def part_of(place: Path) -> Path:
    """Where an artifact is fetched to, before it is moved to its place as a whole."""
    return place.with_name(f".{place.name}{_PART}")


def lock_of(place: Path) -> Path:
    """The file that the lock of a place stands for."""
    return place.with_name(f".{place.name}{_LOCK}")


@dataclass(frozen=True)
class _Use:
    """What a place takes.

    Attributes:
        promised_bytes: To the fetch that is under way; 0 without one.
        there_bytes: Of what is there, whole or in part.
        last_used_ns: Nanoseconds of the epoch.
    """

    promised_bytes: int
    there_bytes: int
    last_used_ns: int

    @property
    def total_bytes(self) -> int:
        """Most bytes that it takes from now until its fetch ends."""
        return max(self.promised_bytes, self.there_bytes)


class Room:
    """The room of one cache, shared by all processes of the machine."""

    def __init__(self, folder: Path, max_bytes: int, stopping: Event) -> None:
        """Take nothing yet.

        Args:
            folder: The cache, whose artifacts lie at STORE/NAME/VERSION-CONTENT.
            max_bytes: Most bytes of all artifacts in it; 0 for what fits on the disk.
            stopping: Set where the server stops.
        """
        self._folder, self._max_bytes, self._stopping = folder, max_bytes, stopping

    @contextmanager
    def promised(self, place: Path, coming_bytes: int) -> Iterator[None]:
        """Keep room for an artifact while the block lasts; whoever asks holds the lock of its place alone.

        What was not used for longest is removed for it, unless it is being loaded or fetched.

        Args:
            place: Where it will be.
            coming_bytes: Of the artifact, with what is there already of it.

        Raises:
            Unfit: It is larger than the cache may be.
            NoRoom: There is none beside what is being loaded and fetched, or on the disk.
            ShuttingDown: The server stops meanwhile.
        """
        if 0 < self._max_bytes < coming_bytes:
            raise Unfit(f"{place}: has {coming_bytes} bytes; expected at most {self._max_bytes} (--models-cache-bytes)")
        lock = lock_of(place)
        with wait_for_lock(self._folder / _ROOM_LOCK, self._stopping):
            self._make(place, coming_bytes)
            lock.write_text(str(coming_bytes))
        try:
            yield
        finally:
            os.truncate(lock, 0)

    def _make(self, place: Path, coming_bytes: int) -> None:
        others = {other: _use(other) for other in self._places() - {place}}
        if self._max_bytes:
            self._remove_until(self._max_bytes - coming_bytes, others, place, coming_bytes)
        free = shutil.disk_usage(self._folder).free
        promised = sum(use.total_bytes - use.there_bytes for use in others.values())
        if (missing := coming_bytes - _size(part_of(place))) > free - promised:
            beside = f", {promised} of which are promised to other fetches" if promised else ""
            raise NoRoom(f"{place}: {missing} bytes are to be fetched; {self._folder} has {free} free{beside}")

    def _remove_until(self, max_bytes: int, others: dict[Path, _Use], place: Path, coming_bytes: int) -> None:
        total = sum(use.total_bytes for use in others.values())
        for other in sorted(others, key=lambda one: others[one].last_used_ns):
            if total <= max_bytes:
                return
            if (lock := try_lock(lock_of(other))) is None:
                continue
            with lock:
                for folder in (other, part_of(other)):
                    if folder.is_dir():
                        shutil.rmtree(folder)
            _log.info("%s is removed from the cache, which has room for %d bytes", other, self._max_bytes)
            total -= others.pop(other).total_bytes
        if total > max_bytes:
            raise NoRoom(
                f"{place}: has {coming_bytes} bytes, and what is being loaded and fetched {total}; "
                f"expected at most {self._max_bytes} together (--models-cache-bytes)"
            )

    def _places(self) -> set[Path]:
        found = ((path, _OF_PLACE.fullmatch(path.name)) for path in self._folder.glob("*/*/*-*"))
        return {path.with_name(match["place"]) for path, match in found if match}


def _use(place: Path) -> _Use:
    """Measure a place; its promise first, since what was fetched meanwhile is counted where it is then."""
    promised = _promised(place)
    return _Use(promised, _size(part_of(place)) + _size(place), _last_used_ns(place) or _last_used_ns(part_of(place)))


def _promised(place: Path) -> int:
    lock = lock_of(place)
    if not (written := lock.read_text() if lock.exists() else ""):
        return 0
    if (left := try_lock(lock, shared=True)) is not None:
        with left:  # of a fetch that was killed
            return 0
    return int(written)


def _size(folder: Path) -> int:
    """Bytes of a folder's files; none of one that another process moves meanwhile."""
    with suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return 0


def _last_used_ns(folder: Path) -> int:
    """When a folder was last used, in nanoseconds of the epoch; 0 for one that is there no more."""
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime_ns
    return 0
