"""The client's version, also where it is not installed."""

import importlib.metadata

import pytest

import regard


def test_a_client_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that metadata is missing."""
    assert regard.__version__ == importlib.metadata.version("regard")

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert regard.__version__ == "unknown: regard is not installed"
