"""The memory of a process is read from its control groups, in files as systems have them."""

import asyncio
import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from server import memory
from server.memory import available_bytes, free_bytes, resident_bytes

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


VERSION_2 = {
    "proc/self/cgroup": "0::/a.slice/b.service\n",
    "sys/fs/cgroup/a.slice/memory.max": f"{96 * MIB}\n",
    "sys/fs/cgroup/a.slice/memory.current": f"{80 * MIB}\n",
    "sys/fs/cgroup/a.slice/memory.stat": f"anon {40 * MIB}\ninactive_file {30 * MIB}\nactive_file {10 * MIB}\n",
    "sys/fs/cgroup/a.slice/b.service/memory.max": "max\n",
    "sys/fs/cgroup/a.slice/b.service/memory.current": f"{2048 * MIB}\n",
}
VERSION_1 = {
    "proc/self/cgroup": "4:memory:/docker/x\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{64 * MIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{60 * MIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file {MIB}\ntotal_inactive_file {20 * MIB}\n",
}
MACHINE = {"proc/meminfo": f"MemTotal:  {2**30} kB\nMemFree:  {2**10} kB\nMemAvailable:  {200 * 2**10} kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 512 * MIB),
        (MACHINE, 200 * MIB),
        (VERSION_2 | MACHINE, 46 * MIB),
        ({**VERSION_2, "sys/fs/cgroup/a.slice/memory.stat": ""}, 16 * MIB),
        ({**VERSION_2, "sys/fs/cgroup/a.slice/memory.current": f"{200 * MIB}\n"}, 0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{64 * MIB}\n"}, 64 * MIB),
        (VERSION_1, 24 * MIB),
    ],
    ids=["not said", "the machine", "a group", "without statistics", "over its limit", "not said what is used", "v1"],
)
def test_what_is_used_already_is_not_free(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Least of what each group with a limit has left and what the machine has; cache of files can be given up."""
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 512 * MIB)
    assert free_bytes(write(tmp_path, files)) == expected


def test_this_machine_has_some_memory() -> None:
    """Whatever its system."""
    assert available_bytes() > 16 * MIB
    assert 0 < free_bytes() <= available_bytes()


def test_what_a_process_has_in_memory_is_read_from_proc(tmp_path: Path) -> None:
    """In pages; where there is no such file nothing is known."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    assert resident_bytes(write(tmp_path, {"proc/self/statm": "900 300 20 1 0 500 0\n"})) == 300 * page_bytes
    assert resident_bytes(tmp_path / "elsewhere") == 0


async def test_memory_is_given_back_once_much_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """At three looks 32 MiB above the least since the last time; what is free since then is no reason for another."""
    sizes = [100, 120, 133, 90, 132, 133, 124, 123, 130, 131, 155, 160, 170, 160, 60, 95, 93, 94, 99]
    given_back, seen = list[int](), list[int]()

    def spare() -> int:
        seen.append(sizes[len(seen)])
        return seen[-1] * MIB

    async def sleep(seconds: float) -> None:
        assert seconds == 1.0

    monkeypatch.setattr(memory, "_spare_bytes", spare)
    monkeypatch.setattr(memory, "give_back_memory", lambda: given_back.append(seen[-1]))
    # Not of asyncio itself: other tests' servers live in this process, in threads of their own.
    monkeypatch.setattr(memory, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    with pytest.raises(IndexError):  # the sizes are at an end
        await memory.watch_memory()
    assert given_back == [124, 160, 94]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or newer")
def test_what_is_freed_is_spare_until_it_is_given_back() -> None:
    """Or given back: 64 MiB in pieces with others between them, without which the heap would end lower by itself."""
    before = memory._spare_bytes()
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    pieces = [library.malloc(65536) for _ in range(2048)]
    for piece in pieces:
        ctypes.memset(piece, 1, 65536)
    used = memory._spare_bytes()
    for piece in pieces[::2]:
        library.free(piece)
    spare = memory._spare_bytes()
    memory.give_back_memory()
    trimmed = memory._spare_bytes()
    for piece in pieces[1::2]:
        library.free(piece)
    assert used < before + 16 * MIB
    assert spare > used + 48 * MIB
    assert trimmed < spare - 48 * MIB
