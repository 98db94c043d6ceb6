import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What each folder may not import, so that the arrows of the architecture point one way.
FORBIDDEN = {
    "server": {"torch", "model", "export", "training", "onnx", "transformers", "tests"},
    "client/regard": {"torch", "model", "export", "training", "server", "onnx", "onnxruntime", "tests"},
    "model": {"onnx", "onnxruntime", "export", "server", "regard", "training", "grpc", "tests"},
    "export": {"grpc", "regard", "training", "tests"},
}


def imported_by(file: Path) -> set[str]:
    """Top-level names of the packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_point_one_way(folder: str) -> None:
    """The server reads artifacts only; the networks know nobody; the exporter knows no gRPC."""
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(file.relative_to(ROOT)): imported_by(file) & FORBIDDEN[folder] for file in files}
    assert {file: names for file, names in found.items() if names} == {}


def test_of_the_server_the_exporter_imports_the_contract_and_how_samples_are_read() -> None:
    """What calibrates is preprocessed as what is served; nothing of the service itself."""
    modules = {
        node.module
        for file in (ROOT / "export").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("server")
    }
    assert modules == {"server.contract", "server.errors", "server.images", "server.text"}


def test_onnx_runtime_is_told_not_to_report_to_its_makers() -> None:
    """Before it is imported, by the server and by the exporter."""
    for package in ("server", "export"):
        code = f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["1", "False"]


def test_a_loaded_server_has_no_torch_in_memory() -> None:
    """Nor by way of something it imports."""
    code = "import server.__main__, sys; print(sorted({'torch', 'onnx', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
