"""Resident memory of a process with its children, and a limit on it as a container has."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from tests.faults.callers import wait_until

_NUMBERS = count()
_CONTROLLERS = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    """Sum of the process and its children; field VmHWM gives the most there has been of each."""
    return sum(_read(one, field) for one in _family(pid))


def forget_highest(pid: int) -> None:
    """Let VmHWM begin anew (proc(5), clear_refs)."""
    for one in _family(pid):
        with suppress(OSError):  # it has ended
            Path(f"/proc/{one}/clear_refs").write_text("5")


@contextmanager
def limited(limit_bytes: int | None) -> Iterator[tuple[str, ...]]:
    """Yield the words before a server's command that limit its memory; none where no limit is wanted.

    A control group of its own where this process may make one, below its own group; else RLIMIT_DATA, which counts
    private writable memory and makes allocations fail instead of ending the process.
    """
    server = (sys.executable, "-m", "server")
    if limit_bytes is None:
        yield server
    elif (group := _make_group(limit_bytes)) is None:
        yield ("prlimit", f"--data={limit_bytes}", *server)
    else:
        try:
            yield ("/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *server)
        finally:
            wait_until(lambda: not _lines(group / "cgroup.procs"))  # Envoy ends a moment after what started it
            group.rmdir()


def _make_group(limit_bytes: int) -> Path | None:
    own = {name: path for _, name, path in (line.split(":", 2) for line in _lines("/proc/self/cgroup"))}
    for (mount, file), controller in zip(_CONTROLLERS, ("memory", ""), strict=True):
        group = Path(mount, own.get(controller, "/").lstrip("/"), f"regard-hostile-{os.getpid()}-{next(_NUMBERS)}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            with (group / file).open("r+") as limit:  # which the kernel has made
                limit.write(str(limit_bytes))
        except OSError:
            group.rmdir()
            continue
        return group
    return None


def _family(pid: int) -> Iterator[int]:
    yield pid
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _lines(tasks):
            for one in child.split():
                yield from _family(int(one))


def _read(pid: int, field: str) -> int:
    found = next((line for line in _lines(f"/proc/{pid}/status") if line.startswith(field)), "0 0")
    return int(found.split()[1]) * 1024


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has ended
