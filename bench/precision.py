"""What int8 brings and costs: `python -m bench.precision` exports, measures both, and writes docs/precision.md."""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from rich.console import Console

from artifact.contract import Contract, read_contract
from bench.__main__ import CPUS, newest_graph
from bench.programs import run
from bench.report import cpu_name
from export.fetch import fetch_file
from training.fashion_mnist import read_split
from training.sentiment import REVIEWS, read_reviews

_SAMPLES = 1200
_EDGES = {"fashion": (1, 28), "vit-s14": (3, 224)}
_BATCHES = {"vit-s14": (1, 4)}
_PHOTOS = Path("examples/photos")
_CROPS = 8  # of each photograph

console = Console(highlight=False)


@dataclass(frozen=True)
class Speed:
    """Rows a second in float32 and int8, and their ratio round by round."""

    batch: int
    float32: float
    int8: float
    ratios: tuple[float, ...]


def main() -> None:
    """Export every known model in int8 and compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.precision", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--work", type=Path, default=Path("build/precision"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fashion-mnist", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--page", type=Path, default=Path("docs/precision.md"))
    args = parser.parse_args()
    sections: list[tuple[str, str, Contract | None, list[Speed]]] = []
    for name, samples in write_samples(args.work / "samples", args.fashion_mnist):
        command = [sys.executable, "-m", "export", name, "--precision", "int8", "--samples", str(samples)]
        done = subprocess.run([*command, "--out", str(args.work)], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            sections.append((name, done.stderr.strip(), None, []))
            continue
        graphs = [newest_graph(args.models, name), newest_graph(args.work, f"{name}-int8")]
        assert graphs[0] and graphs[1]  # noqa: S101 -- both exported
        contract = read_contract(graphs[1].parent / "contract.json")
        speeds = [measure(graphs[0], graphs[1], name, batch, args.rounds) for batch in _BATCHES.get(name, (1, 8, 32))]
        sections.append((name, "", contract, speeds))
        console.print(name, contract.accuracy, speeds)
    args.page.write_text(make_page(sections, args.rounds))
    console.print(f"written to {args.page}")


def write_samples(folder: Path, fashion_mnist: Path) -> Iterator[tuple[str, Path]]:
    """Write what the exporter reads: film reviews, training images, crops of photographs; yields model and path."""
    folder.mkdir(parents=True, exist_ok=True)
    reviews = folder / "reviews.txt"
    texts = read_reviews(fetch_file(REVIEWS, Path("downloads")))[0]
    order = np.random.default_rng(0).permutation(len(texts))[:_SAMPLES]
    reviews.write_text("\n".join(" ".join(texts[index].split()) for index in order) + "\n")
    yield "minilm", reviews
    yield "sentiment", reviews
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for file in sorted(_PHOTOS.glob("*.jpg")):
        image = Image.open(file)
        edge = int(min(image.size) * 0.6)
        for index in range(_CROPS):
            left, top = (int((size - edge) * share) for size, share in zip(image.size, _corner(index), strict=True))
            image.crop((left, top, left + edge, top + edge)).save(photos / f"{file.stem}-{index}.png")
    yield "vit-s14", photos
    if fashion_mnist.is_dir():
        clothing = folder / "clothing"
        clothing.mkdir(exist_ok=True)
        for index, pixels in enumerate(read_split(fashion_mnist, "train").images[:_SAMPLES, 0]):
            Image.fromarray(pixels.numpy()).save(clothing / f"{index:05}.png")
        yield "fashion", clothing


def _corner(index: int) -> tuple[float, float]:
    """Where a crop begins, as shares of the room: corners, edges."""
    return index % 3 / 2, index // 3 / 2


def measure(float32: Path, int8: Path, name: str, batch: int, rounds: int) -> Speed:
    """Run both graphs in turn, one run a CPU."""
    channels, edge = _EDGES.get(name, (0, 0))
    size = f"{channels}x{edge}px" if edge else "16"
    options = {"batch": batch, "size": size, "seconds": 1, "threads": 1, "instances": CPUS, "spin": 0}
    pairs = [tuple(_per_second(graph, options) for graph in (float32, int8)) for _ in range(rounds)]
    medians = [statistics.median(values) for values in zip(*pairs, strict=True)]
    return Speed(batch, medians[0], medians[1], tuple(second / first for first, second in pairs))


def _per_second(graph: Path, options: dict[str, Any]) -> float:
    return float(json.loads(run("bench.limit", str(graph), options))["per_second"])


def make_page(sections: list[tuple[str, str, Contract | None, list[Speed]]], rounds: int) -> str:
    """Write what was found."""
    lines = [
        "# What int8 brings and costs",
        "",
        f"Written by `python -m bench.precision`: ONNX Runtime {onnxruntime.__version__} alone, one run on each of",
        f"{CPUS} CPUs ({cpu_name()}), {rounds} rounds in turn with float32; text of 16 tokens. Accuracy is what the",
        "exporter measured on the half of the samples that did not calibrate: film reviews, crops of the photographs",
        f"in `examples/`{', training images of Fashion-MNIST' * any(name == 'fashion' for name, *_ in sections)}.",
    ]
    for name, failure, contract, speeds in sections:
        lines += ["", f"## {name}", ""]
        if contract is None:
            lines += ["Not published:", "", "```text", failure, "```"]
            continue
        lines += [f"| measure on {contract.accuracy[0].inputs} inputs | found | asked for |", "|---|---|---|"]
        lines += [f"| {line.measure} | {line.value:.4f} | {line.bound} |" for line in contract.accuracy]
        lines += ["", "| batch | float32, rows a second | int8 | ratio, median (range) |", "|---|---|---|---|"]
        for one in speeds:
            ratios = f"{statistics.median(one.ratios):.2f} ({min(one.ratios):.2f} to {max(one.ratios):.2f})"
            lines.append(f"| {one.batch} | {one.float32:.0f} | {one.int8:.0f} | {ratios} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
