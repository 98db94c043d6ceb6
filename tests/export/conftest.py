"""What the exporter's tests share."""

from pathlib import Path

import pytest

from export.sources import Source, load_folder
from tests.golden import GOLDEN_NETWORK


@pytest.fixture
def source() -> Source:
    """The golden text network."""
    return load_folder(GOLDEN_NETWORK, name="tiny-text")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A models folder."""
    return tmp_path / "models"
