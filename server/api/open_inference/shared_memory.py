"""Regions of memory that callers on the same machine have registered, for inputs and outputs.

POSIX shared memory is read and written through its file descriptor, never mapped: where its owner shortens it, a read
is an error of that request; touching a mapping would end the server (SIGBUS). Linux keeps these objects in /dev/shm.
"""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from server.errors import InvalidInput, NotFound, NotPossible

_log = logging.getLogger(__name__)

_FOLDER = Path("/dev/shm")  # noqa: S108 -- shm_open's folder
_KEY = re.compile(r"/?[^/\0]{1,254}")
_MAX_REGIONS = 256
PLACE_PARAMETERS = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: a region's name, and bytes in it."""

    region: str
    offset: int
    byte_size: int


class Region(Protocol):
    """A registered region."""

    @property
    def byte_size(self) -> int:
        """How large it is."""
        ...

    def read(self, offset: int, byte_size: int) -> bytes:
        """Copy bytes out; fewer where they are no longer there."""
        ...

    def write(self, offset: int, content: bytes) -> bool:
        """Copy bytes in; False where there is no longer room."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True)
class SystemRegion:
    """A part of a POSIX shared memory object; offset and size in bytes."""

    key: str
    offset: int
    byte_size: int
    descriptor: int

    @classmethod
    def open(cls, key: str, offset: int, byte_size: int) -> "SystemRegion":
        """Open the object of a key.

        Raises:
            InvalidInput: The key is none, or the object is smaller.
            NotPossible: The system has no /dev/shm.
        """
        if not _FOLDER.is_dir():
            raise NotPossible(f"key: this system has no {_FOLDER}; expected Linux")
        if not _KEY.fullmatch(key) or key.strip("/") in (".", ".."):
            raise InvalidInput("key", repr(key), "the name of a shared memory object, as shm_open takes it")
        try:
            descriptor = os.open(_FOLDER / key.lstrip("/"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise InvalidInput("key", repr(key), f"an object that can be opened ({error.strerror})") from error
        size, end = os.fstat(descriptor).st_size, offset + byte_size
        if size < end:
            os.close(descriptor)
            raise InvalidInput("byte_size", f"offset and byte_size end at {end}", f"at most {size}, the size of {key}")
        return cls(key, offset, byte_size, descriptor)

    def read(self, offset: int, byte_size: int) -> bytes:
        """See Region."""
        return os.pread(self.descriptor, byte_size, self.offset + offset)

    def write(self, offset: int, content: bytes) -> bool:
        """See Region."""
        start = self.offset + offset
        if os.fstat(self.descriptor).st_size < start + len(content):
            return False
        return os.pwrite(self.descriptor, content, start) == len(content)

    def close(self) -> None:
        """See Region."""
        os.close(self.descriptor)


class SharedMemory:
    """The regions by name. Workers read and write them, and none is closed meanwhile."""

    def __init__(self, max_bytes: int) -> None:
        """Know no region yet; `max_bytes` bounds what the tensors of a request may take, as it does in a message."""
        self._max_bytes = max_bytes
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def regions(self, kind: type[Any], name: str = "") -> dict[str, Any]:
        """List the regions of a kind by name, or one.

        Raises:
            NotFound: There is no such region.
        """
        found = {key: region for key, region in self._regions.items() if isinstance(region, kind)}
        if name and name not in found:
            raise NotFound(f"name: {name[:100]!r} is not registered; expected a registered region")
        return {name: found[name]} if name else found

    def register(self, name: str, byte_size: int, open_region: Callable[[], Region]) -> None:
        """Open a region and give it a name.

        Raises:
            InvalidInput: The name is empty or taken, or see SystemRegion.open and CudaRegion.open.
        """
        if not name:
            raise InvalidInput("name", "empty", "a name for the region")
        if name in self._regions:
            raise InvalidInput("name", repr(name), "a name that is not registered yet, or unregister it first")
        if len(self._regions) >= _MAX_REGIONS:
            raise InvalidInput("name", repr(name), f"at most {_MAX_REGIONS} regions at a time")
        if not byte_size:
            raise InvalidInput("byte_size", byte_size, "at least 1")
        self._regions[name] = open_region()

    def unregister(self, kind: type[Any] = object, name: str = "") -> None:
        """Close one region of a kind, or with an empty name all; one that is not there is no error."""
        with self._lock:
            for key, region in list(self._regions.items()):
                if name in ("", key) and isinstance(region, kind):
                    del self._regions[key]
                    try:
                        region.close()
                    except (OSError, NotPossible) as error:  # its owner has gone: it is forgotten all the same
                        _log.warning("region %s: %s", key, error)

    def check_sum(self, field: str, places: Iterable[Place]) -> int:
        """Add up what a request's tensors take, before any is read.

        Raises:
            InvalidInput: It is more than a message may have.
        """
        total = sum(place.byte_size for place in places)
        if total > self._max_bytes:
            expected = f"at most {self._max_bytes} (the server's --max-message-bytes)"
            raise InvalidInput(field, f"{total} bytes of shared memory", expected)
        return total

    def read(self, field: str, place: Place) -> bytes:
        """Copy a tensor's bytes out.

        Raises:
            InvalidInput: The region is not registered, too small, or was shortened.
        """
        with self._lock:
            content = self._within(field, place).read(place.offset, place.byte_size)
        if len(content) < place.byte_size:
            raise InvalidInput(field, f"{len(content)} bytes left in {place.region}", f"{place.byte_size}")
        return content

    def write(self, field: str, place: Place, content: bytes) -> None:
        """Copy a tensor's bytes in.

        Raises:
            InvalidInput: The region is not registered, too small, or was shortened.
        """
        if len(content) > place.byte_size:
            raise InvalidInput(field, f"{len(content)} bytes", "a shared_memory_byte_size of at least that")
        with self._lock:
            try:
                written = self._within(field, place).write(place.offset, content)
            except OSError as error:
                raise InvalidInput(field, place.region, f"a region with room ({error.strerror})") from error
            if not written:
                raise InvalidInput(field, f"{place.region} was shortened", f"{place.offset + len(content)} bytes")

    def _within(self, field: str, place: Place) -> Region:
        if place.region not in self._regions:
            raise InvalidInput(f"{field}.shared_memory_region", repr(place.region), "a registered region")
        region = self._regions[place.region]
        if place.byte_size > self._max_bytes:
            expected = f"at most {self._max_bytes} (the server's --max-message-bytes)"
            raise InvalidInput(field, f"{place.byte_size} bytes", expected)
        if place.offset + place.byte_size > region.byte_size:
            end = f"bytes up to {place.offset + place.byte_size}"
            raise InvalidInput(field, end, f"at most {region.byte_size}, the size of {place.region}")
        return region


def read_place(field: str, parameters: Mapping[str, Any]) -> Place | None:
    """Read a tensor's parameters; None where it is not in shared memory.

    Raises:
        InvalidInput: The size is missing, or a value has another type or is negative.
    """
    if "shared_memory_region" not in parameters:
        return None
    region = parameters["shared_memory_region"].string_param
    sizes = {}
    for name in ("shared_memory_byte_size", "shared_memory_offset"):
        parameter = parameters.get(name)
        kind = parameter.WhichOneof("parameter_choice") if parameter is not None else None
        if kind not in ("int64_param", "uint64_param", None):
            raise InvalidInput(f"{field}.{name}", kind, "an int64_param")
        sizes[name] = getattr(parameter, kind) if kind else 0
        if sizes[name] < 0:
            raise InvalidInput(f"{field}.{name}", sizes[name], "not negative")
    if "shared_memory_byte_size" not in parameters:
        raise InvalidInput(f"{field}.shared_memory_byte_size", "missing", "the tensor's size in bytes")
    return Place(region, sizes["shared_memory_offset"], sizes["shared_memory_byte_size"])
