"""What relevance costs: `python -m bench.relevance` asks why of the embedded `fashion` and of `sentiment`.

Calls that ask for one label beside plain ones, by every method; plain requests of a server that has relevance graphs
beside one without; LeGrad and GenAtt beside eager PyTorch, of ViT-S/14 with a head of random weights, too. All by
turns, in short rounds of one run: what counts are the ratios within a round. A request that fails ends the run.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from artifact.errors import ArtifactError
from bench.generator import GeneratorError
from bench.relevance.calls import measure_calls
from bench.relevance.eager import measure_eager
from bench.relevance.loads import Load, find_loads
from bench.relevance.plain import measure_plain
from bench.relevance.ratios import Compared, table
from bench.relevance.vit_s14 import make_load
from export.errors import FetchError
from model.checkpoint import load_network
from model.vit import VisionTransformer
from regard import RegardError

_PARTS = ("calls", "plain", "eager")
_LARGE_ROUNDS = 8  # some two seconds a call
FASHION = Path(__file__).parents[2] / "model" / "weights" / "fashion"


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
        parts = (part for load in loads for part in measure(load, args))
        large = (measure_large(args) for _ in range(1 if args.only in (None, "eager") else 0))
        for lines, figures in chain(parts, large):
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
        network = load_network(FASHION) if load.name == "fashion" else None
        if not isinstance(network, VisionTransformer):
            yield [f"{load.name} is left out beside PyTorch: it is for images that LeGrad and GenAtt are written"], []
        else:
            figures, lines = measure_eager(load, network, args.rounds, args.batches)
            yield lines, figures


def measure_large(args: argparse.Namespace) -> tuple[list[str], list[Compared]]:
    """The same of a network of real size beside PyTorch, with fewer calls a round."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            load, network = make_load(args.cache, Path(folder))
        except FetchError as error:
            return [f"ViT-S/14 is left out beside PyTorch: {error}"], []
        figures, lines = measure_eager(load, network, min(args.rounds, _LARGE_ROUNDS), 1)
    return lines, figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.relevance", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--cache", type=Path, default=Path("downloads"), help="where downloads are kept")
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
