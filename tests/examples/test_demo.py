"""The demo: its first half needs nothing but what is embedded, its second leaves out what cannot be downloaded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples import demo
from regard import pictures
from tests.processes import ROOT, environment


def test_what_is_embedded_is_shown_without_torch_or_downloads(tmp_path: Path) -> None:
    """Answers, pictures and metrics; neither torch nor the exporter is imported."""
    watched = "import sys; sys.modules['torch'] = None; sys.argv = ['demo', '--out', sys.argv[1]]; "
    command = [sys.executable, "-c", f"{watched}from examples import demo; demo.main()", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout
    assert "'transformer' is spoken T R AE N S F AO R M ER" in done.stdout
    assert "regard_requests_total" in done.stdout
    for name in ("boot-heads.png", "transformer-alignment.png"):
        assert pictures.open_photo((tmp_path / name).read_bytes()).width > 400


def test_models_whose_weights_cannot_be_downloaded_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name under which they are served; the others are exported."""
    asked = list[str]()

    def run(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        asked.append(command[3])
        code = demo.NOT_DOWNLOADED if command[3] == "vit-s14" else 0
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr("examples.demo.subprocess.run", run)
    assert demo.export_models(tmp_path) == ["vit-s14", "vit-s14-518"]
    assert asked == [arguments[0] for arguments in demo.MODELS]


def test_an_export_that_fails_otherwise_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is not what it should be, say."""
    monkeypatch.setattr("examples.demo.subprocess.run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(subprocess.CalledProcessError):
        demo.export_models(tmp_path)


def test_the_exporter_and_the_demo_mean_the_same_exit_code() -> None:
    """The demo cannot import it: torch is not there at first."""
    errors = pytest.importorskip("export.errors")
    assert demo.NOT_DOWNLOADED == errors.NOT_DOWNLOADED
