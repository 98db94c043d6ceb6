"""Notices that the engine hangs or has died, which no request can.

A run in ONNX Runtime cannot be stopped from outside, and a thread that hangs cannot be ended: all that helps is to say
so, refuse what waits, and end the process for its orchestrator to start anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

_LOOKS, _MAX_SECONDS = 10, 1.0  # looks within the limit, at least; seconds between two, at most
_PATIENCE = 10  # times as long as was expected: a machine may be that busy


class Run(Protocol):
    """What runs."""

    @property
    def expected_seconds(self) -> float:
        """How long it should take."""
        ...


class Engine(Protocol):
    """What is watched: the dispatcher's instances."""

    def running(self) -> Sequence[Run]:
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
        limit_seconds: How long a run may take, or ten times as long as it was expected to; 0 for as long as it likes.
        pause: Waits so many seconds.
    """
    every_seconds = min(limit_seconds / _LOOKS, _MAX_SECONDS) if limit_seconds else _MAX_SECONDS
    looks: dict[Run, int] = {}
    while not engine.lost:
        looks = {run: looks.get(run, 0) + 1 for run in engine.running()}
        for run, count in looks.items():
            allowed = max(limit_seconds, run.expected_seconds * _PATIENCE)
            if limit_seconds and (count - 1) * every_seconds >= allowed:
                return f"a run has taken longer than {allowed:g} s (--watchdog-seconds)"
        await pause(every_seconds)
    return engine.lost
