"""What a killed process has packed does not stay for ever."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.engine.abandoned import temporary_folder
from tests.golden import GOLDEN_MODELS
from tests.processes import ROOT, environment

PACKING = """
import onnxruntime, sys
from pathlib import Path
from server.engine.prepacked_weights import packed
with packed(Path(sys.argv[1]), ["model.onnx"], onnxruntime.SessionOptions) as sources:
    print(sources["model.onnx"].parent.parent, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, here and in processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def packing() -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process that has packed weights, and where."""
    command = [sys.executable, "-c", PACKING, str(GOLDEN_MODELS / "tiny-text" / "1")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_process_left_is_removed_by_the_next(folder: Path) -> None:
    """SIGKILL; one that lives keeps what it has."""
    with packing() as (killed, left), packing() as (_, used):
        assert {left.parent, used.parent} == {folder}
        killed.kill()
        killed.wait()
        assert list(left.rglob("packed.bin"))
        with temporary_folder() as own:
            assert set(folder.iterdir()) == {used, own}
        assert list(used.rglob("packed.bin"))
        assert set(folder.iterdir()) == {used}


def test_what_is_nobodys_or_somebody_elses_stays(folder: Path) -> None:
    """A folder without a lock may just be made; a link may lead anywhere; to open a pipe would wait for ever."""
    for name in ("made", "piped"):
        (folder / f"regard-packed-{name}").mkdir()
    os.mkfifo(folder / "regard-packed-piped" / "lock")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "lock").touch()
    (folder / "regard-packed-link").symlink_to(folder / "elsewhere")
    before = {path for path in folder.iterdir() if path.name != "regard-packed-piped"}
    with temporary_folder():
        pass
    assert before <= set(folder.iterdir())
    assert (folder / "elsewhere" / "lock").exists()
