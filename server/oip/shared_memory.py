"""Regions of POSIX shared memory that callers on the same machine have registered, for inputs and outputs.

A region is read and written through its file descriptor, never mapped: where its owner shortens it, a read is an error
of that request; touching a mapping would end the server (SIGBUS). Linux keeps these objects in /dev/shm.
"""

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.errors import InvalidInput, NotFound, NotPossible

_FOLDER = Path("/dev/shm")  # noqa: S108 -- shm_open's folder
_KEY = re.compile(r"/?[^/\0]{1,254}")
_MOST_REGIONS = 4096


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: a region's name, and bytes in it."""

    region: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class Region:
    """A registered region; offset and size in bytes within the object of that key."""

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int


class SharedMemory:
    """The regions by name. Workers read and write them; none is closed meanwhile, or its descriptor might be another's."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def regions(self, name: str = "") -> list[Region]:
        """List all regions, or one.

        Raises:
            NotFound: There is no such region.
        """
        if not name:
            return list(self._regions.values())
        if name not in self._regions:
            raise NotFound(f"name: {name[:100]!r} is not registered; expected a registered region")
        return [self._regions[name]]

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region.

        Raises:
            InvalidInput: The name is taken, the key is none, or the object is smaller.
            NotPossible: The system has no /dev/shm.
        """
        if not name:
            raise InvalidInput("name", "empty", "a name for the region")
        if name in self._regions:
            raise InvalidInput("name", repr(name), "a name that is not registered yet, or unregister it first")
        if len(self._regions) >= _MOST_REGIONS:
            raise InvalidInput("name", repr(name), f"at most {_MOST_REGIONS} regions at a time")
        if not byte_size:
            raise InvalidInput("byte_size", byte_size, "at least 1")
        if not _FOLDER.is_dir():
            raise NotPossible(f"key: this system has no {_FOLDER}; expected Linux")
        if not _KEY.fullmatch(key) or key.strip("/") in (".", ".."):
            raise InvalidInput("key", repr(key), "the name of a shared memory object, as shm_open takes it")
        self._regions[name] = Region(name, key, offset, byte_size, _open(key, offset + byte_size))

    def unregister(self, name: str = "") -> None:
        """Close one region, or with an empty name all; one that is not there is no error."""
        with self._lock:
            for region in list(self._regions.values()):
                if name in ("", region.name):
                    os.close(self._regions.pop(region.name).descriptor)

    def read(self, field: str, place: Place) -> bytes:
        """Copy a tensor's bytes out.

        Raises:
            InvalidInput: The region is not registered, too small, or was shortened.
        """
        with self._lock:
            region = self._within(field, place)
            content = os.pread(region.descriptor, place.byte_size, region.offset + place.offset)
        if len(content) < place.byte_size:
            raise InvalidInput(field, f"{len(content)} bytes left in {region.key}", f"{place.byte_size}")
        return content

    def write(self, field: str, place: Place, content: bytes) -> None:
        """Copy a tensor's bytes in.

        Raises:
            InvalidInput: The region is not registered, too small, or was shortened.
        """
        with self._lock:
            self._write(field, self._within(field, place), place, content)

    def _write(self, field: str, region: Region, place: Place, content: bytes) -> None:
        if len(content) > place.byte_size:
            raise InvalidInput(field, f"{len(content)} bytes", "a shared_memory_byte_size of at least that")
        start = region.offset + place.offset
        if os.fstat(region.descriptor).st_size < start + len(content):
            raise InvalidInput(field, f"{region.key} was shortened", f"{start + len(content)} bytes")
        os.pwrite(region.descriptor, content, start)

    def _within(self, field: str, place: Place) -> Region:
        if place.region not in self._regions:
            raise InvalidInput(f"{field}.shared_memory_region", repr(place.region), "a registered region")
        region = self._regions[place.region]
        if place.offset + place.byte_size > region.byte_size:
            end = f"bytes up to {place.offset + place.byte_size}"
            raise InvalidInput(field, end, f"at most {region.byte_size}, the size of {region.name}")
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


def _open(key: str, least_bytes: int) -> int:
    try:
        descriptor = os.open(_FOLDER / key.lstrip("/"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise InvalidInput("key", repr(key), f"an object that can be opened ({error.strerror})") from error
    size = os.fstat(descriptor).st_size
    if size < least_bytes:
        os.close(descriptor)
        raise InvalidInput(
            "byte_size", f"offset and byte_size end at {least_bytes}", f"at most {size}, the size of {key}"
        )
    return descriptor
