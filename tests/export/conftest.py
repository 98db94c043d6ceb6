"""What the exporter's tests share."""

from pathlib import Path

import pytest

from export.sources import Source, load_folder
from tests.golden import GOLDEN_NETWORK


@pytest.fixture
def source() -> Source:
    """The golden text network."""
    return load_folder(GOLDEN_NETWORK, name="tiny-text")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold less attention than an export does, so that half a minute of sound is not tried by every test of it."""
    monkeypatch.setattr("export.cases.MAX_WEIGHTS", 2**22)
    monkeypatch.setattr("export.longest.free_bytes", lambda: 2**29)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A models folder."""
    return tmp_path / "models"
