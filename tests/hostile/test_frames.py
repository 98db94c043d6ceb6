"""Callers who speak HTTP/2 as no library does: floods of frames, answers left unread, messages behind a turn."""

import gzip
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from regard.v1 import regard_pb2 as api
from tests.hostile import http2
from tests.hostile.http2 import call, connected, frame, greeting, read_code
from tests.hostile.measure import IS_FULL, Attack, Target, Withstand, cases

SECONDS = 20.0 if IS_FULL else 1.0
CONNECTIONS = 40 if IS_FULL else 10
STREAMS = 1000 if IS_FULL else 200
MAX_GROWTH_MB = 512.0 if IS_FULL else 160.0
CHECK, EMBED = "/grpc.health.v1.Health/Check", "/regard.v1.RegardService/Embed"
CODES = ("closed", "no answer", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "not read", "OK", "UNKNOWN")
PART = 16_000


def on_many_connections(target: Target, say: Callable[[socket.socket, float], str], seconds: float) -> "Counter[str]":
    """Say something on many connections, again and again until time is over.

    Args:
        target: Whom to.
        say: Speaks on a connection until a time of the monotonic clock at most; returns how that ended.
        seconds: A connection's patience.
    """
    over, codes = time.monotonic() + SECONDS, Counter[str]()

    def go_on() -> None:
        while time.monotonic() < over:
            try:
                with connected(target.address) as connection:
                    connection.settimeout(seconds)
                    codes[say(connection, over)] += 1
            except TimeoutError:  # the server takes no more
                codes["no answer"] += 1
            except ConnectionError:
                codes["closed"] += 1

    threads = [threading.Thread(target=go_on) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def flood(target: Target, what: bytes, *, before: bytes = b"") -> "Counter[str]":
    """Say the same again and again on many connections, and read nothing."""

    def say(connection: socket.socket, over: float) -> str:
        connection.sendall(greeting() + before)
        while time.monotonic() < over:
            connection.sendall(what)
        return "not read"

    return on_many_connections(target, say, 0.2)


def pings(target: Target) -> "Counter[str]":
    """Each asks for an answer (CVE-2019-9512)."""
    return flood(target, frame(6, bytes(8)) * 1000)


def settings(target: Target) -> "Counter[str]":
    """Likewise (CVE-2019-9515)."""
    return flood(target, frame(http2.SETTINGS) * 1000)


def empty_frames(target: Target) -> "Counter[str]":
    """Of a message that does not grow (CVE-2019-9518)."""
    head = frame(http2.HEADERS, http2.fields(EMBED), flags=http2.END_HEADERS, stream=1)
    return flood(target, frame(http2.DATA, stream=1) * 1000, before=head)


def window_updates(target: Target) -> "Counter[str]":
    """Of room for nothing that is sent."""
    return flood(target, frame(8, (1).to_bytes(4), stream=0) * 1000)


def unread_little_answers(target: Target) -> "Counter[str]":
    """As many as there may be streams, of an answer each for which there is no room."""
    request = api.EmbedRequest(model="tiny-text", text="the cat").SerializeToString()
    authorization = f"Bearer {target.token}"
    streams = range(1, 2 * STREAMS, 2)
    calls = b"".join(call(EMBED, request, stream, authorization=authorization) for stream in streams)
    return flood(target, frame(8, (1).to_bytes(4), stream=0), before=greeting(0)[len(http2.PREFACE) :] + calls)


def messages_behind_a_turn(target: Target) -> "Counter[str]":
    """Large ones to health, which reads one at a time: the others are not received meanwhile."""
    packed = gzip.compress(os.urandom(2**18))
    body = b"\1" + (2**25).to_bytes(4) + packed
    parts = b"".join(frame(http2.DATA, body[begin : begin + PART], stream=1) for begin in range(0, len(body), PART))
    head = frame(http2.HEADERS, http2.fields(CHECK, grpc_encoding="gzip"), flags=http2.END_HEADERS, stream=1)

    def say(connection: socket.socket, over: float) -> str:
        connection.sendall(greeting() + head + parts * 4)
        return read_code(connection, over - time.monotonic())

    return on_many_connections(target, say, 0.5)


ATTACKS: tuple[Attack, ...] = (
    pings, settings, empty_frames, window_updates, unread_little_answers, messages_behind_a_turn,
)  # fmt: skip


@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_frames_take_little(attack: Attack, withstand: Withstand) -> None:
    """Of memory, and of others' time."""
    withstand(attack, CODES, MAX_GROWTH_MB, max_left_mb=MAX_GROWTH_MB)
