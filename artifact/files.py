"""The files of artifacts: versions in a models folder, hashes, and what is written to the disk."""

import hashlib
import os
import stat
from pathlib import Path

from artifact.contract import Contract
from artifact.errors import ArtifactError

_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}


def versions(folder: Path) -> list[int]:
    """List the versions of a model, the newest first; names that are no integers from 1 do not count."""
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return []
    numbers = {int(name) for name in names if name.isdecimal() and name == str(int(name))}
    return sorted(numbers - {0}, reverse=True)


def check_hashes(folder: Path, contract: Contract) -> None:
    """Compare every file with the sha256 in the contract.

    Raises:
        ArtifactError: A file is absent or was changed.
    """
    for name, expected in contract.files.items():
        found = hash_file(folder / name)
        if found != expected:
            raise ArtifactError(f"{folder / name}: sha256 {found}; its contract says {expected}: changed or damaged")


def check_regular(path: Path) -> None:
    """Refuse what is no file: to open a named pipe waits for ever.

    Raises:
        ArtifactError: It is absent, or a folder, pipe, socket or device.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ArtifactError(f"{path}: is a {_KINDS.get(stat.S_IFMT(mode), 'special file')}; expected a regular file")


def hash_file(path: Path) -> str:
    """sha256 in hexadecimal.

    Raises:
        ArtifactError: The file cannot be read.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error


def sync_to_disk(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, outlast a loss of power.

    Raises:
        OSError: The disk does not take it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
