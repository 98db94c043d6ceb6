"""The calls that have begun, until they are over: what each holds, and the end of those whose callers stand still.

A transport runs a call in a task of its own (servicer.py), from its headers until its status is sent or its caller has
hung up: in it a message is read, the method runs, and a single answer waits until its caller has read it.
"""

import asyncio
import logging
import time
from collections.abc import Hashable
from typing import Literal

from server.api.servicer import EndCalls, Task
from server.errors import TooBusy
from server.ledger import COPIES, Account, Ledger
from server.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_MAX_LINES = 10  # of those cut off at one look
_SLOW_SECONDS = 1.0  # a message that is not there by then counts as large as one may be

Waiting = Literal["", "request", "answer"]


class Call:
    """One call.

    Attributes:
        account: What is held for it.
        method: Its name, once it is known.
        received_bytes: Size of the message that was read last.
        waits_for: What its caller is to send or to read now; nothing for nothing.
        is_counted: Whether what has come of its message is counted as it comes, whatever its transport.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.account = Account(ledger)
        self.method = ""
        self.received_bytes = 0
        self.waits_for: Waiting = ""
        self.is_counted = False
        self._since = 0.0

    def wait_for(self, what: Waiting) -> None:
        """Say what the call waits for its caller to send or to read from now on; nothing for nothing."""
        self.waits_for, self._since = what, time.monotonic()

    def waited_seconds(self, now: float) -> float:
        """Say how long it has."""
        return now - self._since


class Calls:
    """All calls; lives in the event loop.

    Attributes:
        ledger: Where it is counted what they hold.
        metrics: Where it is counted who was cut off.
    """

    def __init__(
        self, ledger: Ledger, metrics: Metrics, unseen_bytes: int, max_seconds: float, end_calls: EndCalls
    ) -> None:
        """Begin without any.

        Args:
            ledger: Where it is counted what they hold.
            metrics: Where it is counted who was cut off.
            unseen_bytes: What may have come of a message before it is there, and is not counted as it comes.
            max_seconds: How long a caller may take to send a request or to read an answer.
            end_calls: The transport's way to cut them off.
        """
        self.ledger = ledger
        self._end_calls = end_calls
        self._unseen_bytes, self._max_seconds = unseen_bytes, max_seconds
        self.metrics = metrics
        self._calls = dict[Task, Call]()
        metrics.held_bytes.set_function(lambda: float(ledger.held_bytes))
        metrics.in_flight.set_function(lambda: float(ledger.requests))

    def begin(self, *, reads: bool) -> None:
        """Take note of the call of the current task; it `reads` its one message now, or a stream of them later."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- gRPC's own
        call = self._calls[task] = Call(self.ledger)
        if reads:
            call.wait_for("request")
        task.add_done_callback(self._end)

    def current(self) -> Call:
        """Return the call of the current task; one that nobody waits for where gRPC has not begun it."""
        task = asyncio.current_task()
        return self._calls.get(task) or Call(self.ledger) if task else Call(self.ledger)

    def of(self, task: Task) -> Call | None:
        """Return the call of a task; None where it has not begun."""
        return self._calls.get(task)

    def belong_to(self, client: Hashable) -> None:
        """Say whose the current call is, whether or not it has begun, before its message is read.

        Raises:
            TooBusy: Too much is held for the client.
        """
        task = asyncio.current_task()
        if task is not None and (call := self._calls.get(task)):
            call.account.belong_to(client)
            call.account.check()
        else:
            self.ledger.check_client(client, 0)

    def received(self, size_bytes: int) -> None:
        """Take note of a message that the current call has read."""
        task = asyncio.current_task()
        if task is None or (call := self._calls.get(task)) is None:
            return
        call.received_bytes = size_bytes
        if call.waits_for == "request":  # the only one: gRPC keeps its bytes until the call is over
            call.waits_for = ""
            call.account.hold("request", COPIES * size_bytes)

    async def watch(self) -> None:
        """Look after callers who stand still, for ever."""
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._max_seconds / 2))
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Cut off who takes too long; a message that is long in coming counts as all that may have come of it.

        Where there is no room for that beside what others hold, its call is cut off, too.
        """
        found = [(task, why) for task, call in self._calls.items() if (why := self._why_cut_off(call, now))]
        for number, (task, why) in enumerate(found):
            self._cut_off(task, why, logs=number < _MAX_LINES)
        if found:
            self._end_calls([task for task, _ in found])
        if len(found) > _MAX_LINES:
            _log.warning("%d more calls were cut off", len(found) - _MAX_LINES)

    def _why_cut_off(self, call: Call, now: float) -> str:
        """Say why a call is cut off now; nothing where it is not."""
        what, seconds = call.waits_for, call.waited_seconds(now)
        if what and seconds > self._max_seconds:
            done = "sent its request" if what == "request" else "read its answer"
            return f"has not {done} for {self._max_seconds:g} s (--max-stall-seconds)"
        if what == "request" and self._unseen_bytes and not call.is_counted and seconds > _SLOW_SECONDS:
            try:
                call.account.reserve(request=self._unseen_bytes)
            except TooBusy as error:
                return f"takes long to send its request, and {error}"
        return ""

    def _cut_off(self, task: Task, why: str, *, logs: bool) -> None:
        call = self._calls[task]
        if logs:
            _log.warning("%s: cut off, its caller %s", call.method or "a call", why)
        self.metrics.cut_off.labels(call.waits_for).inc()
        call.wait_for("")
        call.account.close()

    def _end(self, task: Task) -> None:
        self._calls.pop(task).account.close()
