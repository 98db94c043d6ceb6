"""Runs one measurement in a process of its own, so that what it imports and collects is not the next one's."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def environment(checkout: Path = ROOT, first: Path | None = None) -> dict[str, str]:
    """Environment of a program of a checkout: PYTHONPATH names that, then what it named before.

    Args:
        checkout: Whose code is run.
        first: A folder that comes before it.
    """
    paths = [*([str(first)] if first else []), str(checkout), str(checkout / "client")]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run(module: str, target: str, options: dict[str, Any], *more: str, timeout_seconds: float | None = None) -> str:
    """Run `python -m MODULE TARGET *MORE` with options as flags; returns what it prints.

    Raises:
        CalledProcessError: It failed.
        TimeoutExpired: It took longer, and was killed.
    """
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", module, target, *more, *flags]
    done = subprocess.run(  # noqa: S603 -- our own
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=timeout_seconds
    )
    return done.stdout
