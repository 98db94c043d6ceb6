"""The start without network: what is missing is said, and wheels that were split are put together."""

from pathlib import Path

import pytest

from bench.gpu.start import NEEDED, install, join_pieces, main, what_is_missing, what_to_bring


def test_what_is_there_is_not_missing_and_what_is_not_is() -> None:
    """By the distribution's name."""
    assert what_is_missing(NEEDED, []) == []
    assert what_is_missing({"numpy": "numpy", "no_such.module": "no-such", "absent": "gone"}, []) == ["no-such", "gone"]


def test_what_is_missing_is_told_with_the_command_that_gets_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is started."""
    monkeypatch.setattr("bench.gpu.start.NEEDED", {"absent": "gone"})
    assert main(["--device", "cpu"]) == 2
    told = capsys.readouterr().out
    assert "missing here: gone" in told
    assert "pip download --no-deps" in told
    assert "WHEELS=DIR" in told
    assert "manylinux_2_28_x86_64" in what_to_bring(["gone"])


def test_a_build_for_cpus_is_none_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would only be said that there is no CUDA."""
    monkeypatch.setattr("bench.gpu.start.has_cuda", lambda env: False)
    assert main(["--device", "cuda"]) == 2
    assert "missing here: onnxruntime-gpu\n" in capsys.readouterr().out


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
