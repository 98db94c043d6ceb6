"""The event loop's heartbeat: how late the loop comes, and whether it comes at all.

A thread of its own counts looks without a beat between them. It counts instead of reading a clock: a container that was
paused for an hour has missed no look, since the thread was paused with the loop.
"""

import asyncio
import threading
from collections.abc import Callable

_BEAT_SECONDS = 0.1
_LOOK_SECONDS = 1.0
# What holds the loop for ten seconds is no load: nothing that a caller sends may hold it for 20 ms.
_MAX_MISSED = 10


class Heartbeat:
    """Beats in the event loop; another thread asks whether it still does."""

    def __init__(self, observe_lag: Callable[[float], None]) -> None:
        """Begin to look.

        Args:
            observe_lag: Told at each beat how much later than planned it comes, in seconds.
        """
        self._observe_lag = observe_lag
        self._missed = 0
        self._ended = threading.Event()
        threading.Thread(target=self._look, name="heartbeat", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether the loop has beaten of late."""
        return self._missed < _MAX_MISSED

    async def beat(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._missed = 0
            due = loop.time() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self._observe_lag(max(loop.time() - due, 0.0))

    def close(self) -> None:
        """Stop to look."""
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self._missed += 1
