"""Fetches one artifact into a folder: goes on where a fetch before it was cut off, and takes nothing unverified."""

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import BinaryIO

from artifact.errors import ArtifactError
from artifact.files import hash_file, sync_to_disk
from server.errors import ShuttingDown, StartError
from server.repository.store.artifact import Artifact, check_hash, find
from server.repository.store.store import Store, StoredFile

_log = logging.getLogger(__name__)
_PAUSES_SECONDS = (1.0, 4.0)  # before what failed, or came damaged, is asked for again
_READ_BYTES = 2**20


class Fetch:
    """Fetches one artifact."""

    def __init__(self, store: Store, stored: Mapping[str, StoredFile], artifact: Artifact, stopping: Event) -> None:
        """Say which.

        Args:
            store: Where it lies.
            stored: Its files, by their path within it.
            artifact: What it is made of.
            stopping: Set where the server stops.

        Raises:
            StartError: A file that its contract lists is not in the store.
        """
        self._store, self._artifact, self._stopping = store, artifact, stopping
        self._files = {path: find(store, stored, path) for path in artifact.files}

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of the artifact.

        Raises:
            StartError: The store does not tell.
        """
        contracts = sum(map(len, self._artifact.contracts.values()))
        return contracts + sum(map(self._store.size, self._files.values()))

    def __call__(self, part: Path) -> None:
        """Fetch it into a folder, which may have something of it already.

        Raises:
            StartError: A file cannot be read, or does not match its hash.
            ShuttingDown: The server stops meanwhile.
        """
        began = time.monotonic()
        _log.info("%s: fetching %d bytes from %s", part, self.total_bytes, self._store)
        self._drop_longer(part)
        for path, file in self._files.items():
            self._fetch_file(file, part / path, self._artifact.files[path])
        for path, content in self._artifact.contracts.items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            with (part / path).open("wb") as target:
                target.write(content)
                _flush(target)
        for folder in {(part / path).parent for path in (*self._files, *self._artifact.contracts)}:
            sync_to_disk(folder)
        _log.info("%s: fetched and verified within %.1f s", part, time.monotonic() - began)

    def _drop_longer(self, part: Path) -> None:
        """Remove what is of another content: no room is kept for more than the store now has."""
        for path, file in self._files.items():
            if (part / path).exists() and (part / path).stat().st_size > self._store.size(file):
                (part / path).unlink()

    def _fetch_file(self, file: StoredFile, target: Path, expected: str) -> None:
        """Fetch a file, again where it is not what it must be, until the same has come twice: then that lies there."""
        target.parent.mkdir(parents=True, exist_ok=True)
        pauses = [*([0.0] if target.exists() else []), *_PAUSES_SECONDS]  # what was kept may be of another content
        before, name = "", self._store.name(file)
        while (found := self._complete(file, target)) != expected:
            target.unlink()  # which takes nothing from a server that has it mapped, as shortening it would
            if found == before or not pauses:
                break
            before = found
            _log.warning("%s: came with sha256 %s; its contract says %s; fetching it again", name, found, expected)
            self._pause(pauses.pop(0))
        check_hash(name, found, expected)

    def _complete(self, file: StoredFile, target: Path) -> str:
        """Append what is missing; returns the sha256 of all, in hexadecimal."""
        with target.open("a+b") as there:
            there.seek(0)
            found = self._append(file, there)
            _flush(there)
        return found

    def _append(self, file: StoredFile, target: BinaryIO) -> str:
        digest, have = hashlib.sha256(), 0
        while chunk := target.read(_READ_BYTES):
            digest.update(chunk)
            have += len(chunk)
        failures = 0
        while have < self._store.size(file):
            try:
                for chunk in self._store.chunks(file, have):
                    self._check_stopping()
                    target.write(chunk)
                    digest.update(chunk)
                    have, failures = have + len(chunk), 0
            except StartError as error:
                if failures == len(_PAUSES_SECONDS):
                    raise
                _log.warning("%s; asking again", error)
                self._pause(_PAUSES_SECONDS[failures])
                failures += 1
        return digest.hexdigest()

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)
        self._check_stopping()

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise ShuttingDown("the server is stopping")


def is_whole(folder: Path, artifact: Artifact) -> bool:
    """Whether a folder has all of an artifact, as its contracts say."""
    try:
        return all((folder / path).read_bytes() == content for path, content in artifact.contracts.items()) and all(
            hash_file(folder / path) == expected for path, expected in artifact.files.items()
        )
    except (OSError, ArtifactError):
        return False


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
