"""Temporary folders that outlive no process for long: what a killed one left is removed by the next.

Each folder holds a file that its process keeps locked (flock); the system lets go of it however the process ends.
"""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PREFIX, _LOCK, _UNLOCKED = "regard-packed-", "lock", "unlocked"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that is removed on leaving, after those that killed processes have left."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        descriptor = _lock(Path(name))
        try:
            yield Path(name)
        finally:
            os.close(descriptor)


def _lock(folder: Path) -> int:
    """Put a locked file into a folder; it has its name only once it is locked, so that nobody finds it unlocked."""
    descriptor = os.open(folder / _UNLOCKED, os.O_CREAT | os.O_RDWR, 0o600)
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (folder / _UNLOCKED).rename(folder / _LOCK)
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    """Remove folders of ours whose process has gone; others, and what cannot be looked at, stay."""
    if sys.platform != "win32":
        for folder in parent.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                found = folder.lstat()
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and _is_abandoned(folder):
                    shutil.rmtree(folder)


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody holds the lock; raises OSError where somebody does, or where there is none."""
    if sys.platform == "win32":
        return False
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
    return True
