"""The start without network: what is missing is said, and wheels that were split are put together."""

import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.gpu.start import (
    NEEDED,
    bounds,
    download,
    has_cuda,
    install,
    is_on_cpu,
    is_within,
    join_pieces,
    main,
    what_is_missing,
    what_to_bring,
)


def test_what_is_there_is_not_missing_and_what_is_not_is() -> None:
    """By the distribution's name."""
    env = dict(os.environ)
    assert what_is_missing(NEEDED, env) == ([], "")
    absent = {"numpy": "numpy", "no_such.module": "no-such", "absent": "gone"}
    assert what_is_missing(absent, env) == (["no-such", "gone"], "")


def test_another_version_than_is_wanted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the one that is here."""
    monkeypatch.setattr("bench.gpu.start.bounds", lambda: {"numpy": ">=99,<100"})
    assert what_is_missing({"numpy": "numpy"}, dict(os.environ)) == (
        ["numpy>=99,<100"],
        f"numpy {version('numpy')} is here",
    )


@pytest.mark.parametrize(
    ("found", "bound", "ok"),
    [
        ("1.31.1", ">=1.31,<1.32", True),
        ("1.31.0", ">=1.31,<1.32", True),
        ("1.32.0", ">=1.31,<1.32", False),
        ("1.30.9", ">=1.31,<1.32", False),
        ("2", "", True),
    ],
)
def test_versions_are_compared_by_their_numbers(found: str, bound: str, ok: bool) -> None:
    """1.32.0 is no 1.31, 1.9 is before 1.31."""
    assert is_within(found, bound) is ok


def test_all_that_pyproject_wants_is_looked_for() -> None:
    """Of the server and the client, each with bounds that are compared."""
    wanted = bounds()
    assert set(wanted) - {"onnxruntime"} <= set(NEEDED.values())
    assert all(re.fullmatch(r"(>=|<)[\d.]+", one) for bound in wanted.values() for one in bound.split(","))


def test_what_is_missing_is_told_with_the_command_that_gets_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is started."""
    monkeypatch.setattr("bench.gpu.start.NEEDED", {"absent": "gone"})
    assert main(["--device", "cpu"]) == 2
    told = capsys.readouterr().out
    assert "missing here: gone" in told
    assert "pip download --no-deps" in told
    assert "--constraint constraints.txt gone" in told
    assert "WHEELS=DIR" in told


def test_the_documentation_has_the_same_command() -> None:
    """For all that may be missing."""
    names = [name + bounds().get(name, "") for name in NEEDED.values()]
    quoted = what_to_bring(names).splitlines()[0].partition("here: ")[2]
    page = Path("docs/gpu.md").read_text().replace("\\\n", " ")
    assert download(quoted, "3.12") in " ".join(page.split())


def test_a_build_for_cpus_is_none_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would only be said that there is no CUDA."""
    monkeypatch.setattr("bench.gpu.start.has_cuda", lambda env: (["onnxruntime-gpu>=1.31"], "why"))
    assert main(["--device", "cuda"]) == 2
    assert "missing here: 'onnxruntime-gpu>=1.31' (why)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise ImportError('libfine.so: not found')", "ImportError: libfine.so: not found"),
        ("def get_available_providers(): return ['CPUExecutionProvider']", "is here with CPUExecutionProvider"),
    ],
)
def test_why_a_build_cannot_use_cuda_is_told(tmp_path: Path, program: str, why: str) -> None:
    """What it raises, or what it has."""
    (tmp_path / "onnxruntime.py").write_text(program)
    missing, told = has_cuda(os.environ | {"PYTHONPATH": str(tmp_path)})
    assert missing == [f"onnxruntime-gpu{bounds()['onnxruntime-gpu']}"]
    assert told.endswith(why)


@pytest.mark.parametrize(
    ("flags", "on_cpu"),
    [(["--device", "cpu:0"], True), (["--device=auto"], True), (["--device", "cuda"], False), ([], False)],
)
def test_on_a_cpu_no_cuda_is_needed(flags: list[str], on_cpu: bool) -> None:
    """As with `auto`, which takes what there is."""
    assert is_on_cpu(flags) is on_cpu


def test_pieces_of_a_wheel_are_joined_in_their_order(tmp_path: Path) -> None:
    """As `split` names them."""
    for piece, content in (("ab", b"two"), ("aa", b"one"), ("ac", b"three")):
        (tmp_path / f"onnxruntime_gpu-1-cp312.whl.part{piece}").write_bytes(content)
    join_pieces(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "onnxruntime_gpu-1-cp312.whl").read_bytes() == b"onetwothree"


def test_a_folder_without_wheels_is_refused(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(SystemExit, match=f"--wheels: {tmp_path}: no wheel there"):
        install(tmp_path, tmp_path / "out")
