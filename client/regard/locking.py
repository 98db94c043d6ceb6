"""Locks a file that one run at a time writes, where the system locks files."""

from pathlib import Path
from typing import IO

from regard.sources import InputError

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: IO[bytes], path: Path) -> None:
    """Keep other runs from an open file until it is closed.

    Args:
        file: What is locked.
        path: What is written, as the error names it.

    Raises:
        InputError: Another run has locked it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{path}: another run is writing it") from error
