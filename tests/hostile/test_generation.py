"""Callers who let much be written: given up, not read, or the most that one may ask for; others are answered."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub
from server.config import EMBEDDED_MODELS
from tests.faults.callers import wait_until
from tests.hostile.asking import channel_of
from tests.hostile.conftest import folder_of
from tests.hostile.http2 import call, connected, greeting
from tests.hostile.measure import IS_FULL, Attack, Target, attacked, withstanding

SECONDS = 15.0 if IS_FULL else 1.5
PLACES, CALLERS = (1056, 1200) if IS_FULL else (64, 96)  # in the server; who ask at a time
CONNECTIONS = 60 if IS_FULL else 12
MAX_GROWTH_MB, MAX_HELD_MB = (768.0, 512) if IS_FULL else (320.0, 96)
MAX_TOKENS, MAX_BEAMS, ROWS = 63, 16, 32
TEXT = "antidisestablishmentarianism" * 2
LOOK = pb.AttentionRequest()
CODES = ("OK", "RESOURCE_EXHAUSTED", "CANCELLED", "not read")


def asked(**given: Any) -> api.GenerateRequest:
    """Ask for as long a text as there may be, of which no token ends it."""
    return api.GenerateRequest(model="g2p", text=TEXT, max_tokens=MAX_TOKENS, **given)


def generations_given_up(target: Target) -> "Counter[str]":
    """Thousands of them, each cancelled after some tokens, or before the first."""
    chance, codes, over = np.random.default_rng(0), Counter[str](), time.monotonic() + SECONDS
    with channel_of(target) as channel:
        stub = RegardServiceStub(channel)
        while time.monotonic() < over:
            calls = [stub.Generate(asked(num_beams=1), metadata=target.metadata, timeout=60) for _ in range(32)]
            codes.update(_give_up(writing, int(chance.choice((0, 0, 0, 1, 5)))) for writing in calls)
    return codes


def _give_up(writing: Any, messages: int) -> str:
    """Read so many messages, and no more."""
    try:
        for _ in range(messages):
            next(writing, None)
    except grpc.RpcError:
        return str(writing.code().name)
    writing.cancel()
    return "CANCELLED"


def generations_that_nobody_reads(target: Target) -> "Counter[str]":
    """Tokens with all their attention, on connections that have no room for any."""
    request = asked(num_beams=1, alternatives=20, cross_attention=LOOK, self_attention=LOOK).SerializeToString()
    authorization = f"Bearer {target.token}"
    with ExitStack() as all_of_them:
        for _ in range(CONNECTIONS):
            connection = all_of_them.enter_context(connected(target.address))
            connection.sendall(greeting(0))
            for number in range(8):
                path = f"/regard.v1.RegardService/{'Generate' if number % 2 else 'GenerateText'}"
                connection.sendall(call(path, request, 2 * number + 1, authorization=authorization))
        threading.Event().wait(SECONDS)
    return Counter({"not read": 8 * CONNECTIONS})


def the_most_that_may_be_written(target: Target) -> "Counter[str]":
    """Beams, results, alternatives and attention, more at a time than there are places in the server."""
    most = cycle(
        (
            asked(num_beams=MAX_BEAMS, num_results=MAX_BEAMS, length_penalty=-16),
            asked(num_beams=1, alternatives=20, cross_attention=LOOK, self_attention=LOOK),
            asked(sampling=api.Sampling(temperature=1e30, top_k=74, top_p=0.999), alternatives=20),
        )
    )
    codes, over = Counter[str](), time.monotonic() + SECONDS
    with channel_of(target) as channel:
        stub = RegardServiceStub(channel)

        def ask() -> Any:
            return stub.GenerateText.future(next(most), metadata=target.metadata, timeout=120)

        waiting = [ask() for _ in range(CALLERS)]
        while time.monotonic() < over:
            threading.Event().wait(0.05)
            done = [one for one in waiting if one.done()]
            codes.update("OK" if one.exception() is None else one.code().name for one in done)
            waiting = [one for one in waiting if one not in done] + [ask() for _ in done]
        for one in waiting:
            one.cancel()
    return codes


@pytest.mark.parametrize(
    ("attack", "codes"),
    [
        (generations_given_up, CODES),
        (generations_that_nobody_reads, CODES),
        # It begins more calls than a connection may have, before it knows how many that is.
        (the_most_that_may_be_written, (*CODES, "UNAVAILABLE")),
    ],
)
def test_who_lets_much_be_written_leaves_others_their_share(
    attack: Attack,
    codes: tuple[str, ...],
    transport: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Of places, of the engine, and of memory; nothing stays of texts that are given up."""
    models = folder_of(tmp_path / "models")
    (models / "g2p").symlink_to(EMBEDDED_MODELS / "g2p")
    bounds = ("--max-queue-size", str(PLACES - ROWS), "--max-held-bytes", str(MAX_HELD_MB * 2**20))
    with attacked(transport, models, tmp_path / "clients.toml", *bounds) as hostile:
        withstanding(hostile, record_property)(attack, codes, MAX_GROWTH_MB)
        wait_until(lambda: hostile.metric("regard_generation_rows") == 0)
