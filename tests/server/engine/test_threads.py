"""Which threads compute, counted: those that call, and those of ONNX Runtime's pools."""

import os
import sys
import threading
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.engine.device import Device, Instances, choose_devices, on_nodes, share_cpus
from server.engine.session import Graph
from tests.server.engine.graphs import write_after_a_constant

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")

_TASKS = Path("/proc/self/task")
_COMPUTED_NS = 2_000_000  # more than a thread needs to begin
_MAX_ROUNDS = 10_000  # of four runs that take some milliseconds


def threads() -> set[str]:
    """All of this process, by the numbers that the operating system gives them."""
    return {path.name for path in _TASKS.iterdir()}


def computed(among: Collection[str]) -> set[str]:
    """Those that have had a CPU for a while."""
    return {task for task in among if int((_TASKS / task / "schedstat").read_text().split()[0]) > _COMPUTED_NS}


def load(folder: Path, devices: tuple[Device, ...], instances: Instances, *, all_threads: bool) -> Graph:
    """A graph of two multiplications large enough to be parted."""
    write_after_a_constant(folder / "graph.onnx", 512, 512)
    return Graph(folder / "graph.onnx", devices, instances, all_threads=all_threads)


def run(graph: Graph) -> None:
    """Multiply 256 rows."""
    graph.run({"x": np.ones((256, 512), np.float32), "row": np.zeros(1, np.int64)}, ["y"])


@pytest.mark.parametrize("cpus", range(1, 10))
def test_instances_and_their_pool_are_one_thread_a_cpu(cpus: int, tmp_path: Path) -> None:
    """However many there are, and one session for runs that have the machine to themselves."""
    devices, before = choose_devices("cpu"), threads()
    instances = share_cpus(cpus, devices)
    kept = [load(tmp_path, devices, instances, all_threads=False)]
    workers = threads() - before
    assert instances.count == min(cpus, 4)
    assert instances.count + len(workers) == instances.threads == cpus
    kept.append(load(tmp_path, devices, instances, all_threads=True))
    further = len(threads() - before - workers)
    assert further == len(workers) + (cpus - 1 if instances.count > 1 else 0)


def test_all_threads_compute_while_all_instances_run(tmp_path: Path) -> None:
    """Four runs at a time on eight CPUs: with whoever calls, eight threads, not five."""
    devices, before = choose_devices("cpu"), threads()
    graph = load(tmp_path, devices, share_cpus(8, devices), all_threads=False)
    workers, callers = threads() - before, set[str]()

    def call() -> None:
        callers.add(str(threading.get_native_id()))
        for _ in range(_MAX_ROUNDS):
            run(graph)
            if computed(workers) == workers:
                return

    with ThreadPoolExecutor(4) as executor:
        for done in [executor.submit(call) for _ in range(4)]:
            done.result()
        assert len(computed(workers | callers)) == 8


def test_threads_of_a_node_stay_there(tmp_path: Path) -> None:
    """Its pools' do; whoever loads the graph goes on where it was."""
    before, allowed = threads(), os.sched_getaffinity(0)
    nodes = [frozenset({cpu}) for cpu in sorted(allowed)[:2]]
    devices = on_nodes(choose_devices("cpu"), nodes)
    assert [(device.name, device.cpus) for device in devices] == [(f"CPU:{i}", cpus) for i, cpus in enumerate(nodes)]
    kept = load(tmp_path, devices, Instances(2, 4), all_threads=True)
    found = Counter(frozenset(os.sched_getaffinity(int(task))) for task in threads() - before)
    assert found == dict.fromkeys(nodes, 2 + 3)  # of runs that share, and of one that has all
    assert os.sched_getaffinity(0) == allowed
    del kept


def test_what_is_named_as_a_device_is_not_parted() -> None:
    """Nor is a GPU, or a machine with one node."""
    nodes = [frozenset({0}), frozenset({1})]
    gpu = (Device("CUDA:0", (), "", gpu=0),)
    for devices in (choose_devices("cpu:0"), choose_devices("cpu:0,cpu:1"), gpu):
        assert on_nodes(devices, nodes) is devices
    one = choose_devices("cpu")
    assert on_nodes(one, ()) is one
