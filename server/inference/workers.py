"""Threads for what would hold the event loop up."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

Made = TypeVar("Made")

# Below these sizes the way to a worker costs more than the work.
DECODE_INLINE_BYTES = 4 * 2**10
ENCODE_INLINE_BYTES = 64 * 2**10
COPY_INLINE_BYTES = 2**20


class Workers:
    """Runs small jobs at once and large ones in a thread."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def decode(self, job: Callable[[], Made], size_bytes: float) -> Made:
        """Run what reads so many bytes; infinity for what takes long whatever its size."""
        return job() if size_bytes <= DECODE_INLINE_BYTES else await self.run(job)

    async def encode(self, job: Callable[[], Made], size_bytes: int) -> Made:
        """Run what writes so many bytes."""
        return job() if size_bytes <= ENCODE_INLINE_BYTES else await self.run(job)

    async def copy(self, job: Callable[[], Made], size_bytes: int) -> Made:
        """Run what copies so many bytes."""
        return job() if size_bytes <= COPY_INLINE_BYTES else await self.run(job)

    async def run(self, job: Callable[[], Made]) -> Made:
        """Run a job in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)
