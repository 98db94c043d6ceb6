"""The memory of a process is read from its control groups, in files as systems have them."""

from pathlib import Path

import pytest

from server import memory
from server.memory import available_bytes

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> Path:
    """Lay files down."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 512 * MIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{64 * MIB}\n"}, 64 * MIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 512 * MIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{2048 * MIB}\n"}, 512 * MIB),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.service\n",
                "sys/fs/cgroup/a.slice/memory.max": f"{32 * MIB}\n",
                "sys/fs/cgroup/a.slice/b.service/memory.max": f"{64 * MIB}\n",
            },
            32 * MIB,
        ),
        ({"proc/self/cgroup": "0::/docker/of/the/host\n", "sys/fs/cgroup/memory.max": f"{64 * MIB}"}, 64 * MIB),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/x\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": f"{16 * MIB}\n",
            },
            16 * MIB,
        ),
    ],
)
def test_the_least_limit_is_taken(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the groups of the process, those above them, and the machine, which has 512 MiB here."""
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 512 * MIB)
    assert available_bytes(write(tmp_path, files)) == expected


def test_this_machine_has_some_memory() -> None:
    """Whatever its system."""
    assert available_bytes() > 16 * MIB
