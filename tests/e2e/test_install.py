import subprocess
import sys
from pathlib import Path

import pytest

import regard
from tests.e2e.conftest import CLOTHING, ROOT, StartProcess

pytestmark = pytest.mark.install


def test_the_server_extra_alone_serves_the_embedded_default(start_process: StartProcess, tmp_path: Path) -> None:
    """A new virtual environment with nothing but regard[server]: no torch, no exporter, and it names a boot."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", f"{ROOT}[server]"], check=True)
    for absent in ("torch", "onnx", "transformers", "typer"):
        assert subprocess.run([python, "-c", f"import {absent}"], capture_output=True, check=False).returncode == 1
    with start_process(python=python) as server, regard.Client(server.address) as client:
        answer = client.classify(
            image=CLOTHING / "ankle-boot.png", attention=regard.AttentionRequest(layers=(-1,), cls_only=True)
        )
        assert answer.labels[0].name == "Ankle boot"
        assert answer.attention
        assert answer.attention.layer(-1).weights.shape == (4, 1, 50)
        assert server.stop() == 0
