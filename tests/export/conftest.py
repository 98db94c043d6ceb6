"""The exporter needs torch, which a server installation does not have: without it this folder is left out."""

import importlib.util
from pathlib import Path

import pytest

if importlib.util.find_spec("torch"):
    from export.sources import Source, load_folder
    from tests.golden import GOLDEN_NETWORK

    collect_ignore_glob: list[str] = []

    @pytest.fixture
    def source() -> Source:
        """The golden text network."""
        return load_folder(GOLDEN_NETWORK, name="tiny-text")

    @pytest.fixture
    def out(tmp_path: Path) -> Path:
        """A models folder."""
        return tmp_path / "models"

else:
    collect_ignore_glob = ["test_*.py"]
