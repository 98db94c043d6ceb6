"""Generation: `python -m bench.generation` lets texts be written by regard, and by the same graphs in plain loops.

The loops run ONNX Runtime alone on all CPUs, their caches written in place as regard's: one text at a time, and batches
of 32 that end with their longest text. All are asked in turn, round by round; what counts is the ratio within a round.
Callers take whole texts (GenerateText), as the loops do, and tokens one by one (Generate) where it says so.

The embedded g2p spells words. `--marian FOLDER` measures a Marian of 6 and 6 layers of 512 with random weights, which
is made in FOLDER once and writes 8 to 48 tokens a text; beside it, with `--libraries-python PATH`, the libraries
transformers and CTranslate2, which PATH must have: pip install torch transformers ctranslate2==4.8.5.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import numpy as np

from artifact.contract import CONTRACT_FILE, read_contract
from artifact.dtypes import Array
from artifact.files import versions
from artifact.text import TextReader
from bench import marian
from bench.libraries import Library, library
from bench.many import spread
from bench.servers import serving_regard
from regard.v1 import regard_pb2 as pb
from regard.v1 import types_pb2 as types
from regard.v1.regard_pb2_grpc import RegardServiceStub
from server.engine.device import choose_devices, share_cpus
from server.engine.engine import Engine
from server.generation.caches import Caches

_ONE = "regard, 1 caller"
BATCH, CALLERS, TEXTS, LARGE_TEXTS = 32, 32, 512, 128
_EMBEDDED = Path(__file__).parent.parent / "server" / "embedded"
_LETTERS, _SHORTEST, _LONGEST = "aeioubcdfghklmnprstvwyz", 3, 14
_FEWEST_WORDS, _MOST_WORDS, _FEWEST_TOKENS = 4, 40, 8


@dataclass(frozen=True)
class Wanted:
    """What is to be written.

    Attributes:
        text: That is read.
        max_tokens: After which it ends; 0 for the model's.
    """

    text: str
    max_tokens: int = 0


def main() -> None:
    """Print a table, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.generation", description=__doc__)
    parser.add_argument("--marian", type=Path, help="measure a large model, which lies or is made in this folder")
    parser.add_argument("--libraries-python", type=Path, help="measure other libraries, which this Python has, too")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with ExitStack() as started:
        libraries: list[Library] = []
        if args.marian:
            folder, models = marian.make_marian(args.marian)
            name, texts = marian.NAME, make_word_lists(LARGE_TEXTS)
            if args.libraries_python:
                kinds = ("transformers", "CTranslate2")
                libraries = [started.enter_context(library(args.libraries_python, folder, kind)) for kind in kinds]
        else:
            name, models, texts = "g2p", _EMBEDDED, make_words(TEXTS)
        loop = PlainLoop(models / name / str(max(versions(models / name))))
        serving = started.enter_context(serving_regard(models))
        print("\n".join(asyncio.run(measure(serving.address, name, loop, libraries, args.rounds, texts))), flush=True)


def make_words(count: int) -> list[Wanted]:
    """Words of random letters, always the same."""
    random = np.random.default_rng(0)
    sizes = random.integers(_SHORTEST, _LONGEST + 1, count)
    return [Wanted("".join(random.choice(list(_LETTERS), size))) for size in sizes]


def make_word_lists(count: int) -> list[Wanted]:
    """Lists of random words, of which texts of random length are written, always the same."""
    random = np.random.default_rng(0)
    return [
        Wanted(
            " ".join(f"w{word}" for word in random.integers(1, marian.VOCABULARY - 1, size)),
            int(random.integers(_FEWEST_TOKENS, marian.MAX_TOKENS + 1)),
        )
        for size in random.integers(_FEWEST_WORDS, _MOST_WORDS + 1, count)
    ]


class PlainLoop:
    """An artifact's graphs without a server: on all CPUs."""

    def __init__(self, folder: Path) -> None:
        contract = read_contract(folder / CONTRACT_FILE)
        assert contract.generation and contract.text  # noqa: S101 -- an encoder-decoder
        cpus, devices = len(os.sched_getaffinity(0)), choose_devices("cpu")
        engine = Engine(folder, contract, devices, share_cpus(cpus, devices, 1))
        assert engine.decoder is not None  # noqa: S101 -- an encoder-decoder
        self._encoder, self._decoder, self._generation = engine.plain, engine.decoder, contract.generation
        self._reader = TextReader(folder / contract.text.tokenizer_file, contract.text.max_tokens)
        self.run_seconds: list[float] = []

    def read(self, texts: Sequence[Wanted]) -> list[list[int]]:
        """Return the tokens of each."""
        return [list(map(int, self._reader.read(one.text, truncate=False, max_bytes=1 << 20).ids)) for one in texts]

    def write(self, texts: Sequence[Wanted]) -> list[list[int]]:
        """Write texts together, greedily, until the longest has ended; returns the tokens of each."""
        ids = self.read(texts)
        longest, (start,) = max(map(len, ids)), self._generation.beginnings()[0]
        tokens, mask = np.zeros((len(ids), longest), np.int64), np.zeros((len(ids), longest), np.int64)
        for row, one in enumerate(ids):
            tokens[row, : len(one)], mask[row, : len(one)] = one, 1
        names = self._generation.source_names
        source = self._encoder.run({"input_ids": tokens, "attention_mask": mask}, names)
        caches = Caches(self._decoder, self._generation)
        for row, one in enumerate(ids):
            caches.add([np.asarray(source[name])[row : row + 1, :, : len(one)] for name in names], 1)
            caches.set_token(row, start)
        return self._steps(caches, [one.max_tokens or self._generation.max_tokens for one in texts])

    def _steps(self, caches: Caches, limits: Sequence[int]) -> list[list[int]]:
        written, going = [list[int]() for _ in limits], set(range(len(limits)))
        while going:
            began = time.perf_counter()
            logits: Array = caches.step()
            self.run_seconds.append(time.perf_counter() - began)
            for row, token in enumerate(logits.argmax(axis=1).tolist()):
                caches.set_token(row, token)
                if row in going:
                    written[row].append(token)
                    if token in self._generation.end_tokens or len(written[row]) == limits[row]:
                        going.remove(row)
        return written


Way = Callable[[], Awaitable[int]]


async def measure(
    address: str,
    model: str,
    loop: PlainLoop,
    libraries: Sequence[Library],
    rounds: int,
    texts: Sequence[Wanted],
) -> list[str]:
    """Let all texts be written in each way, several times; returns the lines of the table.

    Raises:
        ValueError: A text differs.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        callers = Callers(RegardServiceStub(channel), model, texts)
        await callers.check(loop)
        for one in libraries:
            check(one, loop, texts)
        few = texts[: len(texts) // 8]
        cross = types.AttentionRequest(layers=[-1], head_reduction=types.HEAD_REDUCTION_MEAN)
        ways: dict[str, Way] = {
            "plain loop, one text at a time": lambda: asyncio.to_thread(_alone, loop, few),
            f"plain loop, batches of {BATCH}": lambda: asyncio.to_thread(_batches, loop, texts),
            _ONE: lambda: callers.run(1, few),
            f"regard, {CALLERS} callers": lambda: callers.run(CALLERS, texts),
            f"regard, {CALLERS} callers, tokens one by one": lambda: callers.stream(CALLERS, texts),
            f"regard, {CALLERS} callers, cross row of one layer": lambda: callers.run(CALLERS, texts, cross),
        }
        for one in libraries:
            ways[f"{one.name}, batches of {BATCH}"] = partial(asyncio.to_thread, _by, one, loop, texts)
        rates, firsts, between = await _measure(ways, callers, rounds)
    return _table(rates, firsts, between, loop)


async def _measure(
    ways: dict[str, Way], callers: "Callers", rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    firsts: dict[str, list[float]] = {name: [] for name in ways}
    between = list[float]()  # of one caller
    for number in range(-1, rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            callers.firsts.clear()
            callers.between.clear()
            began = time.perf_counter()
            tokens = await ways[name]()
            if number >= 0:
                rates[name].append(tokens / (time.perf_counter() - began))
                firsts[name] += callers.firsts
                between += callers.between if name == _ONE else []
    return rates, firsts, between


def _alone(loop: PlainLoop, texts: Sequence[Wanted]) -> int:
    loop.run_seconds.clear()
    return sum(len(loop.write([text])[0]) for text in texts)


def _parts(texts: Sequence[Wanted]) -> list[Sequence[Wanted]]:
    return [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]


def _batches(loop: PlainLoop, texts: Sequence[Wanted]) -> int:
    return sum(len(written) for part in _parts(texts) for written in loop.write(part))


def _by(other: Library, loop: PlainLoop, texts: Sequence[Wanted]) -> int:
    """Let a library write, as long as the longest of a batch; what is written behind the end of one counts nothing."""
    tokens = 0
    for part in _parts(texts):
        written = other.write(loop.read(part), max(one.max_tokens for one in part))
        tokens += sum(min(len(found), one.max_tokens) for found, one in zip(written, part, strict=True))
    return tokens


def check(other: Library, loop: PlainLoop, texts: Sequence[Wanted]) -> None:
    """Compare some of a library's texts with the loop's.

    Raises:
        ValueError: One differs.
    """
    part = texts[:BATCH]
    written = other.write(loop.read(part), max(one.max_tokens for one in part))
    for text, found, expected in zip(part, written, loop.write(part), strict=True):
        if found[: len(expected)] != expected:
            raise ValueError(f"{other.name}, {text.text!r}: {found}; the loop writes {expected}")


class Callers:
    """Callers of a server; `firsts` has seconds to first tokens, `between` those between two, as told by it."""

    def __init__(self, stub: RegardServiceStub, model: str, texts: Sequence[Wanted]) -> None:
        self._stub, self._model, self._texts = stub, model, texts
        self.firsts: list[float] = []
        self.between: list[float] = []

    def _request(self, wanted: Wanted, attention: types.AttentionRequest | None = None) -> pb.GenerateRequest:
        return pb.GenerateRequest(
            model=self._model, text=wanted.text, num_beams=1, max_tokens=wanted.max_tokens, cross_attention=attention
        )

    async def check(self, loop: PlainLoop) -> None:
        """Compare some texts with the loop's."""
        for text in self._texts[:BATCH]:
            answer = await self._stub.GenerateText(self._request(text))
            tokens = [one.token for one in answer.end.results[0].tokens]
            if tokens != (expected := loop.write([text])[0]):
                raise ValueError(f"{text.text!r}: {tokens}; the loop writes {expected}")

    async def run(self, count: int, texts: Sequence[Wanted], attention: types.AttentionRequest | None = None) -> int:
        """Ask for whole texts, so many at a time; returns how many tokens came."""

        async def ask(text: Wanted) -> int:
            answer = await self._stub.GenerateText(self._request(text, attention))
            self._note(answer.end.timings)
            return len(answer.end.results[0].tokens)

        return await self._ask_all(count, texts, ask)

    async def stream(self, count: int, texts: Sequence[Wanted]) -> int:
        """Ask for tokens one by one; returns how many came."""

        async def ask(text: Wanted) -> int:
            tokens = 0
            async for message in self._stub.Generate(self._request(text)):
                tokens += message.HasField("token")
                if message.HasField("end"):
                    self._note(message.end.timings)
            return tokens

        return await self._ask_all(count, texts, ask)

    def _note(self, timings: pb.GenerationTimings) -> None:
        self.firsts.append(timings.first_token_ns / 1e9)
        if timings.steps > 1:
            self.between.append((timings.total_ns - timings.first_token_ns) / 1e9 / (timings.steps - 1))

    async def _ask_all(self, count: int, texts: Sequence[Wanted], ask: Callable[[Wanted], Awaitable[int]]) -> int:
        left = iter(texts)

        async def call() -> int:
            return sum([await ask(text) for text in left])

        return sum(await asyncio.gather(*(call() for _ in range(count))))


def _table(
    rates: Mapping[str, list[float]], firsts: Mapping[str, list[float]], between: Sequence[float], loop: PlainLoop
) -> list[str]:
    alone, batches, one, many, *_ = rates
    lines = [
        f"| way | tokens/s | of {alone} | of {batches} | of {many} | to the first token, ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in rates.items():
        ratios = [
            spread([mine / other for mine, other in zip(own, rates[base], strict=True)]) if base != name else ""
            for base in (alone, batches, many)
        ]
        first = f"{statistics.median(firsts[name]) * 1e3:.1f}" if firsts[name] else ""
        lines.append(f"| {name} | {statistics.median(own):.0f} | {' | '.join(ratios)} | {first} |")
    run_us, token_us = statistics.median(loop.run_seconds) * 1e6, statistics.median(between) * 1e6
    lines.append(f"\n{one}: {token_us:.0f} us a token, where a step of the loop takes {run_us:.0f} us.")
    return lines


if __name__ == "__main__":
    main()
