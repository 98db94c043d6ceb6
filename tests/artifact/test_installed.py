"""Versions of what is installed, and of a copy that is not."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from artifact import installed
from artifact.installed import installed_version


def absent(name: str) -> str:
    """Nothing is installed."""
    raise PackageNotFoundError(name)


def test_what_is_installed_tells_its_version() -> None:
    """As its metadata has it."""
    assert installed_version("numpy") == version("numpy")


def test_a_plain_copy_tells_what_its_pyproject_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Or why it tells none."""
    monkeypatch.setattr(installed, "version", absent)
    project = tmp_path / "pyproject.toml"
    monkeypatch.setattr(installed, "_PROJECT", project)
    assert installed_version() == "unknown: regard is not installed, and pyproject.toml: FileNotFoundError"
    project.write_text('[project]\nversion = "1.2.3"\n')
    assert installed_version() == "1.2.3"
    assert installed_version("numpy") == "unknown: not installed"
