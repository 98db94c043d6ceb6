"""Which families of transformers can be tapped: `python -m bench.families [NAME...] --page docs/families.md`.

Each family's small random network is written as a user's folder, loaded and built as `python -m export` does it. What
was found before for families that are not named is kept.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from rich.console import Console

from artifact.contract import PLAIN_GRAPH, AttentionContract
from export.build import Built, build
from export.errors import ProbeError, TapError, TraceError, VerificationError
from export.sources import Source, load_folder
from model.checkpoint import CheckpointError
from tests.export.families import FAMILIES, write_folder

_ROWS, _LENGTH = 3, 12
_KINDS = ("self", "causal", "cross")
_REASON_LINES = 2
_REFUSALS = (CheckpointError, TraceError, ProbeError, TapError, VerificationError)

_REASONS = """Nothing of these is published. What is behind it:

- **Windows, blocks, factorised attention** (hiera, longt5, sam, swin, swinv2, timesformer, yoso; pixtral, which packs
  images): there is no matrix [heads, queries, keys] for a row of the batch.
- **The library gives nothing to compare with**: no attention at all (fnet, mamba, resnet), none returned (cvt, levit),
  scores before the softmax (squeezebert), the mean over the heads (wavlm), one of two attentions of a layer (diffllama,
  lilt). gpt_oss has a sink in its softmax, so that its rows do not sum to 1.
- **Padding changes what the network itself answers**, in PyTorch too (convbert, nystromformer), so that requests could
  not share a batch.
- **More inputs than one** (bros, siglip2), random masks at inference (vit_mae), a token that every text must hold
  (bart's classifier).
- **torch's exporter** cannot trace it for every length (canine, funnel, led, longformer, prophetnet, sew, sew-d,
  switch_transformers, xlnet).
"""

console = Console(highlight=False)


@dataclass(frozen=True)
class Finding:
    """What became of one family.

    Attributes:
        inputs: Names of its inputs.
        attention: Layers, heads and kinds.
        rule: How its attention was found.
        outputs: Largest difference of the plain graph's outputs from PyTorch with eager attention.
        weights: Largest difference of the attention weights.
        value_norms: Whether the graph shows how long value vectors are.
        takes: "texts" or "images", where the server makes inputs of these; else "tensors".
        seconds: Of loading and building.
        reason: Why it cannot be tapped, as the exporter says it; empty where it can.
    """

    inputs: str = ""
    attention: str = ""
    rule: str = ""
    outputs: float = 0
    weights: float = 0
    value_norms: bool = False
    takes: str = ""
    seconds: float = 0
    reason: str = ""


def main() -> None:
    """Export families, keep what was found, write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.families", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of families; all without any")
    parser.add_argument("--figures", type=Path, default=Path("build/families.json"), help="where findings are kept")
    parser.add_argument("--page", type=Path, help="the page to write from all that is kept")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in FAMILIES]:
        parser.error(f"unknown: {', '.join(unknown)}; expected some of {', '.join(FAMILIES)}")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    findings = read_findings(args.figures)
    for name in args.names or FAMILIES:
        findings[name] = examine(name)
        console.print(name, findings[name])
        args.figures.parent.mkdir(parents=True, exist_ok=True)
        args.figures.write_text(json.dumps({key: asdict(one) for key, one in findings.items()}, indent=2) + "\n")
    if args.page:
        args.page.write_text(make_page(findings))
        console.print(f"written to {args.page}")


def read_findings(file: Path) -> dict[str, Finding]:
    """What was found before, of families that still are there."""
    kept = json.loads(file.read_text()) if file.is_file() else {}
    return {name: Finding(**one) for name, one in kept.items() if name in FAMILIES}


def examine(name: str) -> Finding:
    """Export one family."""
    family = FAMILIES[name]
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
    against_torch = [line for line in contract.verification if line.check == "against torch"]
    return Finding(
        inputs=", ".join(spec.name for spec in contract.inputs),
        attention=", ".join(_count(contract.attention)),
        rule="fused" if fused else "eager",
        outputs=_compare_outputs(source, built.folder),
        weights=max(line.max_abs for line in against_torch if line.tensor.startswith("attention.")),
        value_norms=all(layer.value_norms for layer in contract.attention),
        takes="texts" if contract.text else "images" if contract.image else "tensors",
        seconds=seconds,
    )


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


def make_page(findings: dict[str, Finding]) -> str:
    """Write what was found."""
    tapped = {name: one for name in FAMILIES if (one := findings.get(name)) and not one.reason}
    refused = {name: one for name in FAMILIES if (one := findings.get(name)) and one.reason}
    lines = [
        "# Families of the transformers library",
        "",
        *_introduction(tapped),
        "",
        f"## Tapped: {len(tapped)}",
        "",
        "| family | layers x heads, kind | attention is | outputs differ | weights differ | value norms | inputs | s |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(name, one) for name, one in tapped.items()),
        "",
        f"## Not tapped: {len(refused)}",
        "",
        *_REASONS.splitlines(),
        "",
        "| family | what the exporter says |",
        "|---|---|",
        *(f"| {name} | {_escape(one.reason)} |" for name, one in refused.items()),
    ]
    return "\n".join(lines) + "\n"


def _introduction(tapped: dict[str, Finding]) -> list[str]:
    outputs, weights = (max(getattr(one, what) for one in tapped.values()) for what in ("outputs", "weights"))
    versions = f"transformers {version('transformers')}, torch {version('torch').partition('+')[0]}"
    text = f"""Written by `python -m bench.families --page docs/families.md`: {versions}, ONNX Runtime
{onnxruntime.__version__}. Each family is a small network, mostly of two layers and four heads, with random weights so
large that attention is far from uniform. It was saved as the library saves, and exported as `python -m export` does it,
which compares the graphs with PyTorch over several batch sizes, lengths and paddings. The attention weights differ from
PyTorch's eager attention by {weights:.1e} at most, the outputs by {outputs:.1e}; the exporter's limit is 1e-4. Seconds
are those of one export on a shared machine.

Behind a comma stands a `--part`, or that the network classifies. Attention is *fused* where the graph has ONNX's
Attention operator, which gives its weights as a further output, and *eager* where the library has no fused form
(sdpa) of the family: there the softmax itself becomes the output. The server takes texts where the folder has a
tokenizer.json, and images where patches lie on them row by row; the other networks take tensors."""
    return text.splitlines()


def _row(name: str, one: Finding) -> str:
    inputs = one.inputs if one.takes == "tensors" else one.takes
    norms = "yes" if one.value_norms else "no"
    cells = (name, one.attention, one.rule, f"{one.outputs:.1e}", f"{one.weights:.1e}", norms, inputs)
    return f"| {' | '.join(cells)} | {one.seconds:.0f} |"


def _escape(text: str) -> str:
    """Keep a message in its cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
