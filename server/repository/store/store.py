"""What lies at an address of a store: s3://, gs://, az://, file://, or whatever else fsspec knows."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from server.errors import StartError, first_line

_CHUNK_BYTES, _MAX_CHUNKS = 8 * 2**20, 4  # of a request, and how many are on their way together
_SECRETS = re.compile(r"(?<=://)[^/@:]*:[^/@]*(?=@)")
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "hf": "huggingface-hub",
}
# What stores say of a file that changes with its content.
_STAMPS = ("ETag", "etag", "md5Hash", "generation", "blob_id", "LastModified", "last_modified", "mtime", "created")


@dataclass(frozen=True)
class StoredFile:
    """A file in a store.

    Attributes:
        path: As fsspec names it.
        size: In bytes; None where the store does not tell.
        stamp: Changes with the content, as far as the store tells.
    """

    path: str
    size: int | None
    stamp: str


class Store:
    """One address; whoever asks waits for the network, so ask in a thread."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def __str__(self) -> str:
        return _SECRETS.sub("***", self._url)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the folders on the way to the address, its bucket first."""
        return tuple(part for part in self._url.partition("://")[2].split("/") if part)

    def list(self) -> dict[str, StoredFile]:
        """List the files below the address, by their path from there.

        Raises:
            StartError: It cannot be listed; says why.
        """
        with self._explaining("cannot be listed"):
            files, root = self._opened
            files.invalidate_cache()
            if not (found := files.find(root, detail=True)):
                files.ls(root)  # which says why, where it is not there or may not be read
            prefix = f"{root.rstrip('/')}/"
            listed = {path[len(prefix) :]: info for path, info in found.items() if path.startswith(prefix)}
        return {name: _read_info(prefix + name, info) for name, info in listed.items()}

    def read(self, file: StoredFile, max_bytes: int) -> bytes:
        """Read a small file.

        Raises:
            StartError: It cannot be read, or is larger than that.
        """
        if (size := self.size(file)) > max_bytes:
            raise StartError(f"{self.name(file)}: has {size} bytes; expected at most {max_bytes}")
        return b"".join(self.chunks(file, 0))

    def chunks(self, file: StoredFile, start: int) -> Iterator[bytes]:
        """Yield what a file has from there on.

        Raises:
            StartError: It cannot be read; says why.
        """
        size = self.size(file)
        for first in range(start, size, _CHUNK_BYTES * _MAX_CHUNKS):
            begins = range(first, min(first + _CHUNK_BYTES * _MAX_CHUNKS, size), _CHUNK_BYTES)
            ends = [min(begin + _CHUNK_BYTES, size) for begin in begins]
            with self._explaining("cannot be read", file):
                files, _ = self._opened
                found = files.cat_ranges([file.path] * len(ends), list(begins), ends, on_error="raise")
                for begin, end, chunk in zip(begins, ends, found, strict=True):
                    if len(chunk) != end - begin:
                        raise OSError(f"gave {len(chunk)} bytes where {end - begin} were asked for, from {begin} on")
            yield from found

    def name(self, file: StoredFile) -> str:
        """Name a file as messages do."""
        path = file.path.partition("://")[2] or file.path
        return _SECRETS.sub("***", f"{self._url.partition('://')[0]}://{path}")

    def size(self, file: StoredFile) -> int:
        """Size of a file in bytes.

        Raises:
            StartError: The store cannot be asked, or does not tell.
        """
        if file.size is not None:
            return file.size
        with self._explaining("cannot be read", file):
            size = self._opened[0].info(file.path)["size"]
        if size is None:
            raise StartError(f"{self.name(file)}: the store does not tell its size; expected one that does")
        return int(size)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        protocol = self._url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs  # of the extra regard[store]
        except ImportError as error:
            raise StartError(f"--models: {self}: needs the package fsspec: pip install 'regard[store]'") from error
        try:
            files, root = url_to_fs(self._url)
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            how = f"needs the package {package}: pip install {package}" if package else first_line(error)
            raise StartError(f"--models: {self}: {how}") from error
        except ValueError as error:
            expected = ", ".join(f"{known}://" for known in (*_PACKAGES, "file", "memory"))
            raise StartError(f"--models: {self}: {first_line(error)}; expected {expected}") from error
        return files, str(root)

    @contextmanager
    def _explaining(self, what: str, file: StoredFile | None = None) -> Iterator[None]:
        """Say what went wrong in words; the exceptions of the stores' libraries have no common base."""
        try:
            yield
        except StartError:
            raise
        except Exception as error:
            place = self.name(file) if file else f"--models: {self}"
            raise StartError(f"{place}: {what}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    kind, said = type(error).__name__, _SECRETS.sub("***", first_line(error))
    if isinstance(error, FileNotFoundError):
        return f"not there ({said})"
    if isinstance(error, PermissionError) or "Credential" in kind:
        return (
            f"{kind}: {said}; expected credentials that may list and read it, where the store's package looks for them"
        )
    return f"{kind}: {said}"


def _read_info(path: str, info: Mapping[str, Any]) -> StoredFile:
    stamp = ";".join(str(info[key]) for key in _STAMPS if info.get(key) is not None)
    return StoredFile(path, info.get("size"), f"{info.get('size')};{stamp}")
