"""How much memory this process may take and takes, and how it returns what it does not need."""

import asyncio
import ctypes
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from server.control_groups import limit_files, read

_UNKNOWN_BYTES = 4 * 2**30  # where the system does not say
_LOOK_SECONDS = 1.0
_LOOKS = 3  # in a row that find it free: what the next run takes again is not worth giving back
_SPARE_BYTES = 32 * 2**20
# Beside a control group's limit: what it uses, and of its statistics the cache that is given up first (versions 2, 1).
_USED = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
_CACHED = {"memory.max": "inactive_file", "memory.limit_in_bytes": "total_inactive_file"}


def available_bytes(root: Path = Path("/")) -> int:
    """Return the least of the limits of this process's control groups (versions 2 and 1) and the machine's memory.

    Args:
        root: Where proc and sys lie.
    """
    limits = map(_read_limit, _limit_files(root))
    return min([_machine_bytes(), *(limit for limit in limits if limit is not None)])


def free_bytes(root: Path = Path("/")) -> int:
    """Return how much more this process may take: the least of what its control groups and the machine have left.

    Args:
        root: Where proc and sys lie.
    """
    limits = ((path, _read_limit(path)) for path in _limit_files(root))
    groups = (limit - _used_bytes(path) for path, limit in limits if limit is not None)
    return max(0, min([_numbers(root / "proc" / "meminfo").get("MemAvailable:", _machine_bytes()), *groups]))


def _used_bytes(limit_file: Path) -> int:
    """What a group uses, less the cache of files that it gives up where it needs more; 0 where it does not say."""
    used = read(limit_file.with_name(_USED[limit_file.name])).strip()
    cached = _numbers(limit_file.with_name("memory.stat")).get(_CACHED[limit_file.name], 0)
    return max(0, int(used) - cached) if used.isdecimal() else 0


def _numbers(path: Path) -> dict[str, int]:
    """Read lines of a name and a number, in bytes or followed by kB; others are left out."""
    lines = (line.split() for line in read(path).splitlines())
    found = {line[0]: (int(line[1]), line[2:]) for line in lines if len(line) > 1 and line[1].isdecimal()}
    return {name: number * 1024 if unit == ["kB"] else number for name, (number, unit) in found.items()}


def _limit_files(root: Path) -> Iterator[Path]:
    return limit_files(root, "memory", "memory.max", "memory.limit_in_bytes")


def _read_limit(path: Path) -> int | None:
    content = read(path).strip()
    return int(content) if content.isdecimal() else None  # version 2 says "max" for none


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return _UNKNOWN_BYTES


async def watch_memory() -> None:
    """Give memory back that was needed for a moment (large messages, images), until cancelled.

    The C library keeps what is freed, in each thread's heap, and a message of many small pieces leaves a heap that
    nothing but trimming makes smaller. It is trimmed where much has been freed since that was last done: after a flood
    the process does not grow any more, and yet has most to give. Where the library does not say how much is free, it is
    trimmed where the process has grown.
    """
    least_bytes = await asyncio.to_thread(_spare_bytes)
    looks = deque[int](maxlen=_LOOKS)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        looks.append(await asyncio.to_thread(_spare_bytes))
        least_bytes = min(least_bytes, looks[-1])
        if len(looks) == _LOOKS and min(looks) > least_bytes + _SPARE_BYTES:
            await asyncio.to_thread(give_back_memory)
            looks.clear()
            least_bytes = await asyncio.to_thread(_spare_bytes)


_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo(ctypes.Structure):
    """Of glibc's heaps: struct mallinfo2 of malloc.h."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS)


def _spare_bytes() -> int:
    """What is in memory beside what the C library has lent out; where it does not say, all that is.

    It locks each heap for that, for up to 8 ms where many threads are busy: not for the event loop.
    """
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None) if os.name == "posix" else None
    if not mallinfo:
        return resident_bytes()
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return resident_bytes() - int(found.uordblks) - int(found.hblkhd)


def resident_bytes(root: Path = Path("/")) -> int:
    """Return how much of this process is in memory; 0 where the system does not say.

    Args:
        root: Where proc lies.
    """
    pages = read(root / "proc" / "self" / "statm").split()[1:2]
    return int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def give_back_memory() -> None:
    """Return memory that is no longer used to the system, where the C library can (glibc's malloc_trim)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)
