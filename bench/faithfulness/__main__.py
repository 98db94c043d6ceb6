"""Which measure to trust: `python -m bench.faithfulness` masks inputs in the order of each, through a server.

Everything that regard serves is compared in one run, on the same inputs: attention of the last layer, rollout,
contributions, relevance by every method that the client knows, and a random order. Of the embedded model `fashion` the
test images of Fashion-MNIST, of `sentiment` snippets that its head was not trained on; with --images whoever has
ImageNet, or another folder for each class, measures a model of theirs.
"""

import argparse
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact.contract import CONTRACT_FILE, RELEVANCE_GRAPHS, Contract, read_contract
from artifact.errors import ArtifactError
from bench.faithfulness.flipping import Filling, flip, masking
from bench.faithfulness.measures import Maps, ask, methods
from bench.faithfulness.protocols import localise, rank_correlation, score
from bench.faithfulness.randomised import Span, cascade, randomise
from bench.faithfulness.report import PUBLISHED, RANDOMISED, Figures, tables
from bench.faithfulness.rows import Given, Row, prepare, read_fashion, read_images, read_texts
from bench.servers import only, serving_regard
from export.build import build
from export.errors import ExportError, FetchError
from export.fetch import fetch_file
from export.known import load_source
from model.checkpoint import CheckpointError
from regard import Client, RegardError
from training.sentiment import REVIEWS

EMBEDDED = Path(__file__).parents[2] / "server" / "embedded"
_AT_ONCE, _TIMEOUT_SECONDS = 64, 600.0
_FLAGS = ("--max-batch-size", str(_AT_ONCE), "--max-queue-seconds", "3600")
_SHOWN: dict[Filling, str] = {
    "mean": "patches replaced by the training images' mean",
    "black": "patches painted black",
    "mask": "tokens replaced by [MASK]",
    "remove": "tokens taken out",
}


@dataclass(frozen=True, eq=False)
class Task:
    """A model and what is sent to it.

    Attributes:
        artifact: Folder of the version that is measured.
        given: The inputs.
        filling: How parts are masked.
        steps: About how many steps from whole to masked.
        cascaded: How many inputs are explained again with the weights of ever more layers shuffled.
    """

    artifact: Path
    given: Sequence[Given]
    filling: Filling
    steps: int
    cascaded: int = 0


def main() -> None:
    """Measure, print tables in Markdown, write the figures as JSON."""
    parser = _parser()
    args = parser.parse_args()
    if (args.images is None) != (args.model is None):
        parser.error("--images and --model go together")
    if args.masks and args.boxes:
        parser.error("--masks and --boxes exclude each other")
    if args.quick:
        args.count, args.texts, args.steps, args.text_steps = 12, 6, 5, 5
    if args.cascade < 0:
        parser.error(f"argument --cascade: {args.cascade}; expected a number of inputs")
    found = []
    try:
        for task in _tasks(args):
            began = time.perf_counter()
            figures = measure(task)
            print("\n".join(tables(figures)), flush=True)
            print(f"\n{figures.model} took {time.perf_counter() - began:.0f} s.", flush=True)
            found.append(figures.to_json())
    except (
        ArtifactError,
        CheckpointError,
        ExportError,
        FetchError,
        OSError,
        RegardError,
        ValueError,
        tarfile.TarError,
    ) as error:
        parser.exit(1, f"{error}\n")
    print(f"\n{PUBLISHED}; measure it with --images.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.faithfulness", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--only", choices=("fashion", "sentiment"), help="one of the two; both by default")
    parser.add_argument("--count", type=int, default=1000, help="images; 1000 by default")
    parser.add_argument("--texts", type=int, default=120, help="texts; 120 by default")
    parser.add_argument("--steps", type=int, default=12, help="of masking an image; 12 by default")
    parser.add_argument("--text-steps", type=int, default=10, help="of masking a text; 10 by default")
    parser.add_argument(
        "--fill", choices=("mean", "black"), default="mean", help="what patches become; mean by default"
    )
    parser.add_argument(
        "--text-fill", choices=("mask", "remove"), default="mask", help="what becomes of tokens; mask by default"
    )
    parser.add_argument("--quick", action="store_true", help="few inputs and steps, to see that it runs")
    parser.add_argument(
        "--cascade",
        type=int,
        nargs="?",
        const=60,
        default=0,
        metavar="INPUTS",
        help="shuffle weights from the top down, too, a server for each layer; of as many inputs, 60 unless told",
    )
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="of Fashion-MNIST")
    parser.add_argument("--cache", type=Path, default=Path("downloads"), help="where downloads are kept")
    parser.add_argument("--images", type=Path, help="folder with a folder of images for each class, as ImageNet's")
    parser.add_argument("--labels", type=Path, help="lines: name of such a folder, a blank, the model's label")
    parser.add_argument("--masks", type=Path, help="the same tree with PNG files that are above 0 on the object")
    parser.add_argument(
        "--boxes", type=Path, help="or a CSV file of boxes: file,left,top,right,bottom; file as folder/name"
    )
    parser.add_argument("--model", help="which of --models these are for")
    parser.add_argument("--out", type=Path, default=Path("build/faithfulness.json"))
    return parser


def _tasks(args: argparse.Namespace) -> Iterator[Task]:
    if args.images:
        given = read_images(args.images, args.labels, args.masks, args.count, args.boxes)
        yield Task(newest(args.models / args.model), given, args.fill, args.steps, args.cascade)
        return
    if args.only != "sentiment":
        given = read_fashion(args.data, args.count)
        yield Task(newest(EMBEDDED / "fashion"), given, args.fill, args.steps, args.cascade)
    if args.only != "fashion":
        given = read_texts(fetch_file(REVIEWS, args.cache), args.texts)
        with tempfile.TemporaryDirectory() as scratch:
            artifact = with_every_method("sentiment", args.models, args.cache, Path(scratch))
            yield Task(artifact, given, args.text_fill, args.text_steps, args.cascade)


def with_every_method(name: str, models: Path, cache: Path, scratch: Path) -> Path:
    """The folder of the newest version of a known model; one made in scratch where it is missing or lacks a method.

    Raises:
        ExportError: It could not be made.
        FetchError: Nor could its weights be had.
    """
    version = _newest_version(models / name)
    if version and set(methods()) <= set(read_contract(version / CONTRACT_FILE).label_methods):
        return version
    print(f"{name}: {models} has none with every method; it is exported to a temporary folder", flush=True)
    return build(load_source(name, cache), scratch, relevance=tuple(RELEVANCE_GRAPHS)).folder


def newest(model: Path) -> Path:
    """The folder of the newest version of a model.

    Raises:
        ValueError: There is none, or it cannot explain labels.
    """
    version = _newest_version(model)
    if version is None:
        raise ValueError(f"{model}: is not there; `python -m export` makes it")
    if not read_contract(version / CONTRACT_FILE).explains_labels:
        raise ValueError(f"{model}: has no relevance of labels; expected one that `python -m export` makes now")
    return version


def _newest_version(model: Path) -> Path | None:
    """The folder of the newest version of a model; None where there is none."""
    contracts = model.glob(f"*/{CONTRACT_FILE}")
    return max((path.parent for path in contracts), key=lambda folder: int(folder.name), default=None)


def measure(task: Task) -> Figures:
    """Explain and mask all inputs of a task; then explain them by a model of random weights.

    Raises:
        RegardError: A call failed.
        ValueError: An input cannot be masked.
    """
    contract = read_contract(task.artifact / CONTRACT_FILE)
    depths = list(cascade(task.artifact, contract)) if task.cascaded else []
    with _serving(task.artifact.parents[1], contract) as client:
        rows = [row for row in prepare(client, contract, task.given) if len(row.parts) > 1]
        maps = ask(client, contract, rows)
        masked = masking(contract, task.artifact, task.filling)
        scores = [
            {name: score(one) for name, one in found.items()}
            for found in flip(client, masked, rows, maps, task.steps, _AT_ONCE)
        ]
        noise = _maps_of_noise(task, contract, rows, None)
    for place, row in enumerate(rows):
        for name, by in scores[place].items():
            by[RANDOMISED] = rank_correlation(maps[name][place], noise[name][place])
            if row.inside is not None:
                by.update(localise(maps[name][place], row.inside))
    cascaded = {
        depth: {
            name: [rank_correlation(*pair) for pair in zip(maps[name], found, strict=False)]
            for name, found in _maps_of_noise(task, contract, rows[: task.cascaded], chosen).items()
        }
        for depth, chosen in depths
    }
    return _figures(contract, rows, maps, scores, cascaded, task)


def _maps_of_noise(task: Task, contract: Contract, rows: Sequence[Row], chosen: Set[Span] | None) -> Maps:
    """Ask for the maps of all measures with weights shuffled: those chosen, or all."""
    with tempfile.TemporaryDirectory() as scratch:
        randomise(task.artifact, Path(scratch) / contract.name / task.artifact.name, chosen)
        with _serving(Path(scratch), contract) as client:
            return ask(client, contract, rows, seed=1)


@contextmanager
def _serving(models: Path, contract: Contract) -> Iterator[Client]:
    with (
        only(models, contract.name) as folder,
        serving_regard(folder, *_FLAGS) as serving,
        Client(serving.address, timeout=_TIMEOUT_SECONDS) as client,
    ):
        yield client


def _figures(
    contract: Contract,
    rows: Sequence[Row],
    maps: Maps,
    scores: Sequence[dict[str, dict[str, float]]],
    cascaded: Mapping[str, Mapping[str, Sequence[float]]],
    task: Task,
) -> Figures:
    names = list(maps)
    protocols = [name for name in scores[0][names[0]] if all(name in row[names[0]] for row in scores)]
    whole = {protocol: np.array([[row[name][protocol] for row in scores] for name in names]) for protocol in protocols}
    kind = "images" if contract.image else "texts"
    right = np.mean([row.label == row.truth for row in rows])
    inputs = f"{len(rows):,} {kind}, {100 * right:.0f} % right"
    deeper = {depth: np.array([by[name] for name in names]) for depth, by in cascaded.items()}
    return Figures(contract.name, inputs, _SHOWN[task.filling], names, whole, deeper)


if __name__ == "__main__":
    main()
