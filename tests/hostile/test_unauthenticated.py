"""Callers whom nobody knows: health is open to them, and nothing else; none of it may take much."""

import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from tests.hostile import http2
from tests.hostile.http2 import call, connected, frame, greeting, read_code
from tests.hostile.measure import IS_FULL, Attack, Target, Withstand, cases

MAX_GROWTH_MB = 256.0
SECONDS = 60.0 if IS_FULL else 1.5
CONNECTIONS = 200 if IS_FULL else 40
LARGE = b"\x0a\x80\x8e\xce\x1c" + b"a" * 60_000_000  # a string of 60 MB, in field 1
CODES = (
    "UNAUTHENTICATED", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAVAILABLE",
    "CANCELLED", "closed", "no answer",
)  # fmt: skip
WATCH, CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
SERVICES = (
    WATCH, CHECK, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/regard.v1.RegardService/Classify",
    "/regard.v1.RegardService/Attend", "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer", "/no.such.Service/Method",
)  # fmt: skip


def watch_of_a_long_name(target: Target) -> "Counter[str]":
    """40 calls of 60 KB, each of which is a name of 60 MB."""
    message, codes = greeting() + call(WATCH, LARGE, gzipped=True), Counter[str]()
    with ExitStack() as all_of_them:
        crowd = [all_of_them.enter_context(connected(target.address)) for _ in range(40 if IS_FULL else 8)]
        for connection in crowd:
            connection.sendall(message)
        for connection in crowd:
            codes[read_code(connection, SECONDS)] += 1
    return codes


def large_messages_to_every_service(target: Target) -> "Counter[str]":
    """Again and again, on many connections."""
    messages = [greeting() + call(path, LARGE, gzipped=True) for path in SERVICES]
    return crowd_of(target, messages)


def calls_that_never_end(target: Target) -> "Counter[str]":
    """As much of a message as may come at first, and no end of it."""
    part = b"\0" + (60_000_000).to_bytes(4, "big") + bytes(16_000)
    messages = []
    for path in SERVICES:
        head = frame(http2.HEADERS, http2.fields(path), flags=http2.END_HEADERS, stream=1)
        messages.append(
            greeting() + head + frame(http2.DATA, part, stream=1) + frame(http2.DATA, bytes(16_000), stream=1) * 3
        )
    return crowd_of(target, messages)


def headers_that_never_end(target: Target) -> "Counter[str]":
    """A header in frame after frame."""
    head = frame(http2.HEADERS, http2.fields(CHECK), stream=1)
    more = frame(http2.CONTINUATION, b"\0\x04name\x7f\x80\x02" + b"x" * 383, stream=1)
    return crowd_of(target, [greeting() + head + more * 2000])


def calls_reset_at_once(target: Target) -> "Counter[str]":
    """Each is begun and given up, thousands of them (CVE-2023-44487)."""
    head = http2.fields("/regard.v1.RegardService/Classify")
    both = (
        frame(http2.HEADERS, head, flags=http2.END_HEADERS, stream=stream)
        + frame(http2.RESET, (8).to_bytes(4, "big"), stream=stream)
        for stream in range(1, 4001, 2)
    )
    return crowd_of(target, [greeting() + b"".join(both)])


def many_watches(target: Target) -> "Counter[str]":
    """As many as a connection may have, of names as long as they may be, on many connections."""
    name = b"\x0a\xe8\x07" + b"n" * 1000
    streams = range(1, 2 * (50 if IS_FULL else 20), 2)
    return crowd_of(target, [greeting() + b"".join(call(WATCH, name, stream) for stream in streams)])


def silent_connections(target: Target) -> "Counter[str]":
    """Opened, and nothing said, or half a greeting."""
    return crowd_of(target, [b"", http2.PREFACE, http2.PREFACE[:10], b"GET / HTTP/1.1\r\n\r\n"])


def crowd_of(target: Target, messages: list[bytes]) -> "Counter[str]":
    """Say one of the messages on each of many connections, and again where it was answered or closed."""
    ends, codes = time.monotonic() + SECONDS, Counter[str]()

    def say(message: bytes) -> None:
        while (left := ends - time.monotonic()) > 0:
            try:
                with connected(target.address) as connection:
                    connection.sendall(message)
                    codes[read_code(connection, left)] += 1
            except ConnectionError:
                codes["closed"] += 1

    threads = [threading.Thread(target=say, args=(messages[number % len(messages)],)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


ATTACKS: tuple[Attack, ...] = (
    watch_of_a_long_name, large_messages_to_every_service, calls_that_never_end, headers_that_never_end,
    calls_reset_at_once, many_watches, silent_connections,
)  # fmt: skip
# What gRPC keeps of headers is used the next time.
MAX_LEFT_MB: dict[Attack, float] = {headers_that_never_end: MAX_GROWTH_MB, many_watches: MAX_GROWTH_MB}
UNMENDED = {
    "in a flood of calls gRPC cancels others', and the event loop is busy": (calls_reset_at_once, many_watches),
}  # fmt: skip


@pytest.fixture(autouse=True)
def unmended(attack: Attack, transport: str, request: pytest.FixtureRequest) -> None:
    """What grpcio does not withstand is tried in full, and with pytest's --runxfail."""
    for missing, attacks in UNMENDED.items():
        if transport == "grpcio" and attack in attacks:
            if not IS_FULL:
                pytest.xfail(missing)
            request.applymarker(pytest.mark.xfail(strict=False, reason=missing))


@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_unauthenticated_callers_take_little(attack: Attack, withstand: Withstand) -> None:
    """Whatever they send, on any service."""
    withstand(attack, CODES, MAX_GROWTH_MB, max_left_mb=MAX_LEFT_MB.get(attack, 128))
