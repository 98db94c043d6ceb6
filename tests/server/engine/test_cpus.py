"""CPUs of a process are those that it may run on, within the quotas of its control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.engine.cpus import available_cpus
from tests.processes import ROOT, environment

GROUP = {"proc/self/cgroup": "0::/a.slice/b.service\n"}
OLD = {"proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/of/the/host\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 8),
        ({**GROUP, "sys/fs/cgroup/a.slice/b.service/cpu.max": "200000 100000\n"}, 2),
        (
            {
                **GROUP,
                "sys/fs/cgroup/a.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a.slice/b.service/cpu.max": "max 100000\n",
            },
            2,
        ),
        (
            {
                **OLD,
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "50000\n",
            },
            5,
        ),
        (
            {
                **OLD,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        ({**OLD, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n"}, 8),
    ],
    ids=["none", "3.5", "half", "max", "more", "own", "above", "version 1", "version 1, none", "version 1, no period"],
)
def test_the_least_quota_bounds_the_cpus(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine with eight; half a CPU still needs one thread."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert available_cpus(tmp_path) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not bound to CPUs here")
def test_a_process_bound_to_a_cpu_has_one() -> None:
    """However many the machine has."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import server.engine.cpus as c; "
    command = [sys.executable, "-c", code + "print(c.available_cpus())"]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "1"
