"""Memory of a version that nobody uses any more goes back to the system."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.engine import engine as engines
from server.repository import lifecycle
from server.repository.lifecycle import Repository
from tests.golden import GOLDEN_MODELS
from tests.server.repository.folders import make


@pytest.fixture
async def repository(tmp_path: Path) -> Repository:
    """One model, loaded with one thread."""
    shutil.copytree(GOLDEN_MODELS / "tiny-text", tmp_path / "tiny-text")
    found = make(tmp_path)
    await found.start()
    return found


def _signal(event: asyncio.Event) -> Callable[[], None]:
    """What sets an event of this loop, from any thread."""
    loop = asyncio.get_running_loop()

    def signal() -> None:
        loop.call_soon_threadsafe(event.set)

    return signal


async def test_memory_is_given_back_once_the_last_version_is_freed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the C library alone: no session is left that could shrink the arena."""
    given_back = asyncio.Event()
    monkeypatch.setattr(lifecycle, "give_back_memory", _signal(given_back))
    await repository.unload("tiny-text")
    async with asyncio.timeout(30):
        await given_back.wait()


async def test_an_engine_that_is_left_shrinks_the_arena_and_gives_back_memory(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arena is one for all sessions, so any of them will do."""
    engine, done = repository.find("", "").engine, list[str]()
    shrink = engine.plain.shrink_arena

    def shrinking(*given: Any) -> None:
        done.append("arena")
        shrink(*given)

    monkeypatch.setattr(engine.plain, "shrink_arena", shrinking)
    monkeypatch.setattr(engines, "give_back_memory", lambda: done.append("system"))
    engine.give_back_memory()
    assert done == ["arena", "system"]
