"""What relevance costs: `python -m bench.relevance` asks why of the embedded `fashion` and of `sentiment`.

Calls that ask for one label beside plain ones, by every method; plain requests of a server that has relevance graphs
beside one without; LeGrad and GenAtt beside eager PyTorch. All by turns, in short rounds of one run: what counts are
the ratios within a round. A request that fails ends the run.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from artifact.errors import ArtifactError
from bench.generator import GeneratorError
from bench.relevance.calls import measure_calls
from bench.relevance.eager import measure_eager
from bench.relevance.loads import Load, find_loads
from bench.relevance.plain import measure_plain
from bench.relevance.ratios import Compared, table
from regard import RegardError

_PARTS = ("calls", "plain", "eager")


def main() -> None:
    """Measure, print a table for each part in Markdown, write all figures as JSON."""
    parser = _parser()
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.starts, args.seconds, args.batches = 2, 2, 0.3, 2
    for name in ("rounds", "starts", "batches", "seconds"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name}: {getattr(args, name)}; expected above 0")
    found = list[Compared]()
    loads, left_out = find_loads(args.models)
    print("\n".join(left_out), flush=True)
    try:
        for lines, figures in (part for load in loads for part in measure(load, args)):
            print("\n".join(["", *lines, *(table(figures) if figures else [])]), flush=True)
            found += figures
            left_out += lines
    except (ArtifactError, GeneratorError, RegardError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"figures": [one.to_json() for one in found], "left_out": left_out}
    args.out.write_text(json.dumps(report, indent=2) + "\n")


def measure(load: Load, args: argparse.Namespace) -> Iterator[tuple[list[str], list[Compared]]]:
    """Yield the parts that are asked for: what was left out, and the figures."""
    if args.only in (None, "calls"):
        figures, lines = measure_calls(load, args.rounds)
        yield lines, figures
    if args.only in (None, "plain"):
        yield [], measure_plain(load, args.starts, args.rounds, args.seconds)
    if args.only in (None, "eager"):
        if "images" not in load.inputs:
            yield [f"{load.name} is left out beside PyTorch: it is fashion's network that is written for it"], []
        else:
            figures, lines = measure_eager(load, args.rounds, args.batches)
            yield lines, figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.relevance", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--only", choices=_PARTS, help="one of the parts; all by default")
    parser.add_argument("--rounds", type=int, default=15, help="of each part, and of each start; 15 by default")
    parser.add_argument("--starts", type=int, default=6, help="of the servers that are asked plainly; 6 by default")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a round of plain requests; 0.5 by default")
    parser.add_argument("--batches", type=int, default=20, help="of a round beside PyTorch; 20 by default")
    parser.add_argument("--quick", action="store_true", help="few short rounds, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("build/relevance.json"))
    return parser


if __name__ == "__main__":
    main()
