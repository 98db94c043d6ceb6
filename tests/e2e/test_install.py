"""The wheel as users have it: in virtual environments of their own, outside the checkout."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import regard
from tests.golden import GOLDEN_MODELS
from tests.processes import CLOTHING, ROOT, StartProcess, environment

pytestmark = [pytest.mark.install, pytest.mark.timeout(1200)]

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
BOOT = regard.AttentionRequest(layers=(-1,), cls_only=True)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git has of the checkout, and nothing that lies about in it."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    command = ("git", "ls-files")
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    (built,) = folder.glob("*.whl")
    return built


def pip(*arguments: str) -> None:
    """Run pip."""
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], check=True)


def install(folder: Path, wheel: Path, extra: str) -> Path:
    """Make a virtual environment with the wheel and an extra; returns its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    # Python compiles what it imports; pip would compile all, most of which is never imported.
    pip("--python", str(folder), "install", "--no-compile", *constraints, f"{wheel}[{extra}]")
    return folder / "bin"


def run(*command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a program outside the checkout."""
    env = environment()
    env.pop("PYTHONPATH", None)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_the_wheel_claims_no_name_but_its_own(wheel: Path) -> None:
    """The application travels as files below regard, with its weights, graphs and models."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if not name.partition("/")[0].endswith(".dist-info")} == {"regard"}
    graphs = (
        "server/engine/kernels/largest.onnx",
        "server/embedded/fashion/1/model.onnx",
        "server/embedded/g2p/1/decoder.onnx",
        "server/embedded/g2p/1/target_tokenizer.json",
    )
    code = ("artifact/contract.py", "export/__main__.py", "server/__main__.py")
    for needed in (*graphs, *code, "server/embedded/fashion/1/contract.json", "model/weights/fashion/config.json"):
        assert f"regard/_app/{needed}" in names
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_the_server_extra_serves_without_a_checkout(wheel: Path, start_process: StartProcess, tmp_path: Path) -> None:
    """The embedded model, which names a boot, and a models folder; no torch, no exporter, no name `server`."""
    programs = install(tmp_path / "venv", wheel, "server")
    serve = (str(programs / "regard"), "serve")
    for absent in ("torch", "onnx", "transformers", "typer", "server", "export", "model", "artifact"):
        assert run(str(programs / "python"), "-c", f"import {absent}", cwd=tmp_path).returncode == 1, absent
    asked = "import regard; print('regard', regard.__version__)"
    printed = run(str(programs / "python"), "-c", asked, cwd=tmp_path).stdout
    assert printed == run(str(programs / "regard"), "--version", cwd=tmp_path).stdout == f"regard {VERSION}\n"
    shown = run(*serve, "--help", cwd=tmp_path)
    assert shown.stdout.startswith("usage: regard serve ")
    with start_process(program=serve, cwd=tmp_path) as server, regard.Client(server.address) as client:
        answer = client.classify(image=CLOTHING / "ankle-boot.png", attention=BOOT)
        assert answer.labels[0].name == "Ankle boot"
        assert answer.attention
        assert answer.attention.layer(-1).weights.shape == (4, 1, 50)
        assert server.stop() == 0
    flags = ("--models", str(GOLDEN_MODELS), "--trial-load")
    with start_process(*flags, program=serve, cwd=tmp_path) as server, regard.Client(server.address) as client:
        assert client.embed(text="the cat", model="tiny-text").vector.shape == (32,)
        assert server.stop() == 0
    refused = run(str(programs / "regard"), "export", "fashion", cwd=tmp_path)
    assert refused.returncode == 1
    assert "regard export needs " in refused.stderr
    assert f"pip install '{wheel.name}[export]'" in refused.stderr


def test_the_export_extra_exports_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """The network whose weights the wheel carries."""
    programs = install(tmp_path / "venv", wheel, "export")
    done = run(str(programs / "regard"), "export", "fashion", "--out", "models", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "fashion" / "1" / "contract.json").is_file()
    assert "published models/fashion/1" in done.stdout
