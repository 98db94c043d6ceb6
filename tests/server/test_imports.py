import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_onnx_runtime_is_told_not_to_report_to_its_makers() -> None:
    """Before it is imported, by the server and by the exporter."""
    for package in ("server", "export"):
        code = f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["1", "False"]


def test_a_loaded_server_has_no_torch_in_memory() -> None:
    """Nor by way of something it imports."""
    code = "import server.process, sys; print(sorted({'torch', 'onnx', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_system_without_signals_of_posix_can_be_told_what_the_flags_are() -> None:
    """As Windows: they are looked for where the module is imported."""
    code = "import signal; del signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2; import server.__main__ as m; m.main()"
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--models-cache" in done.stdout
