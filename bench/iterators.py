"""Iterators of inputs beside the load generator: how near the client's calls bring a server to what it can."""

import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

from bench.__main__ import newest_graph
from bench.generator import frame, generate
from bench.servers import Serving, only, serving_regard
from regard import Client
from regard.v1 import regard_pb2 as rpc

Kind = Literal["texts", "images"]
_MODELS: Mapping[Kind, str] = {"texts": "minilm", "images": "vit-s14"}
_CALLERS: Mapping[Kind, int] = {"texts": 32, "images": 8}  # as bench.workloads has them
_SECONDS, _ANSWER_BYTES = 5.0, 64
_WORDS = (
    "a man is eating food while the quick brown fox jumps over the lazy dog and rain falls on the old roof of a house"
)
_SHORTEST, _LONGEST = 4, 16  # words
_PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


def measure(models: Path, counts: Mapping[str, int], rounds: int) -> Iterator[str]:
    """Yield the lines of a table, in Markdown: the rate of iterators, and that of the generator, round by round."""
    yield "| iterator | inputs/s | of the load generator's | calls of Python an input | client's CPU an input, us |"
    yield "|---|---|---|---|---|"
    for kind, model in _MODELS.items():
        if not (count := counts.get(kind, 0)):
            continue
        if not newest_graph(models, model):
            yield f"| {kind}, {model} | not exported | | | |"
            continue
        with only(models, model) as folder, serving_regard(folder) as serving, Client(serving.address) as client:
            inputs = list(make_inputs(kind, count))
            embed(client, kind, inputs[: count // 10])  # warms up
            calls = count_calls(client, kind, inputs[: count // 10]) / max(1, count // 10)
            rates, ratios, spent = [], [], []
            for _ in range(rounds):
                began, used = time.perf_counter(), time.process_time()
                embed(client, kind, inputs)
                rates.append(count / (time.perf_counter() - began))
                spent.append((time.process_time() - used) / count * 1e6)
                ratios.append(rates[-1] / generated(serving, kind, inputs))
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cost = f"{calls:.0f} | {statistics.median(spent):.0f}"
            yield f"| {count:,} {kind}, {model} | {statistics.median(rates):.0f} | {ratio} | {cost} |"


def make_inputs(kind: Kind, count: int) -> Iterator[Any]:
    """Sentences of random words, or photographs of the examples, always the same."""
    random = np.random.default_rng(0)
    photos = [path.read_bytes() for path in sorted(_PHOTOS.glob("*.jpg"))]
    for number in range(count):
        if kind == "images":
            yield photos[number % len(photos)]
        else:
            yield " ".join(random.choice(_WORDS.split(), random.integers(_SHORTEST, _LONGEST + 1)))


def embed(client: Client, kind: Kind, inputs: list[Any]) -> None:
    """Embed all by an iterator."""
    given: Any = {kind: iter(inputs)}
    for _ in client.embed_many(**given, model=_MODELS[kind], raise_errors=True):
        pass


def count_calls(client: Client, kind: Kind, inputs: list[Any]) -> int:
    """Count the calls of Python functions that it takes, in all threads."""
    count = 0

    def profile(_: FrameType, event: str, __: Any) -> None:
        nonlocal count
        count += event == "call"

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        embed(client, kind, inputs)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return count


def generated(serving: Serving, kind: Kind, inputs: list[Any]) -> float:
    """Return what the generator's callers reach, each with one of the inputs a call."""
    field, callers = kind.removesuffix("s"), _CALLERS[kind]
    requests = (rpc.EmbedRequest(model=_MODELS[kind], **{field: value}) for value in inputs[:callers])
    bodies = [frame(request.SerializeToString()) for request in requests]
    return generate(serving.embed, bodies, callers, _SECONDS, _ANSWER_BYTES).per_second
