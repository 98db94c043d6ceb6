"""Writes docs/families.md: which networks of transformers are tapped and how exactly, and why others are not."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import onnxruntime

from bench.family_variants import MOST_USED

_CELL_ENDS = re.compile(r" ?(?<!\\)\| ?")
_REASONS = """Nothing of these is published. What is behind it:

- **Blocks, factorised attention, windows that merge** (hiera, longt5, timesformer, yoso; pixtral, which packs images;
  rt_detr, which attends to points between pixels; convbert, whose convolutions weigh nine neighbours by a softmax):
  there is no matrix [heads, queries, keys] for a row of the batch.
- **The library's own code fails**: Swin with a window larger than its grid (Swinv2 makes it smaller), Swinv2 with
  absolute positions, Flaubert with norms first.
- **The library gives nothing to compare with**: no attention at all (fnet, mamba, resnet), none returned (cvt, levit),
  one of two attentions of a layer (diffllama, lilt), or other results with eager attention than with fused (Falcon's
  ALiBi, which is added twice).
- **A sink takes part in the softmax** (gpt_oss), so that rows do not sum to 1, and nothing says by how much.
- **Padding changes what the network itself answers**, in PyTorch too (nystromformer), so that requests could not share
  a batch.
- **More inputs than one** (bros, siglip2), a token that every text must hold (bart's classifier).
- **The length of the answer** does not follow from that of the sound by one rule (wav2vec2's adapter), or torch's
  exporter gets it wrong: the graph's answer is a frame short for some lengths (sew).
- **torch's exporter** cannot trace it for every length (canine, funnel, led, longformer, sew-d, wav2vec2-bert with
  rotary positions), keeps the positions of one (wav2vec2-conformer's, rotary), or fails altogether (prophetnet,
  switch_transformers, xlnet).
"""


@dataclass(frozen=True)
class Finding:
    """What became of one network.

    Attributes:
        inputs: Names of its inputs.
        attention: Layers, heads and kinds.
        rule: How its attention was found.
        outputs: Largest difference of the plain graph's outputs from PyTorch with eager attention.
        weights: Largest difference of the attention weights, over batches padded and not, short and longest.
        alone: Largest difference of the attention weights of a row in a batch from the row's alone.
        longest: Most tokens of a text, or 0; one row of so many was compared, with a short one beside it.
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
    alone: float = 0
    longest: int = 0
    value_norms: bool = False
    takes: str = ""
    seconds: float = 0
    reason: str = ""


def read_page(page: str) -> dict[str, Finding]:
    """Read what a page says of each network, so that some may be tried again and the others kept.

    Its numbers are rounded, and what rows alone differ by is told for all together: that is then each one's.

    Raises:
        ValueError: It was written with other versions of the libraries: nothing of it can be kept.
    """
    if _versions() not in _flat(page):
        raise ValueError(f"is not of {_versions()}; expected all families, without --family")
    alone = float(_flat(page).partition("differs from that of the row alone by ")[2].split()[0])
    tapped, _, refused = page.partition("## Not tapped")
    found = {row[0]: _read_row(row, alone) for row in _rows(tapped)}
    return found | {row[0]: Finding(reason=_unescape(row[1])) for row in _rows(refused.partition("## Not tried")[0])}


def _rows(part: str) -> list[list[str]]:
    rows = [_CELL_ENDS.split(line.strip("| ")) for line in part.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] != "network"]


def _read_row(row: Sequence[str], alone: float) -> Finding:
    _, attention, rule, longest, outputs, weights, norms, inputs, seconds = row
    takes = inputs if inputs in ("texts", "images") else "tensors"
    return Finding(
        inputs=inputs,
        attention=attention,
        rule=rule,
        outputs=float(outputs),
        weights=float(weights),
        alone=alone,
        longest=int(longest or 0),
        value_norms=norms == "yes",
        takes=takes,
        seconds=float(seconds),
    )


def make_page(findings: Mapping[str, Finding], names: Iterable[str]) -> str:
    """Write what was found, and which names of the matrix were not tried yet."""
    untried = [name for name in names if name not in findings]
    tapped = {name: one for name, one in findings.items() if not one.reason}
    refused = {name: one for name, one in findings.items() if one.reason}
    lines = [
        "# Families of the transformers library",
        "",
        *_introduction(tapped),
        "",
        f"## Tapped: {len(tapped)}",
        "",
        "| network | layers x heads, kind | attention is | tokens | outputs differ | weights differ | value norms | "
        "inputs | s |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(name, one) for name, one in tapped.items()),
        "",
        f"## Not tapped: {len(refused)}",
        "",
        *_REASONS.splitlines(),
        "",
        "| network | what the exporter says |",
        "|---|---|",
        *(f"| {name} | {_escape(one.reason)} |" for name, one in refused.items()),
        *(["", f"## Not tried yet: {len(untried)}", "", "| network |", "|---|"] if untried else []),
        *(f"| {name} |" for name in untried),
    ]
    return "\n".join(lines) + "\n"


def _introduction(tapped: Mapping[str, Finding]) -> list[str]:
    outputs, weights, alone = (_most(tapped, what) for what in ("outputs", "weights", "alone"))
    used = len(MOST_USED & tapped.keys())
    text = f"""Written by `python -m bench.families --page docs/families.md`: {_versions()}.
Each row is a small network with random weights so large that attention is far from uniform: a family of the library,
mostly of two layers and four heads, or behind a colon a variant of it. What is tried is data:
`tests/export/small/` and `bench/family_variants.py`. Each was saved as the library saves, and exported as
`python -m export` does it, which compares the graphs with PyTorch over several batch sizes, lengths and paddings, the
most tokens included, each row alone, and one row of these beside a short one. The attention weights differ from
PyTorch's eager attention by {weights:.1e} at most, the outputs by {outputs:.1e}; the exporter's limit is 1e-4. A row's
attention in a batch differs from that of the row alone by {alone:.1e} at most; the limit is 1e-5. Seconds are those of
one export on a shared machine.

A row says what was found when its network was last tried, which may have been before the newest rules of the exporter.
`python -m bench.families --again --family NAME --page docs/families.md` tries a family and its variants anew and keeps
the other rows; without `--family` it tries all.

Of the {len(MOST_USED)} encoder families that we take for the most used (the latter names them) {used} are tapped.

Behind a comma stands a `--part`, or that the network classifies. Attention is *fused* where the graph has ONNX's
Attention operator, which gives its weights as a further output, and *eager* where the library has no fused form (sdpa)
of the family: there the softmax itself becomes the output. The server takes texts where the folder has a
tokenizer.json, and images where patches lie on them row by row; the other networks take tensors. *Tokens* are the most
that a text may have. Where the library computes something else for a whole batch as soon as one row is longer
(BigBird's block_sparse, LongRoPE, dynamic NTK), these are no more than that length."""
    return text.splitlines()


def _versions() -> str:
    """Of what networks were made with."""
    libraries = f"transformers {version('transformers')}, torch {version('torch').partition('+')[0]}"
    return f"{libraries}, ONNX Runtime {onnxruntime.__version__}"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _most(findings: Mapping[str, Finding], what: str) -> float:
    return max((float(getattr(one, what)) for one in findings.values()), default=0)


def _row(name: str, one: Finding) -> str:
    inputs = one.inputs if one.takes == "tensors" else one.takes
    norms = "yes" if one.value_norms else "no"
    differences = (f"{number:.1e}" for number in (one.outputs, one.weights))
    cells = (name, one.attention, one.rule, str(one.longest or ""), *differences, norms, inputs)
    return f"| {' | '.join(cells)} | {one.seconds:.0f} |"


def _escape(text: str) -> str:
    """Keep a message in its cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _unescape(cell: str) -> str:
    return cell.replace("\\|", "|").replace("&lt;", "<")
