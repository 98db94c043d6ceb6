"""How many CPUs this process really has, which of them are near each other, and how threads are bound to those."""

import logging
import math
import os
from collections.abc import Collection, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.control_groups import limit_files, read

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cpus:
    """What the engine has.

    Attributes:
        threads: That compute at a time, at least 1.
        nodes: The CPUs of each NUMA node, by number, where no run should be on several; empty where that is no matter.
    """

    threads: int
    nodes: tuple[frozenset[int], ...] = ()


def plan_cpus(threads: int = 0, root: Path = Path("/")) -> Cpus:
    """Say how many threads compute, and on which CPUs.

    Runs are kept to NUMA nodes only where every CPU that this process may run on has a thread: with fewer threads (a
    quota, or as the operator wants) the operating system places them better than a plan that stands for good. So it
    does where the nodes have unequal parts of the CPUs.

    Args:
        threads: As the operator wants; 0 for as many as there are CPUs.
        root: Where proc and sys lie.
    """
    threads = threads or available_cpus(root)
    allowed = _allowed()
    nodes = tuple(node for node in _nodes(root, allowed) if node)
    is_even = len({len(node) for node in nodes}) == 1 and sum(map(len, nodes)) == len(allowed)
    return Cpus(threads, nodes if len(nodes) > 1 and is_even and threads == len(allowed) else ())


def bind_thread(cpus: Collection[int]) -> None:
    """Let the calling thread run on these CPUs alone, and threads that it starts from now on; none for no change.

    Where the operating system refuses, since they are not this process's any more, it goes on as it was.
    """
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        _log.warning("a thread cannot be bound to the CPUs %s: %s", sorted(cpus), error)


@contextmanager
def bound_to(cpus: Collection[int]) -> Iterator[None]:
    """Bind the calling thread meanwhile, and for good the threads that it starts; see bind_thread."""
    before = _allowed() if cpus else set[int]()
    bind_thread(cpus)
    try:
        yield
    finally:
        bind_thread(before)


def available_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs this process may run on, within the quotas of its control groups; at least 1.

    Args:
        root: Where proc and sys lie.
    """
    quotas = [_quota(path) for path in limit_files(root, "cpu", "cpu.max", "cpu.cfs_quota_us")]
    return max(1, math.floor(min([len(_allowed()), *quotas])))


def _allowed() -> Set[int]:
    """The CPUs that this thread may run on, by number."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _nodes(root: Path, allowed: Set[int]) -> Iterator[frozenset[int]]:
    """Yield what each NUMA node has of some CPUs; nothing where the operating system names none.

    The format is "0-3,8-11" (Linux, Documentation/ABI/stable/sysfs-devices-node).
    """
    folder = root / "sys" / "devices" / "system" / "node"
    for path in sorted(folder.glob("node[0-9]*"), key=lambda path: int(path.name.removeprefix("node"))):
        intervals = [interval.partition("-") for interval in read(path / "cpulist").split(",") if interval.strip()]
        cpus = (cpu for first, _, last in intervals for cpu in range(int(first), int(last or first) + 1))
        yield frozenset(cpus) & allowed


def _quota(path: Path) -> float:
    """Return a quota in CPUs, infinity where there is none.

    Version 2 says "max 100000" or "150000 100000", microseconds of each period; version 1 has a file for each, -1 for
    none.
    """
    words = read(path).split()
    if len(words) == 1:
        words += read(path.with_name("cpu.cfs_period_us")).split()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or not int(words[1]):
        return math.inf
    return int(words[0]) / int(words[1])
