"""NVIDIA's own client for HTTP against a server, unchanged."""

import asyncio
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.server.conftest import Running

CASES_FILE = Path(__file__).with_name("triton_cases.py")
CASES = re.findall(r"^def (case_\w+)", CASES_FILE.read_text(), re.MULTILINE)
PICTURE = Path(__file__).parents[4] / "examples" / "clothing" / "sandal.png"


@pytest.mark.skipif(find_spec("geventhttpclient") is None, reason="tritonclient[http] is not installed")
async def test_tritonclient_works_unchanged(running: Running) -> None:
    """Every case of triton_cases.py."""
    command = [sys.executable, "-W", "ignore", str(CASES_FILE), running.started.http_address]
    environment = {**os.environ, "PICTURE": str(PICTURE)}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)

    done = await asyncio.to_thread(run)
    results = {found["case"]: found["trouble"] for found in map(json.loads, done.stdout.splitlines())}
    assert list(results) == CASES, done.stderr
    failed = {case: trouble for case, trouble in results.items() if trouble}
    assert not failed, "\n".join(failed.values())
