"""The wall clock may jump; nothing that is measured or waited for follows it."""

import ast
from pathlib import Path

from tests.processes import ROOT

WALL_CLOCKS = {"time", "time_ns", "localtime", "gmtime", "now", "utcnow", "today"}


def calls_of_the_wall_clock(path: Path) -> list[str]:
    """Where a file asks what time of day it is."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in WALL_CLOCKS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("time", "datetime", "date")
    ]


def imports_of_the_wall_clock(path: Path) -> list[str]:
    """Where a file takes the clock by another name."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"))
        or (isinstance(node, ast.Import) and any(one.name == "datetime" for one in node.names))
    ]


def test_the_server_never_asks_for_the_time_of_day() -> None:
    """Deadlines, quotas, estimates and the watchdog run on monotonic clocks; only statistics name a time."""
    asking = [place for path in (ROOT / "server").rglob("*.py") for place in calls_of_the_wall_clock(path)]
    assert not [place for path in (ROOT / "server").rglob("*.py") for place in imports_of_the_wall_clock(path)]
    # Traces are told at what time of day something was; statistics, when a model was last used.
    assert {place.partition(":")[0] for place in asking} == {
        "server/telemetry/counts.py",
        "server/telemetry/tracing.py",
    }
