"""KServe's own client against a server; its many dependencies are installed for this test alone."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.conftest import Running

CASES_FILE = Path(__file__).with_name("kserve_cases.py")
PACKAGE = "kserve==0.21.0"


@pytest.mark.install
async def test_kserves_client_works_unchanged(running: Running, tmp_path: Path) -> None:
    """Tensors raw and typed, text, attention by parameters."""
    python = tmp_path / "venv" / "bin" / "python"

    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    await asyncio.to_thread(run, sys.executable, "-m", "venv", str(tmp_path / "venv"))
    await asyncio.to_thread(run, str(python), "-m", "pip", "install", "--quiet", PACKAGE)
    assert "all is well" in await asyncio.to_thread(run, str(python), str(CASES_FILE), running.started.address)
