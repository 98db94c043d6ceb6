"""Texts of one model that are written together, as the event loop sees them: it asks for turns, and hands on news."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

from artifact.contract import Contract
from server.engine.decoder import Decoder
from server.errors import InternalFault, ServerError, ShuttingDown
from server.generation.request import GeneratedToken
from server.generation.steps import Steps
from server.generation.turn import make_turn
from server.generation.writing import Writing
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)


async def tokens_of(writing: Writing) -> AsyncGenerator[GeneratedToken]:
    """Yield tokens as they are written, until it is over; raises what ended it otherwise."""
    while not writing.is_over:
        await writing.news.wait()
        writing.news.clear()
        for token in writing.fetch():
            yield token
    for token in writing.fetch():
        yield token
    if writing.error:
        raise writing.error


class Group:
    """Texts of one model that are written together, and the task that asks for their turns while there are any."""

    def __init__(
        self, contract: Contract, decoder: Decoder, scheduler: Scheduler, max_rows: int, metrics: Metrics
    ) -> None:
        """Begin without any.

        Args:
            contract: Of the model.
            decoder: Likewise.
            scheduler: Gives turns.
            max_rows: That are written at a time.
            metrics: Where steps are counted.
        """
        self._contract, self._scheduler, self._metrics = contract, scheduler, metrics
        self._loop = asyncio.get_running_loop()
        self.steps = Steps(decoder, max_rows, lambda: scheduler.is_wanted, self._tell_soon)
        self._driving: asyncio.Task[None] | None = None

    def join(self, writing: Writing) -> None:
        """Let a text be written."""
        self.steps.join(writing)
        if self._driving is None:
            self._driving = asyncio.create_task(self._drive())

    async def _drive(self) -> None:
        """Ask for turns until nothing is left to write."""
        try:
            while self.steps.all:
                before = self.steps.steps
                try:
                    await self._scheduler.take_turn(make_turn(self.steps, self._contract))
                except ShuttingDown as error:  # whoever joins after this is told so by a task of its own
                    self._tell(self.steps.fail_all(error))
                    return
                except ServerError as error:
                    self._tell(self.steps.fail_all(error))
                except Exception:
                    _log.exception("texts of %s cannot be written", self._contract.name)
                    self._tell(self.steps.fail_all(InternalFault()))
                self._metrics.generation_steps.labels(self._contract.name).inc(self.steps.steps - before)
        finally:
            self._driving = None

    def _tell_soon(self, writings: Sequence[Writing]) -> None:
        """Called by an instance."""
        self._loop.call_soon_threadsafe(self._tell, writings)

    def _tell(self, writings: Sequence[Writing]) -> None:
        for writing in writings:
            writing.news.set()
            if writing.is_over and not writing.is_explained:  # what is left is that its caller reads
                writing.context.account.answer()
