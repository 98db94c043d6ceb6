"""Leaves out what needs torch where it is not installed: a server installation has none."""

from importlib.util import find_spec

_NEED_TORCH = ["export", "model", "training"]
collect_ignore = [] if find_spec("torch") else _NEED_TORCH


def pytest_report_header() -> str:
    """Say what is left out, so that nobody takes silence for success."""
    if not collect_ignore:
        return ""
    folders = ", ".join(f"tests/{name}" for name in collect_ignore)
    return f"torch is not installed: {folders} are left out"
