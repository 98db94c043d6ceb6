"""Ends calls of gRPC's asyncio server, which has no way to do that once a message of one waits to be read."""

import asyncio
import gc
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from server.api.servicer import Task

_log = logging.getLogger(__name__)
_HOLDER = "_schedule_rpc_coro"  # gRPC's coroutine that holds a call until its caller hangs up


def end_calls(tasks: Sequence[Task]) -> None:
    """End calls; gRPC's tasks are looked through once for all of them."""
    holders = _holders_of_calls()
    for task in tasks:
        _end_call(task, holders.get(task, ()))


def _end_call(task: Task, holders: Sequence[Task]) -> None:
    """End a call.

    A second task waits for the caller to hang up, and holds the call. When both are gone, so is the call: its caller is
    sent RST_STREAM, and what was to be sent is freed. (The call that gRPC took last it holds until it takes another.)
    """
    task.cancel()
    for holder in holders:
        holder.cancel()
    if not holders:
        _log.warning("a call that was cut off stays in memory until its caller hangs up: gRPC's task for it is unknown")


def _holders_of_calls() -> dict[Task, list[Task]]:
    """Find gRPC's second task for every call, in one look at all there are."""
    holders = defaultdict[Task, list[Task]](list)
    for other in asyncio.all_tasks():
        coroutine: Any = other.get_coro()
        if getattr(coroutine, "__qualname__", "") == _HOLDER:
            for one in _known_to(other):
                if isinstance(one, asyncio.Task):
                    holders[one].append(other)
    return holders


def _known_to(task: Task) -> Iterator[object]:
    """Yield what a task's coroutine holds; compiled ones keep their variables in an object of their own."""
    for one in gc.get_referents(task.get_coro()):
        yield one
        yield from gc.get_referents(one)
