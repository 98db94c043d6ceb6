"""Which networks of transformers can be tapped: `python -m bench.families [--family NAME...] --page docs/families.md`.

Each family of tests/export/families.py is tried, and each variant of it in bench/family_variants.py: a small random
network is written as a user's folder, loaded and built as `python -m export` does it. What was found before is kept, so
that a run that was cut off goes on; what the page says of others, too, where it was made with the same versions.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from rich.console import Console

from artifact.contract import PLAIN_GRAPH, AttentionContract
from artifact.verification import Check
from bench.families_page import Finding, make_page, read_page
from bench.family_variants import VARIANTS
from export.build import Built, build
from export.errors import ProbeError, TapError, TraceError, VerificationError
from export.sources import Source, load_folder
from model.checkpoint import CheckpointError
from tests.export.families import FAMILIES, write_folder
from tests.export.small.family import Family

_ROWS, _LENGTH = 3, 12
_KINDS = ("self", "causal", "cross")
_REASON_LINES = 2
_REFUSALS = (CheckpointError, TraceError, ProbeError, TapError, VerificationError)

console = Console(highlight=False)


def main() -> None:
    """Export what was not tried yet, keep what was found, write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.families", description=__doc__)
    parser.add_argument(
        "--family", nargs="+", default=list(FAMILIES), metavar="NAME", help="with variants; default all"
    )
    parser.add_argument("--again", action="store_true", help="try what was tried before, too")
    parser.add_argument("--figures", type=Path, default=Path("build/families.jsonl"), help="where findings are kept")
    parser.add_argument("--page", type=Path, help="the page to write from all that is kept")
    args = parser.parse_args()
    if unknown := [name for name in args.family if name not in FAMILIES]:
        parser.error(f"--family: {', '.join(unknown)}; expected some of {', '.join(FAMILIES)}")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        before = read_page(args.page.read_text()) if args.page and args.page.is_file() else {}
    except ValueError as error:
        before = {}
        if len(args.family) < len(FAMILIES):
            parser.error(f"--page: {args.page}: {error}")
    for name, family in configurations(args.family).items():
        if args.again or name not in read_findings(args.figures):
            finding = examine(family)
            console.print(name, finding)
            keep(name, finding, args.figures)
    if args.page:
        names, found = configurations(), before | read_findings(args.figures)
        args.page.write_text(make_page({name: found[name] for name in names if name in found}, names))
        console.print(f"written to {args.page}")


def configurations(families: Iterable[str] = FAMILIES) -> dict[str, Family]:
    """All that is tried of families: each as it is, then "family: variant"."""
    return {
        f"{name}: {variant}" if variant else name: replace(FAMILIES[name], config=FAMILIES[name].config | own)
        for name in families
        for variant, own in {"": {}, **VARIANTS.get(name, {})}.items()
    }


def keep(name: str, finding: Finding, file: Path) -> None:
    """Add a line, so that several runs may share a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps({"name": name, **asdict(finding)}) + "\n")


def read_findings(file: Path) -> dict[str, Finding]:
    """What was found before, the newest of each configuration that still is there, in their order."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    kept = {line.pop("name"): Finding(**line) for line in lines}
    return {name: kept[name] for name in configurations() if name in kept}


def examine(family: Family) -> Finding:
    """Export one network."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_folder(family, Path(scratch) / "network")
        began = time.perf_counter()
        try:
            source = load_folder(folder, part=family.part)
            built = build(source, Path(scratch) / "models")
        except _REFUSALS as error:
            return Finding(reason=_shorten(str(error), folder))
        return _describe(source, built, time.perf_counter() - began)


def _shorten(reason: str, folder: Path) -> str:
    """What the exporter says, without the folder's name, and of many lines the first."""
    lines = [line.strip() for line in reason.replace(f"{folder}: ", "").splitlines()]
    return " ".join(lines[:_REASON_LINES]) + (" ..." if len(lines) > _REASON_LINES else "")


def _describe(source: Source, built: Built, seconds: float) -> Finding:
    contract = built.contract
    graph = onnx.load(built.folder / PLAIN_GRAPH, load_external_data=False)
    fused = any(node.op_type == "Attention" for node in graph.graph.node)
    weights = [line for line in contract.verification if line.tensor.startswith("attention.")]
    return Finding(
        inputs=", ".join(spec.name for spec in contract.inputs),
        attention=", ".join(_count(contract.attention)),
        rule="fused" if fused else "eager",
        outputs=_compare_outputs(source, built.folder),
        weights=_worst(weights, "against torch"),
        alone=_worst(weights, "row alone"),
        value_norms=all(layer.value_norms for layer in contract.attention),
        takes="texts" if contract.text else "images" if contract.image else "tensors",
        longest=source.token_limit if source.traits.is_text else 0,
        seconds=seconds,
    )


def _worst(lines: Sequence[Check], check: str) -> float:
    return max((line.max_abs for line in lines if line.check == check), default=0)


def _count(layers: Sequence[AttentionContract]) -> Iterator[str]:
    """Say how many layers there are of each kind, and of how many heads."""
    for kind in _KINDS:
        heads = [layer.num_heads for layer in layers if layer.kind == kind]
        for number in dict.fromkeys(heads):
            yield f"{heads.count(number)} x {number} {kind}"


def _compare_outputs(source: Source, folder: Path) -> float:
    """Largest difference of the plain graph's outputs from the eager network's, on a batch without padding."""
    assert source.network is not None  # noqa: S101 -- a folder is a network
    traits = source.traits
    feed = traits.example(_ROWS, traits.fit({axis: _LENGTH + 3 * place for place, axis in enumerate(traits.axes)}))
    with torch.inference_mode():
        outputs, _ = source.network.explain(*(torch.from_numpy(feed[name]) for name in source.network.input_names))
    session = onnxruntime.InferenceSession(folder / PLAIN_GRAPH, providers=["CPUExecutionProvider"])
    answers = zip(session.run(list(outputs), feed), outputs.values(), strict=True)
    return max(float(np.abs(got - expected.numpy()).max()) for got, expected in answers)


if __name__ == "__main__":
    main()
