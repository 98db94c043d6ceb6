"""Texts that are written beside vectors: `python -m bench.beside`, of the models that `make demo` exports.

Callers ask MiniLM for vectors, each a while after its last answer, or write words with g2p; alone, and beside many who
write, or embed, without a pause. What counts is the 99th percentile beside them against that alone, round by round.
Then words are written by the thousand: the memory of the server must not grow.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np

from bench.generation import make_words
from bench.many import spread
from bench.servers import Serving, serving_regard
from regard.v1 import regard_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub

_MODESTLY, _PAUSE_SECONDS, _GREEDILY = 4, 0.05, 8  # callers, between their calls, callers without a pause
_TEXT = "birds sing every morning where the river meets the old stone bridge"
_CALLERS, _WARM_TEXTS = 32, 2000

Call = Callable[[], Awaitable[object]]


def main() -> None:
    """Print two tables, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), help="where make demo exported them to")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each phase of a round")
    parser.add_argument("--texts", type=int, default=10_000, help="words that are written for the memory")
    args = parser.parse_args()
    with serving_regard(args.models) as serving:
        print("\n".join(asyncio.run(_measure(serving, args.rounds, args.seconds, args.texts))), flush=True)


async def _measure(serving: Serving, rounds: int, seconds: float, texts: int) -> list[str]:
    async with grpc.aio.insecure_channel(serving.address) as channel:
        stub, words = RegardServiceStub(channel), [one.text for one in make_words(512)]
        random = np.random.default_rng(0)

        async def embed() -> None:
            await stub.Embed(pb.EmbedRequest(model="minilm", text=_TEXT))

        async def write() -> None:
            await stub.GenerateText(pb.GenerateRequest(model="g2p", text=words[random.integers(len(words))]))

        lines = [
            f"| {_MODESTLY} callers who pause | p99 alone, ms | beside {_GREEDILY} who do not, ms | of alone |",
            "|---|---|---|---|",
        ]
        for name, call, other in (("embed, beside texts", embed, write), ("write, beside vectors", write, embed)):
            alone, beside = list[float](), list[float]()
            for number in range(-1, rounds):
                found = await _percentile(call, None, seconds), await _percentile(call, other, seconds)
                if number >= 0:
                    alone.append(found[0])
                    beside.append(found[1])
            ratios = spread([one / other for one, other in zip(beside, alone, strict=True)])
            medians = f"{statistics.median(alone) * 1e3:.1f} | {statistics.median(beside) * 1e3:.1f}"
            lines.append(f"| {name} | {medians} | {ratios} |")
        return [*lines, "", *await _grow(write, serving, texts)]


async def _percentile(call: Call, other: Call | None, seconds: float) -> float:
    """Return the 99th percentile of the seconds that calls take, while others ask for something else."""
    ends, took = time.perf_counter() + seconds, list[float]()

    async def ask_modestly(number: int) -> None:
        await asyncio.sleep(number * _PAUSE_SECONDS / _MODESTLY)
        while (began := time.perf_counter()) < ends:
            await call()
            took.append(time.perf_counter() - began)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def ask_greedily(call: Call) -> None:
        while time.perf_counter() < ends:
            await call()

    greedy = [ask_greedily(other) for _ in range(_GREEDILY)] if other else []
    await asyncio.gather(*(ask_modestly(number) for number in range(_MODESTLY)), *greedy)
    return float(np.percentile(took, 99))


async def _grow(write: Call, serving: Serving, texts: int) -> list[str]:
    """Write words, many at a time; returns the memory after each tenth."""

    async def ask(count: int) -> None:
        left = iter(range(count))

        async def ask_on() -> None:
            for _ in left:
                await write()

        await asyncio.gather(*(ask_on() for _ in range(_CALLERS)))

    await ask(_WARM_TEXTS)
    lines = ["| words written | proportional set size, MB |", "|---|---|", f"| 0 | {serving.memory_mb[0]:.1f} |"]
    for tenth in range(1, 11):
        await ask(texts // 10)
        lines.append(f"| {texts // 10 * tenth:,} | {serving.memory_mb[0]:.1f} |")
    return lines


if __name__ == "__main__":
    main()
