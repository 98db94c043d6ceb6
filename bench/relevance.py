"""What relevance costs: `python -m bench.relevance` asks why by every method, beside plain requests, round by round.

Of the embedded `fashion` and of `sentiment`, one input a call and eight. What counts are the ratios within a round: of
the time of a call, and of the server's CPU time, to the same call without relevance. Then plain requests of a server
that has relevance graphs, beside one of the same model without them.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifact.contract import CONTRACT_FILE, read_contract
from artifact.errors import ArtifactError
from bench.faithfulness.__main__ import EMBEDDED, newest
from bench.faithfulness.measures import DEFAULT, methods
from bench.generator import frame, generate
from bench.many import spread
from bench.servers import Serving, serving_regard
from bench.workloads import make_requests
from regard import Client, FailedPrecondition, RelevanceRequest

_BATCHES, _CALLERS, _CLOTHES = (1, 8), 8, Path(__file__).parents[1] / "examples" / "clothing"
_TEXT = "It takes a while, but by the end it is a warm and funny film about people who are not."
_ANSWER_BYTES = 200


@dataclass(frozen=True)
class Load:
    """A model, what is sent to it, and its plain requests as bench.workloads takes them."""

    name: str
    inputs: dict[str, Any]
    size: str


def main() -> None:
    """Print the tables of both models, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.relevance", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2, help="of plain requests in a round; 2 by default")
    args = parser.parse_args()
    sandal = (_CLOTHES / "sandal.png").read_bytes()
    try:
        for load, root in (
            (Load("fashion", {"images": [sandal]}, "1x28px"), EMBEDDED),
            (Load("sentiment", {"texts": [_TEXT]}, "16"), args.models),
        ):
            print("\n".join(measure(newest(root / load.name), load, args.rounds, args.seconds)), flush=True)
    except (ArtifactError, ValueError) as error:
        parser.exit(1, f"{error}\n")


def measure(artifact: Path, load: Load, rounds: int, seconds: float) -> list[str]:
    """Ask a server with relevance and one without, in turn."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        servers = {}
        for kind in ("with", "without"):
            target = Path(scratch) / kind / load.name / artifact.name
            shutil.copytree(artifact, target)
            if kind == "without":
                strip(target)
            servers[kind] = stack.enter_context(serving_regard(target.parents[1]))
        lines = [line for batch in _BATCHES for line in measure_calls(servers["with"], load, batch, rounds)]
        ratios = compare_plain(servers, load, rounds, seconds)
    return [
        f"\n**{load.name}**",
        *lines,
        f"\nPlain requests a second, with relevance graphs to without: {spread(ratios)}",
    ]


def strip(artifact: Path) -> None:
    """Leave the relevance graphs of an artifact out of its contract."""
    contract = read_contract(artifact / CONTRACT_FILE)
    files = {name: digest for name, digest in contract.files.items() if not name.startswith("relevance")}
    left = {
        name: contract.__class__.model_fields[name].default
        for name in contract.__class__.model_fields
        if "relevance" in name
    }
    (artifact / CONTRACT_FILE).write_text(contract.model_copy(update={"files": files, **left}).model_dump_json())


def measure_calls(serving: Serving, load: Load, batch: int, rounds: int) -> list[str]:
    """Calls of so many inputs, plain and by each method; those that the model has not are named."""
    inputs = {kind: values * batch for kind, values in load.inputs.items()}
    asked: dict[str, RelevanceRequest | None] = {"plain": None}
    taken, spent = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    lines = []
    with Client(serving.address, timeout=600) as client:
        for method in methods():
            more: dict[str, Any] = {} if method == DEFAULT else {"method": method}
            request = replace(RelevanceRequest(), **more)
            try:
                list(client.classify_many(**inputs, model=load.name, relevance=request))
                asked[method] = request
            except FailedPrecondition:
                lines.append(f"{method} is left out: the model was exported without it.")
        calls = max(1, 80 // batch)  # CPU time is counted in ticks of 10 ms
        for number in range(rounds + 1):
            for name in list(asked) if number % 2 else reversed(list(asked)):
                before, began = serving.cpu_seconds, time.perf_counter()
                for _ in range(calls):
                    list(client.classify_many(**inputs, model=load.name, relevance=asked[name]))
                if number:  # the first round warms up
                    taken[name].append(time.perf_counter() - began)
                    spent[name].append(serving.cpu_seconds - before)
    lines += [f"\n| {batch} a call | ms a call | of plain | CPU of plain |", "|---|---|---|---|"]
    for name, times in taken.items():
        milliseconds = 1e3 * statistics.median(times) / calls
        figures = (spread(ratios(times, taken["plain"])), spread(ratios(spent[name], spent["plain"])))
        lines.append(f"| {name} | {milliseconds:.1f} | {' | '.join(figures)} |")
    return lines


def ratios(mine: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round."""
    return [one / max(other, 1e-9) for one, other in zip(mine, others, strict=True)]


def compare_plain(servers: dict[str, Serving], load: Load, rounds: int, seconds: float) -> list[float]:
    """Requests a second of the server with relevance graphs, to those of the one without, in each round."""
    bodies = [frame(one.SerializeToString()) for one in make_requests(load.name, load.size, "none")]
    found = []
    for number in range(rounds):
        kinds = ("with", "without") if number % 2 else ("without", "with")
        rates = {
            kind: generate(servers[kind].target, bodies, _CALLERS, seconds, _ANSWER_BYTES).per_second for kind in kinds
        }
        found.append(rates["with"] / rates["without"])
    return found


if __name__ == "__main__":
    main()
