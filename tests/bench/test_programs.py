"""What is measured is the checkout's, and may need what PYTHONPATH names: another build of ONNX Runtime."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import servers
from bench.programs import ROOT, environment
from bench.servers import only, serving_regard

PROGRAM = "import only_here, server, regard; print(only_here.__file__, server.__file__, regard.__file__, sep='\\n')"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on PYTHONPATH, with a module of its own and one that the checkout has."""
    (tmp_path / "only_here.py").write_text("")
    (tmp_path / "server.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield tmp_path


def imported(env: dict[str, str]) -> list[Path]:
    """Where a program finds its modules."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


def test_a_program_has_the_checkout_and_behind_it_what_the_path_names(folder: Path) -> None:
    """Or before it what must be."""
    here = [folder / "only_here.py", ROOT / "server" / "__init__.py", ROOT / "client" / "regard" / "__init__.py"]
    assert imported(environment()) == here
    assert environment(first=Path("/wheels"))["PYTHONPATH"].startswith("/wheels" + os.pathsep)


def test_a_server_has_what_the_path_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the program that starts it."""

    def start(command: list[str], *, env: dict[str, str], **_: Any) -> None:
        raise RuntimeError(env["PYTHONPATH"])

    monkeypatch.setattr(servers.subprocess, "Popen", start)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError) as raised, serving_regard(folder):
        pass
    assert str(raised.value) == os.pathsep.join(map(str, (ROOT, ROOT / "client", folder)))


def test_only_some_models_are_served(tmp_path: Path) -> None:
    """Of a folder of many."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    with only(tmp_path, "one", "two") as models:
        assert sorted(path.name for path in models.iterdir()) == ["one", "two"]
