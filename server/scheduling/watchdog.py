"""Notices that the engine hangs or has died, which no request can.

A run in ONNX Runtime cannot be stopped from outside, and a thread that hangs cannot be ended: all that helps is to say
so, refuse what waits, and end the process for its orchestrator to start anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

_LOOKS, _MAX_SECONDS = 10, 1.0  # looks within the limit, at least; seconds between two, at most


class Engine(Protocol):
    """What is watched: the dispatcher's instances."""

    def running(self) -> Sequence[object]:
        """Return what runs now, one and the same object as long as it does."""
        ...

    @property
    def lost(self) -> str:
        """Why an instance has ended that should not have; empty where all are there."""
        ...


async def watch_engine(
    engine: Engine, limit_seconds: float, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> str:
    """Wait until something is wrong; returns what.

    Looks are counted, not seconds: where the whole process was stopped for a while (a debugger, a paused container), a
    run has not hung.

    Args:
        engine: What is watched.
        limit_seconds: How long a run may take; 0 for as long as it likes.
        pause: Waits so many seconds.
    """
    every_seconds = min(limit_seconds / _LOOKS, _MAX_SECONDS) if limit_seconds else _MAX_SECONDS
    looks: dict[object, int] = {}
    while not engine.lost:
        looks = {run: looks.get(run, 0) + 1 for run in engine.running()}
        if limit_seconds and (max(looks.values(), default=0) - 1) * every_seconds >= limit_seconds:
            return f"a run has taken longer than {limit_seconds:g} s (--watchdog-seconds)"
        await pause(every_seconds)
    return engine.lost
