"""Locks between the processes of one machine, which the system lets go of when a process ends, however it does."""

import os
import sys
from pathlib import Path
from threading import Event

from server.errors import ShuttingDown, StartError

if sys.platform != "win32":
    import fcntl

_LOOK_SECONDS = 0.1


def check_locks() -> None:
    """Refuse where the system has no such locks.

    Raises:
        StartError: It is Windows.
    """
    if sys.platform == "win32":
        raise StartError("--models: models of a store need the locks of POSIX; expected a folder on Windows")


class Lock:
    """A lock that was taken; ends with the block, or with the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def try_lock(path: Path, *, shared: bool = False) -> Lock | None:
    """Take the lock that a file stands for; None where another has it.

    Args:
        path: The file, which is made and stays.
        shared: Whether others may have it, too, who want it shared.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return Lock(descriptor)


def wait_for_lock(path: Path, stopping: Event, *, shared: bool = False) -> Lock:
    """Take a lock, however long another has it.

    Raises:
        ShuttingDown: The server stops meanwhile.
    """
    while (lock := try_lock(path, shared=shared)) is None:
        if stopping.wait(_LOOK_SECONDS):
            raise ShuttingDown("the server is stopping")
    return lock
