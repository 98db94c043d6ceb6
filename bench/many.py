"""Many inputs a call: `python -m bench.many` embeds 1,000 short texts in calls of 64, and one a call by 32 callers.

Both by regard.AsyncClient, as programs do, in turn, round by round: a shared machine changes its speed from minute to
minute. What counts is the ratio within a round; the server's CPU time tells how much of it is work that was saved.

Then iterators of texts and of photographs (`--texts`, `--photos`), as `regard embed` gives the client, beside what the
load generator of the benches reaches with one input a call; and what an input costs the client in calls of Python.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import iterators
from bench.__main__ import newest_graph
from bench.servers import only, serving_regard
from regard import AsyncClient, HiddenStatesRequest

MODEL, TEXTS, SINGLE_CALLERS = "minilm", 1000, 32
_WORDS = (
    "a man is eating food the quick brown fox jumps over lazy dog while children play in park and rain falls softly on "
    "old roof of house near river where birds sing every morning before sun comes up"
)
_SHORTEST, _LONGEST = 4, 16  # words
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Way:
    """How all texts are embedded: so many callers at a time, so many texts a call, with hidden states or not."""

    callers: int
    texts: int
    hidden_states: HiddenStatesRequest | None = None

    @property
    def title(self) -> str:
        """For the table."""
        who = f"{self.callers} caller{'s' if self.callers > 1 else ''}"
        what = f"{who}, {'a text' if self.texts == 1 else f'{self.texts} texts'} a call"
        states = self.hidden_states
        return what if states is None else f"{what}, {states.pooling} of layer {states.layers[0]}"


WAYS = (Way(SINGLE_CALLERS, 1), Way(1, 64), Way(2, 64), Way(4, 64))


def make_texts() -> list[str]:
    """Sentences of random words, always the same."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(_WORDS.split(), random.integers(_SHORTEST, _LONGEST + 1))) for _ in range(TEXTS)]


def main() -> None:
    """Compare calls of several texts with single ones, and iterators with the load generator."""
    parser = arguments("python -m bench.many", __doc__ or "")
    parser.add_argument("--texts", type=int, default=10_000, help="Of an iterator; 0 leaves them out.")
    parser.add_argument("--photos", type=int, default=1000, help="Likewise.")
    args = parser.parse_args()
    run(parser, args, WAYS)
    print(
        "\n".join(iterators.measure(args.models, {"texts": args.texts, "images": args.photos}, args.rounds)), flush=True
    )


def arguments(program: str, description: str) -> argparse.ArgumentParser:
    """What the program is told."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=7)
    return parser


def run(parser: argparse.ArgumentParser, args: argparse.Namespace, ways: Sequence[Way]) -> None:
    """Print a table of some ways, in Markdown."""
    if not newest_graph(args.models, MODEL):
        parser.exit(1, f"{args.models}/{MODEL} is not there: make demo exports it\n")
    with only(args.models, MODEL) as folder, serving_regard(folder) as serving:
        print("\n".join(asyncio.run(measure(serving.address, serving.pid, args.rounds, ways))), flush=True)


async def measure(address: str, pid: int, rounds: int, ways: Sequence[Way]) -> list[str]:
    """Embed all texts in each way, several times; returns the lines of the table, which compares with the first."""
    rates, spent = defaultdict[Way, list[float]](list), defaultdict[Way, list[float]](list)
    async with AsyncClient(address) as client:
        for number in range(-1, rounds):
            for way in ways if number % 2 else ways[::-1]:
                before, began = cpu_seconds(pid) + time.process_time(), time.perf_counter()
                await embed_all(client, make_texts(), way)
                seconds = time.perf_counter() - began
                if number >= 0:  # the first round warms up
                    rates[way].append(TEXTS / seconds)
                    spent[way].append(cpu_seconds(pid) + time.process_time() - before)
    lines = [f"| 1,000 texts of 4 to 16 words, MiniLM | texts/s | of {ways[0].title} | CPU, s |", "|---|---|---|---|"]
    for way in ways:
        ratios = [mine / first for mine, first in zip(rates[way], rates[ways[0]], strict=True)]
        figures = f"{statistics.median(rates[way]):.0f} | {spread(ratios)} | {statistics.median(spent[way]):.2f}"
        lines.append(f"| {way.title} | {figures} |")
    return lines


def spread(ratios: Sequence[float]) -> str:
    """The median of several rounds, and from where to where they went."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


async def embed_all(client: AsyncClient, texts: Sequence[str], way: Way) -> None:
    """Embed every text once; callers take the next as soon as they are answered."""
    parts = iter([texts[start : start + way.texts] for start in range(0, len(texts), way.texts)])
    ask = _single(client, way) if way.texts == 1 else _many(client, way)
    await asyncio.gather(*(_call(parts, ask) for _ in range(way.callers)))


async def _call(parts: Iterator[Sequence[str]], ask: Callable[[Sequence[str]], Awaitable[None]]) -> None:
    for part in parts:
        await ask(part)


def _single(client: AsyncClient, way: Way) -> Callable[[Sequence[str]], Awaitable[None]]:
    async def ask(part: Sequence[str]) -> None:
        await client.embed(text=part[0], model=MODEL, hidden_states=way.hidden_states)

    return ask


def _many(client: AsyncClient, way: Way) -> Callable[[Sequence[str]], Awaitable[None]]:
    async def ask(part: Sequence[str]) -> None:
        answers = await client.embed_many(texts=part, model=MODEL, hidden_states=way.hidden_states)
        list(answers)  # raises the error of any

    return ask


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far; see proc(5), stat."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


if __name__ == "__main__":
    main()
