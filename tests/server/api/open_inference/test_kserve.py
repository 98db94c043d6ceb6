"""KServe's own client against a server; its many dependencies are installed for this test alone."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.conftest import Running

CASES_FILE = Path(__file__).with_name("kserve_cases.py")
PACKAGE = "kserve==0.21.0"


@pytest.fixture(scope="module")
def kserve_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the client."""
    folder = tmp_path_factory.mktemp("kserve") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    run(sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-compile", PACKAGE)
    return folder / "bin" / "python"


@pytest.mark.install
async def test_kserves_client_works_unchanged(kserve_python: Path, running: Running) -> None:
    """Tensors raw and typed, text, attention by parameters."""
    address = running.started.address
    assert "all is well" in await asyncio.to_thread(run, str(kserve_python), str(CASES_FILE), address)


def run(*command: str) -> str:
    """Run a program that has to succeed; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
