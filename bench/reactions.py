"""Reactions a second: `python -m bench.reactions --package-python PATH`, regard beside the package rxnmapper itself.

Both do the whole work, from a reaction's text to the text with numbered atoms: canonical form, network, map. Regard is
asked by callers in one process, each for one reaction at a time; the package gets one reaction at a time, or a batch.
They take turns, round by round, and what counts is the ratio within a round. PATH is the Python of a virtual
environment with the package: pip install rxnmapper==0.4.3 'transformers<5' 'setuptools<81' torch rdkit.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.many import spread
from bench.servers import serving_regard
from examples.reactions.__main__ import export
from examples.reactions.expected import TOLERANCE, read_expected
from examples.reactions.mapper import map_text
from regard import Client

Maps = list[tuple[str, float]]
Way = Callable[[Sequence[str]], Maps]

_WORKER = Path(__file__).parent / "peers" / "map_reactions.py"
_REFERENCE = "package, one at a time"


def main() -> None:
    """Print a table, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.reactions", description=__doc__)
    parser.add_argument("--package-python", type=Path, required=True, help="Python that has the package rxnmapper")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--times", type=int, default=4, help="how often the reactions of the package's tests are mapped"
    )
    parser.add_argument("--cache", type=Path, default=Path("downloads"), help="where the package's files are kept")
    args = parser.parse_args()
    reactions = [one.reaction for one in read_expected() if one.canonicalize and one.mapped] * args.times
    with (
        tempfile.TemporaryDirectory() as models,
        serving_regard(export(Path(models), args.cache)) as serving,
        Client(serving.address) as client,
        package(args.package_python) as by_package,
    ):
        ways = {
            _REFERENCE: in_batches(by_package, 1),
            "package, batches of 32": in_batches(by_package, 32),
            "regard, 1 caller": by_callers(client, 1),
            "regard, 8 callers": by_callers(client, 8),
        }
        check_same(ways, reactions)
        print("\n".join(measure(ways, reactions, args.rounds)), flush=True)


@contextmanager
def package(python: Path) -> Iterator[Way]:
    """Start the package; it has loaded its network when this is entered."""
    with subprocess.Popen(  # noqa: S603 -- our own
        [str(python), str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asked, answered = process.stdin, process.stdout
        assert asked and answered  # noqa: S101 -- pipes, as told
        answered.readline()

        def ask(reactions: Sequence[str]) -> Maps:
            print(json.dumps(list(reactions)), file=asked, flush=True)
            return [(mapped, confidence) for mapped, confidence in json.loads(answered.readline())]

        yield ask


def in_batches(ask: Way, size: int) -> Way:
    """Give the reactions in parts of a size."""
    return lambda reactions: [
        one for start in range(0, len(reactions), size) for one in ask(reactions[start : start + size])
    ]


def by_callers(client: Client, callers: int) -> Way:
    """Ask a server by so many threads, each for the next reaction."""

    def ask(reaction: str) -> tuple[str, float]:
        mapped = map_text(client, reaction)
        return mapped.text, mapped.confidence

    def map_all(reactions: Sequence[str]) -> Maps:
        with ThreadPoolExecutor(callers) as pool:
            return list(pool.map(ask, reactions))

    return map_all


def check_same(ways: dict[str, Way], reactions: Sequence[str]) -> None:
    """See that all ways give the same.

    Raises:
        ValueError: A map differs, or a confidence by more than TOLERANCE.
    """
    expected = ways[_REFERENCE](reactions)
    for name, way in ways.items():
        for (mapped, confidence), (other, its_confidence) in zip(way(reactions), expected, strict=True):
            if mapped != other or abs(confidence - its_confidence) > TOLERANCE:
                raise ValueError(f"{name}: {mapped} ({confidence}); expected {other} ({its_confidence})")


def measure(ways: dict[str, Way], reactions: Sequence[str], rounds: int) -> list[str]:
    """Map all reactions in every way, several times; returns the lines of the table."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 else reversed(ways):
            began = time.perf_counter()
            ways[name](reactions)
            rates[name].append(len(reactions) / (time.perf_counter() - began))
    lines = [f"| {len(reactions)} reactions | reactions/s | of the package, one at a time |", "|---|---|---|"]
    for name, found in rates.items():
        ratios = [mine / other for mine, other in zip(found, rates[_REFERENCE], strict=True)]
        lines.append(f"| {name} | {statistics.median(found):.1f} | {spread(ratios)} |")
    return lines


if __name__ == "__main__":
    main()
