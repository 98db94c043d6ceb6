"""The command line of the exporter: `python -m export NAME|PATH|ID --out models`."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from artifact.contract import RELEVANCE_GRAPHS, Contract, Precision, RelevanceGraph
from export.build import DEFAULT_RELEVANCE, Precise, build
from export.errors import NOT_DOWNLOADED, DownloadError, ExportError, SampleError
from export.known import KNOWN, folder_of, load_source, load_two_towers, locate
from export.matryoshka import told_by_option
from export.samples import read_samples
from export.sources import Source, no_images
from export.towers import BuiltTowers, build_towers
from export.towers_folder import TwoTowers, is_two_towers
from model.checkpoint import CheckpointError

_EXPECTED = (ExportError, CheckpointError, OSError)
_FULL = "fp32"
_PADDING = (0, 2, 0, 0)  # of the table of checks, which is as wide as a terminal of 80 characters
_PRECISIONS: dict[str, Precision] = {_FULL: "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH|ID",
            help=f"{', '.join(KNOWN)}, a checkpoint folder, an ONNX file, or a model's id or page on the Hugging Face"
            " hub (owner/name; HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE hold); a folder comes before an id",
        ),
    ],
    out: Annotated[Path, typer.Option(help="models folder; the artifact becomes OUT/NAME/VERSION")] = Path("models"),
    name: Annotated[str | None, typer.Option(help="name of the artifact, instead of the source's own")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="edge of the images in pixels")] = None,
    revision: Annotated[
        str | None, typer.Option(help="branch, tag or commit of a hub's model; main if left out")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="vision, text or encoder: which part of a checkpoint that has several")
    ] = None,
    cache: Annotated[Path, typer.Option(help="where the weights of known names are kept")] = Path("downloads"),
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16 or int8; but for fp32 the name gets it as an ending")
    ] = "fp32",
    samples: Annotated[
        Path | None,
        typer.Option(
            help="real inputs, for fp16, bf16 and int8: a text file, one text a line (or two with a tab between, as a "
            "pair), or a folder of images"
        ),
    ] = None,
    sparse: Annotated[
        bool,
        typer.Option(help="give SPLADE's sparse vectors, of a masked language model whose files do not say so"),
    ] = False,
    matryoshka_dims: Annotated[
        str | None,
        typer.Option(help="sizes that the vectors were trained to be cut to, as 64,128, where config.json has none"),
    ] = None,
    relevance: Annotated[
        str,
        typer.Option(
            help=f"which relevance graphs to write, of {', '.join(RELEVANCE_GRAPHS)}, with commas; all; or none. "
            "gradient is for integrated gradients, too"
        ),
    ] = ",".join(DEFAULT_RELEVANCE),
    summary: Annotated[bool, typer.Option("--summary", help="print the worst of each check, not every tensor")] = False,
) -> None:
    """Export a network to an artifact that the server serves, after checking that it does the same."""
    console, errors = Console(), Console(stderr=True)
    # torch's exporter logs what it skips (torchvision is not needed).
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        wanted = _read_relevance(relevance)
        located = locate(source, revision)  # downloads draw their own progress
        if part is None and is_two_towers(folder_of(located)):
            if precision != _FULL:
                raise SampleError(f"--precision: {precision}; two towers expect {_FULL}, or --part for one of them")
            given = {"--samples": samples, "--sparse": sparse, "--matryoshka-dims": matryoshka_dims}
            for option in (name for name, value in given.items() if value):
                raise CheckpointError(
                    f"{option}: of one vector a text; two towers expect none, or --part for one of them"
                )
            with errors.status(f"loading {escape(source)}") as status:
                towers = load_two_towers(located, image_size, name)
                both = build_towers(towers, out, lambda step: status.update(f"{towers.name}: {step}"), wanted)
            _tell_towers(console, towers, both, worst_only=summary)
            return
        with errors.status(f"loading {escape(source)}") as status:
            loaded = load_source(located, cache, image_size, part, sparse=sparse)
            if image_size and (loaded.image is None or loaded.graph is not None):
                takes = f"{loaded.name} takes {'text' if loaded.traits.is_text else 'what its graph says'}"
                raise CheckpointError(f"--image-size: {image_size}; {no_images(loaded.traits) or takes}")
            if part and loaded.graph is not None:
                raise CheckpointError(f"--part: {part!r}; an ONNX file has one part only")
            if matryoshka_dims is not None:
                embedding = told_by_option(loaded.traits.embedding, matryoshka_dims)
                loaded = replace(loaded, traits=replace(loaded.traits, embedding=embedding))
            ending = "" if precision == _FULL else f"-{precision}"
            loaded = replace(loaded, name=name or loaded.name + ending)
            precise = _read_precision(precision, samples, loaded)
            built = build(loaded, out, lambda step: status.update(f"{loaded.name}: {step}"), precise, wanted)
    except _EXPECTED as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(NOT_DOWNLOADED if isinstance(error, DownloadError) else 1) from error
    if loaded.assumed:
        console.print(f"assumed: {loaded.assumed}", highlight=False, soft_wrap=True)
    if built.contract.verification:
        console.print(verification_table(built.contract, worst_only=summary))
        tell_reach(console, built.contract)
    else:
        console.print(f"graphs not run: ONNX Runtime has no {built.contract.precision} on the CPU; accuracy is torch's")
    if built.contract.accuracy:
        console.print(accuracy_table(built.contract))
    for line in built.left_out:
        console.print(escape(line), highlight=False, soft_wrap=True)
    state = "unchanged" if built.unchanged else "published"
    if origin := built.contract.origin:
        console.print(f"from {origin.repository} at {origin.revision}", highlight=False, soft_wrap=True)
    console.print(f"{state} {escape(str(built.folder))}", highlight=False, soft_wrap=True)


def _tell_towers(console: Console, towers: TwoTowers, built: BuiltTowers, *, worst_only: bool) -> None:
    for source in (towers.text, towers.image):
        if source.assumed:
            console.print(f"assumed: {source.assumed}", highlight=False, soft_wrap=True)
    for what, contract in (("text", built.text), ("image", built.image)):
        console.print(verification_table(contract, worst_only=worst_only, title=f"{contract.name}, {what}"))
        tell_reach(console, contract)
    together = built.text.model_copy(update={"verification": built.contract.verification})
    console.print(verification_table(together, worst_only=worst_only, title=f"{built.contract.name}, together"))
    if origin := built.contract.origin:
        console.print(f"from {origin.repository} at {origin.revision}", highlight=False, soft_wrap=True)
    state = "unchanged" if built.unchanged else "published"
    console.print(f"{state} {escape(str(built.folder))}", highlight=False, soft_wrap=True)


def _read_relevance(wanted: str) -> tuple[RelevanceGraph, ...]:
    """Read which relevance graphs are wanted, in the order in which they are written."""
    names = {"all": list(RELEVANCE_GRAPHS), "none": []}.get(wanted, wanted.split(","))
    for name in names:
        if name not in RELEVANCE_GRAPHS:
            expected = f"some of {', '.join(RELEVANCE_GRAPHS)} with commas, all, or none"
            raise CheckpointError(f"--relevance: {name!r}; expected {expected}")
    return tuple(method for method in RELEVANCE_GRAPHS if method in names)


def _read_precision(name: str, samples: Path | None, source: Source) -> Precise:
    if name not in _PRECISIONS:
        raise SampleError(f"--precision: {name!r}; expected {', '.join(_PRECISIONS)}")
    if name == _FULL:
        return Precise()
    if samples is None:
        raise SampleError(f"--samples: missing; {name} is measured on real inputs, which only you have")
    return Precise(_PRECISIONS[name], read_samples(samples, source))


def accuracy_table(contract: Contract) -> Table:
    """Show what the precision costs."""
    title = f"{contract.name}: {contract.precision} against float32, {contract.accuracy[0].inputs} inputs"
    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    for column in ("value", "limit"):
        table.add_column(column, justify="right")
    for line in contract.accuracy:
        table.add_row(line.measure, f"{line.value:.4f}", line.bound)
    return table


def verification_table(contract: Contract, *, worst_only: bool, title: str = "") -> Table:
    """Show every check of every tensor, or of each check the tensor that came nearest to its limit."""
    table = Table(
        title=f"{title or contract.name}: exported graphs against the network",
        title_justify="left",
        box=None,
        padding=_PADDING,
    )
    table.add_column("tensor", overflow="fold")
    table.add_column("check", no_wrap=True)
    for column in ("cases", "longest", "max abs", "max rel", "limit"):
        table.add_column(column, justify="right", no_wrap=True)
    lines = contract.verification
    if worst_only:
        by_share = sorted(lines, key=lambda line: line.max_abs / line.limit)
        lines = tuple({line.check: line for line in by_share}.values())
    for line in lines:
        numbers = (f"{number:.2g}" for number in (line.max_abs, line.max_rel, line.limit))
        table.add_row(line.tensor, line.check, str(line.cases), str(line.positions or ""), *numbers)
    return table


def tell_reach(console: Console, contract: Contract) -> None:
    """Say where the longest input that is verified is not the longest that is served."""
    reached = max((line.positions for line in contract.verification), default=0)
    if 0 < reached < (limit := max(contract.limits.values(), default=0)):
        why = "beyond it a run would need more than half of the free memory, or too long"
        console.print(f"verified with up to {reached} of {limit} positions: {why}", highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line of sys.argv and exit."""
    app(prog_name=sys.argv[0] if sys.argv[0].startswith("regard ") else "python -m export")


if __name__ == "__main__":
    main()
