"""This checkout beside another, load by load in turn: `python -m bench.compare ../before --rounds 5`.

What a change costs or brings, as the median of the rounds' ratios of requests a second: machines that are shared change
their speed from minute to minute, and both servers of a round are asked within seconds of each other. Each is started
with its own code; the load is made by h2load.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.generator import GRPC_HEADERS, Target, frame, generate
from bench.servers import Serving, serving_regard
from bench.workloads import make_requests
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from tests.golden import BARE_ONNX_MODELS

ROOT = Path(__file__).parent.parent
_MIN_ANSWER_BYTES = 20


@dataclass(frozen=True)
class Load:
    """What is asked, of which models folder, by how many callers at a time."""

    title: str
    models: Path
    model: str
    size: str
    callers: int


def loads(models: Path) -> Iterator[Load]:
    """Yield what is compared; the networks come from `make demo`."""
    yield Load("16 floats in and out, 32 callers", BARE_ONNX_MODELS, "plus", "", 32)
    for callers in (1, 8, 32):
        yield Load(f"MiniLM, 16 tokens, {callers} callers", models, "minilm", "16", callers)
    yield Load("ViT-S/14, 224 pixels, 8 callers", models, "vit-s14", "224px", 8)


def main() -> int:
    """Print a line a load: medians of both, and of their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="a checkout of what came before")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    console = Console()
    for folder, group in _by_folder(loads(given.models)):
        with ExitStack() as stack:
            here, other = (stack.enter_context(serving_regard(folder, checkout=one)) for one in (ROOT, given.other))
            for load in group:
                console.print(_compare(load, here, other, given.rounds, given.seconds), highlight=False)
    return 0


def _by_folder(every: Iterator[Load]) -> list[tuple[Path, list[Load]]]:
    listed = list(every)
    folders = dict.fromkeys(load.models for load in listed)
    return [(folder, [load for load in listed if load.models == folder]) for folder in folders]


def _compare(load: Load, here: Serving, other: Serving, rounds: int, seconds: float) -> str:
    bodies = [frame(request.SerializeToString()) for request in _requests(load)]
    found: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            target = Target((here, other)[which].target.url, GRPC_HEADERS, is_grpc=True)
            measured = generate(target, bodies, load.callers, seconds, _MIN_ANSWER_BYTES)
            if measured.errors:
                raise SystemExit(f"{load.title}: {measured.errors} errors")
            found[which].append(measured.per_second)
    ratios = [mine / theirs for mine, theirs in zip(found[0], found[1], strict=True)]
    mine, theirs = (statistics.median(found[which]) for which in (0, 1))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return f"{load.title}: {mine:.0f}/s here, {theirs:.0f}/s there, ratio {statistics.median(ratios):.3f} ({spread})"


def _requests(load: Load) -> list[api.PredictRequest]:
    if load.size:
        return make_requests(load.model, load.size, "none")
    floats = np.arange(16, dtype=np.float32)
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[1, 16], data=floats.tobytes())
    return [api.PredictRequest(model=load.model, inputs={"x": tensor})]


if __name__ == "__main__":
    sys.exit(main())
