"""Runs the cases of a program of its own against a server: of clients that cannot share a process with one."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[3]
_PICTURE = _ROOT / "examples" / "clothing" / "sandal.png"


async def run_cases(program: Path, address: str, seconds: float) -> None:
    """Run every case, and fail with what any of them says.

    Args:
        program: Prints a line of JSON for each of its functions case_*, in their order.
        address: The server's, which it is given.
        seconds: It ends within so many.
    """
    command = [sys.executable, "-W", "ignore", str(program), address]
    folders = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))  # of what programs share
    environment = {**os.environ, "PICTURE": str(_PICTURE), "PYTHONPATH": folders}

    def run() -> tuple[list[str], subprocess.CompletedProcess[str]]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, check=False)
        return re.findall(r"^def (case_\w+)", program.read_text(), re.MULTILINE), done

    cases, done = await asyncio.to_thread(run)
    results = {found["case"]: found["trouble"] for found in map(json.loads, done.stdout.splitlines())}
    assert list(results) == cases, done.stderr
    failed = {case: trouble for case, trouble in results.items() if trouble}
    assert not failed, "\n".join(failed.values())
