"""Other libraries' processes."""

from pathlib import Path

import pytest

from bench.libraries import library


def test_one_that_ends_before_it_is_ready_is_named(tmp_path: Path) -> None:
    """Rather than that a pipe broke, when it is first asked."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with (
        pytest.raises(SystemExit, match=r"Transformers: its process ended before it had loaded .*folder; see above"),
        library(python, tmp_path / "folder", "Transformers"),
    ):
        pytest.fail("entered")
