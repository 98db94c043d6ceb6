"""A server for the documentation's snippets, with a model for each name that they use."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifact.files import hash_file
from tests.docs.snippets import ROOT

FASHION, TEXT = ROOT / "server" / "embedded" / "fashion", ROOT / "tests" / "golden" / "models" / "tiny-text"
PAIRS = ROOT / "tests" / "golden" / "pairs"
TOWERS = ROOT / "tests" / "golden" / "towers" / "tiny-clip"
STAND_INS = {
    "clip": TOWERS,
    "fashion": FASHION,
    "g2p": ROOT / "server" / "embedded" / "g2p",
    "vit-s14": FASHION,
    "vit-s14-518": FASHION,
    "minilm": TEXT,
    "my-nli": PAIRS / "tiny-nli",
    "my-reranker": PAIRS / "tiny-rank",
    "sentiment": TEXT,
}
"""What is served under a name where `make demo` has not exported it: smaller networks that take the same."""


@pytest.fixture(scope="session")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where a server listens for gRPC and HTTP, with the models of models/, and stand-ins for those not there."""
    models = tmp_path_factory.mktemp("docs-models")
    for name, stand_in in STAND_INS.items():
        _place(name, stand_in, models)
    command = [sys.executable, "-m", "server", "--models", str(models)]
    command += ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    env = environment(REGARD_TRIAL_LOAD="false")  # a second for each model, which tests of it take
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            http = next(line for line in process.stdout if line.startswith("HTTP on ")).split()[2]
            said = next(line for line in process.stdout if line.startswith("gRPC on "))
            assert next(line for line in process.stdout).startswith("ready")
            yield said.split()[2].rstrip(","), http
        finally:
            process.kill()


@pytest.fixture(scope="session")
def server(addresses: tuple[str, str]) -> str:
    """Where it listens for gRPC."""
    return addresses[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one, that has the examples beside what a snippet writes."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    """The tests' environment without settings of the server, with the checkout to import from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REGARD_")}
    return kept | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"} | more


def _place(name: str, stand_in: Path, models: Path) -> None:
    exported = ROOT / "models" / name
    if exported.is_dir():
        (models / name).symlink_to(exported)
        return
    shutil.copytree(stand_in, models / name)
    for path in [*(models / name).rglob("contract.json"), *(models / name).rglob("towers.json")]:
        contract = json.loads(path.read_text(encoding="utf-8")) | {"name": name}
        if path.name == "towers.json":
            contract["files"] = {part: hash_file(path.parent / part) for part in contract["files"]}
        path.write_text(json.dumps(contract), encoding="utf-8")
