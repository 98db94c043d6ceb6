"""Finds where the limits of this process's control groups stand, versions 2 and 1."""

from collections.abc import Iterator
from pathlib import Path


def limit_files(root: Path, controller: str, version_2: str, version_1: str) -> Iterator[Path]:
    """Yield where a limit may stand: for each group of /proc/self/cgroup and for those above it, up to the mount's own.

    In a container, whose path is one of the host's, only the last is there.

    Args:
        root: Where proc and sys lie.
        controller: Which sets it, "memory" or "cpu".
        version_2: The file's name; version_1 likewise.
        version_1: Of a mount of its own, alone or with other controllers.
    """
    groups = root / "sys" / "fs" / "cgroup"
    for line in read(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _upwards(groups, path, version_2)
        elif controller in controllers.split(","):
            yield from _upwards(groups / controllers, path, version_1)


def _upwards(mount: Path, path: str, name: str) -> Iterator[Path]:
    folder = mount / path.lstrip("/")
    yield folder / name
    for above in folder.parents:
        if not above.is_relative_to(mount):
            return
        yield above / name


def read(path: Path) -> str:
    """Return a file's content; empty where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
