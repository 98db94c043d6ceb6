"""A generator that writes what a test wants, in servers whose model claims to write."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server import app
from server.context import RpcContext
from server.generation.request import (
    FinishReason,
    GeneratedText,
    GeneratedToken,
    GenerationEnd,
    GenerationEvent,
    GenerationRequest,
    GenerationStart,
    GenerationTimings,
    StepAttention,
)
from server.repository.loading import LoadedModel, load_model
from tests.server.generation.fakes import END, GENERATION, letters

CROSS = np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)
MEAN = np.array([0.5, 0.25, 0.25], dtype=np.float32)
ATTENTION = (StepAttention("cross", 1, (0, 3), False, CROSS), StepAttention("self", 2, (0, 1, 2, 3), True, MEAN))
FIRST = GeneratedToken(3, "c", -0.5, ((3, -0.5), (4, -1.5)), ATTENTION)
LAST = GeneratedToken(END, "", -0.25)
TIMINGS = GenerationTimings(decode_ns=1, encode_ns=2, first_token_ns=3, total_ns=4, steps=5)


def whole(reason: FinishReason = "end") -> GeneratedText:
    """All that is written; as texts that are not streamed, its tokens do not say what they add."""
    return GeneratedText((dataclasses.replace(FIRST, text=""), LAST), "c", -0.75, reason)


class FakeGenerator:
    """Writes what a test wants, and remembers what it was asked.

    Attributes:
        requests: All of them, with their context and whether they stream.
        results: Of the end.
        tokens: That are streamed; told one at a time while `gate` is closed.
        error: Is raised behind the tokens.
        closed: Set when a text is no longer wanted.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.requests: list[tuple[GenerationRequest, RpcContext, bool]] = []
        self.results: tuple[GeneratedText, ...] = (whole(),)
        self.tokens: tuple[GeneratedToken, ...] = (FIRST, LAST)
        self.error: Exception | None = None
        self.gate = asyncio.Semaphore(1000)
        self.closed = asyncio.Event()

    async def generate(
        self, request: GenerationRequest, context: RpcContext, *, streams: bool
    ) -> AsyncGenerator[GenerationEvent]:
        """Write."""
        self.requests.append((request, context, streams))
        closed = self.closed  # of this test
        try:
            assert request.model.reader
            yield GenerationStart(request.model.reader.read(request.text, truncate=True, max_bytes=1000))
            for token in self.tokens if streams else ():
                await self.gate.acquire()
                yield _as_wanted(token, request)
            if self.error:
                raise self.error
            yield GenerationEnd(tuple(_whole_as_wanted(result, request) for result in self.results), TIMINGS, "one")
        finally:
            closed.set()


def _as_wanted(token: GeneratedToken, request: GenerationRequest) -> GeneratedToken:
    return token if request.attention else dataclasses.replace(token, attention=())


def _whole_as_wanted(result: GeneratedText, request: GenerationRequest) -> GeneratedText:
    return dataclasses.replace(result, tokens=tuple(_as_wanted(token, request) for token in result.tokens))


def stand_in(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    """Let one stand in for that of servers that start from now on; tiny-text then claims to write."""
    fake = FakeGenerator()

    def load(folder: Path, *others: Any) -> LoadedModel:
        model = load_model(folder, *others)
        if model.name != "tiny-text":
            return model
        contract = model.contract.model_copy(update={"generation": GENERATION})
        return dataclasses.replace(model, contract=contract, writer=letters())

    monkeypatch.setattr(app, "Generator", lambda *_: fake)
    monkeypatch.setattr(app, "load_model", load)
    return fake


def fields_of(request: GenerationRequest) -> dict[str, Any]:
    """What a request says, to be compared."""
    return {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
