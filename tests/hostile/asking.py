"""Asks a server with bytes, whatever they are, and says how the calls ended."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from tests.hostile.measure import Target

_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


@contextmanager
def channel_of(target: Target) -> Iterator[grpc.Channel]:
    """Yield a connection of its own, on which messages may be of any size."""
    with grpc.insecure_channel(target.address, _OPTIONS) as channel:
        yield channel


def ask(target: Target, path: str, *messages: bytes, seconds: float, **how: Any) -> "Counter[str]":
    """Send messages at once, each a call; callers wait no longer than `seconds`."""
    with channel_of(target) as channel:
        method: Any = channel.unary_unary(path)
        return ends(method.future(message, metadata=target.metadata, timeout=seconds, **how) for message in messages)


def ends(calls: "Iterator[Any]") -> "Counter[str]":
    """Wait until calls have ended; all of them are begun first."""
    return Counter("OK" if call.exception() is None else call.code().name for call in list(calls))
