"""How many CPUs this process really has; the default number of engine threads."""

import math
import os
from pathlib import Path

from server.control_groups import limit_files, read


def available_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs this process may run on, within the quotas of its control groups; at least 1.

    Args:
        root: Where proc and sys lie.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(path) for path in limit_files(root, "cpu", "cpu.max", "cpu.cfs_quota_us")]
    return max(1, math.floor(min([allowed, *quotas])))


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
