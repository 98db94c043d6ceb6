"""CPUs of a process are those that it may run on, within the quotas of its control groups."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.engine.cpus import Cpus, available_cpus, bind_thread, bound_to, plan_cpus
from tests.processes import ROOT, environment
from tests.server.engine.graphs import write_after_a_constant

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


NODES = "sys/devices/system/node/"
TWO = {f"{NODES}node0/cpulist": "0-1,4-5\n", f"{NODES}node1/cpulist": "2-3,6,7\n", f"{NODES}online": "0-1\n"}
EVEN = (frozenset({0, 1, 4, 5}), frozenset({2, 3, 6, 7}))
QUOTA = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}


@pytest.mark.parametrize(
    ("files", "allowed", "threads", "plan"),
    [
        ({}, range(8), 0, Cpus(8)),
        ({f"{NODES}node0/cpulist": "0-7\n"}, range(8), 0, Cpus(8)),
        (TWO, range(8), 0, Cpus(8, EVEN)),
        (TWO, range(8), 8, Cpus(8, EVEN)),
        (TWO, (1, 4, 6, 7), 0, Cpus(4, (frozenset({1, 4}), frozenset({6, 7})))),
        (TWO, (0, 1, 4), 0, Cpus(3)),
        (TWO, (0, 1, 2), 0, Cpus(3)),
        (TWO | QUOTA, range(8), 0, Cpus(4)),
        (TWO, range(8), 6, Cpus(6)),
        (TWO, range(8), 16, Cpus(16)),
        (TWO | {f"{NODES}node2/cpulist": "\n"}, range(8), 0, Cpus(8, EVEN)),
        (TWO | {f"{NODES}node10/cpulist": "8-11"}, range(12), 0, Cpus(12, (*EVEN, frozenset(range(8, 12))))),
        (TWO, range(10), 0, Cpus(10)),
    ],
    ids=[
        *("nothing known", "one node", "two", "as many as there are", "some of each", "some of one", "uneven", "quota"),
        *("fewer threads", "more threads", "memory alone", "in order", "some of none"),
    ],
)
def test_runs_are_kept_to_nodes_where_every_cpu_has_a_thread(
    files: dict[str, str],
    allowed: Sequence[int],
    threads: int,
    plan: Cpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And where each node has as many of them; else the operating system places threads."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert plan_cpus(threads, tmp_path) == plan


needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not bound to CPUs here")


@needs_affinity
def test_a_process_bound_to_a_cpu_plans_one_thread(tmp_path: Path) -> None:
    """However many the machine has: what loads a graph and calls it is all that computes."""
    write_after_a_constant(tmp_path / "graph.onnx", 64, 64)
    code = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from pathlib import Path
from server.engine.cpus import plan_cpus
from server.engine.device import choose_devices, on_nodes, share_cpus
from server.engine.session import Graph
cpus = plan_cpus()
devices = on_nodes(choose_devices("cpu"), cpus.nodes)
before = len(os.listdir("/proc/self/task"))
graph = Graph(Path(sys.argv[1]), devices, share_cpus(cpus.threads, devices), all_threads=True)
print(cpus, [device.name for device in devices], len(os.listdir("/proc/self/task")) - before, graph.can_use_all_threads)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "graph.onnx")]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == f"{Cpus(1)} ['CPU'] 0 False"


@needs_affinity
def test_a_thread_that_cannot_be_bound_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Its CPUs may have been taken from the process meanwhile."""
    before = os.sched_getaffinity(0)
    with bound_to({10**4}):
        assert os.sched_getaffinity(0) == before
    assert "cannot be bound to the CPUs [10000]" in caplog.text
    bind_thread(())
    assert os.sched_getaffinity(0) == before
