"""What is asked of a model that writes, and a way to hold its tokens back on their way to the page."""

import asyncio
import threading

WORD = "transformer"


class HeldTokens:
    """Tokens that the explorer has received and hands on one by one, as they are let."""

    def __init__(self) -> None:
        self._let = asyncio.Semaphore(0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waited_for = threading.Event()

    async def wait(self) -> None:
        """Wait until one more is let; in the explorer's event loop."""
        self._loop = asyncio.get_running_loop()
        self._waited_for.set()
        await self._let.acquire()

    def let(self, count: int) -> None:
        """Let so many of them go on, or the end of the text."""
        assert self._waited_for.wait(30)
        assert self._loop is not None
        for _ in range(count):
            self._loop.call_soon_threadsafe(self._let.release)
