"""How many CPUs this process really has; the default number of engine threads."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """Return the CPUs this process may run on, within the container's quota; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, math.floor(_cgroup_quota(cgroup))))


def _cgroup_quota(cgroup: Path) -> float:
    """Return the quota in CPUs, infinity where there is none (cgroup v2: "max 100000" or "150000 100000")."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return 1e9
    return 1e9 if quota == "max" else max(1.0, int(quota) / int(period))
