"""The command line of the exporter: `python -m export NAME|PATH --out models`."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.build import Built, build
from export.fetch import FetchError
from export.publish import PublishError
from export.sources import KNOWN, load_source
from export.tap import TapError
from export.verify import VerificationError
from model.checkpoint import CheckpointError

_EXPECTED = (CheckpointError, FetchError, PublishError, TapError, VerificationError, OSError)


def export(
    source: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help=f"one of {', '.join(KNOWN)}, or a checkpoint folder")
    ],
    out: Annotated[Path, typer.Option(help="models folder; the artifact becomes OUT/NAME/VERSION")] = Path("models"),
    image_size: Annotated[int | None, typer.Option(min=1, help="edge of the images in pixels")] = None,
    cache: Annotated[Path, typer.Option(help="where downloaded weights are kept")] = Path("downloads"),
    quiet: Annotated[bool, typer.Option("--quiet", help="print only where the artifact lies")] = False,
) -> None:
    """Export a network to an artifact that the server serves, after checking that it does the same."""
    console, errors = Console(), Console(stderr=True)
    # torch's exporter logs what it skips (torchvision is not needed).
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with errors.status(f"loading {escape(source)}") as status:
            built = build(load_source(source, cache, image_size), out, lambda step: status.update(f"{source}: {step}"))
    except _EXPECTED as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if not quiet:
        console.print(verification_table(built))
    state = "unchanged" if built.unchanged else "published"
    console.print(f"{state} {escape(str(built.folder))}", highlight=False, soft_wrap=True)


def verification_table(built: Built) -> Table:
    """Show every check with its difference and limit."""
    contract = built.contract
    table = Table(title=f"{contract.name}: exported graphs against the network", title_justify="left")
    for column, justify in (("tensor", "left"), ("check", "left"), ("cases", "right"), ("max abs", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("max rel", justify="right")
    table.add_column("limit", justify="right")
    for line in contract.verification:
        numbers = (f"{number:.2g}" for number in (line.max_abs, line.max_rel, line.limit))
        table.add_row(line.tensor, line.check, str(line.cases), *numbers)
    return table


if __name__ == "__main__":
    typer.run(export)
