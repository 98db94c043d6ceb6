"""Simulated time for the tests of scheduling."""

import time
from types import SimpleNamespace

import pytest

from server.scheduling import dispatcher, scheduler
from tests.server.fakes import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of what is scheduled, which stands at 100 until it is moved.

    Not that of the process: the event loop lives by it, and so do other tests' servers in threads of their own.
    """
    clock = Clock()
    told = SimpleNamespace(**(vars(time) | {"monotonic": clock}))
    for module in (dispatcher, scheduler):
        monkeypatch.setattr(module, "time", told)
    return clock
