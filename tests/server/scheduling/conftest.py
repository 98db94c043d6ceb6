"""Simulated time for the tests of scheduling."""

import time
from collections.abc import Iterator

import pytest

from tests.server.fakes import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The time of what is scheduled, which stands at 100 until it is moved."""
    clock = Clock()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        yield clock
