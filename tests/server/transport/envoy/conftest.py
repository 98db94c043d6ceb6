"""Looks at callers that follow each other at once."""

import pytest

from server.transport.envoy import application, call


@pytest.fixture(autouse=True)
def brief_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once, and every small answer is waited for."""
    monkeypatch.setattr(application, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(application, "_LAST_SECONDS", 0.05)
    monkeypatch.setattr(application, "_ONE_OF", 1)
    monkeypatch.setattr(call, "_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(call, "_MAX_SECONDS", 0.002)
