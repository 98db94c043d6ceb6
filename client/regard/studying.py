"""The command `regard study`: numbers of heads over a data set, into a folder, with a page that shows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from regard.attention import STATISTICS, Rectangle, Span
from regard.bulk_commands import READ_OPTIONS, ReadOptions
from regard.client import Client
from regard.console import ModelOption, SourcesArgument, Terminal, TruncateOption, choose, tell_written
from regard.flags import takes
from regard.gathering import peek
from regard.progress import progress
from regard.sources import InputError, Source
from regard.study import Study, compare, write_report
from regard.study.asking import StudyOptions
from regard.study.drift import check_comparable
from regard.study.heatmaps import number_text
from regard.study.results import EXAMPLES
from regard.study.rows import has_parquet
from regard.study.running import Run

_OPTIONS = {
    "statistics": typer.Option(
        "--statistic",
        metavar="NAME",
        help=f"What to count, may be repeated: {', '.join(STATISTICS)} (default: all that the model has).",
    ),
    "layers": typer.Option("--layer", help="Layer, may be repeated; negative counts from the last (default: all)."),
    "value_weighted": typer.Option("--value-weighted", help="Count weights times the lengths of value vectors."),
    "contributions": typer.Option("--contributions", help="Count contributions, all heads of a layer together."),
    "drop_special": typer.Option("--drop-special", help="Leave special or prefix tokens out."),
    "cls_only": typer.Option("--cls-only", help="Only the row of the class token."),
    "spans": typer.Option(
        "--span", metavar="START-END", help="Of region, in texts: characters, the same of all; may be repeated."
    ),
    "boxes": typer.Option(
        "--box",
        metavar="L,T,R,B",
        help="Of region, in photos: a rectangle in pixels, the same of all; may be repeated.",
    ),
}


@dataclass(frozen=True)
class CountOptions:
    """What is counted, as the command line says it."""

    statistics: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    value_weighted: bool = False
    contributions: bool = False
    drop_special: bool = False
    cls_only: bool = False
    spans: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()

    def read(self) -> StudyOptions:
        """Read what is written as text.

        Raises:
            BadParameter: It is nothing of the kind.
        """
        for name in self.statistics:
            if name not in STATISTICS:
                wrong = f"{name!r}; expected some of {', '.join(STATISTICS)}"
                raise typer.BadParameter(wrong, param_hint="--statistic")
        return StudyOptions(
            self.statistics,  # type: ignore[arg-type]
            self.layers,
            self.value_weighted,
            self.contributions,
            self.drop_special,
            self.cls_only,
            tuple(map(_span, self.spans)),
            tuple(map(_box, self.boxes)),
        )


FolderOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where numbers, tables and report.html are written.")
]
AgainstOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Compare with this study, of other inputs or another version: drift.csv."),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on after what an interrupted run has written.")]
RetryOption = Annotated[
    bool, typer.Option("--retry-errors", help="Ask again for inputs that have errors, then go on as --resume.")
]
ExamplesOption = Annotated[
    int, typer.Option(min=0, max=1000, help="How many inputs to name that excite a head most, of each head.")
]


@takes("count", CountOptions, _OPTIONS)
@takes("reading", ReadOptions, READ_OPTIONS)
def study(
    context: typer.Context,
    sources: SourcesArgument,
    *,
    reading: ReadOptions,
    count: CountOptions,
    output: FolderOption,
    model: ModelOption = "",
    truncate: TruncateOption = False,
    resume: ResumeOption = False,
    retry_errors: RetryOption = False,
    examples: ExamplesOption = EXAMPLES,
    against: AgainstOption = None,
) -> None:
    """Count what every head attends to over a data set, reduced on the server; a page shows it."""
    client: Client = context.obj
    options = count.read()
    before = Study.open(against) if against is not None else None
    first, each = peek(reading.gathering.read(sources))
    chosen = client.model(model) if model else choose(client, first, "attend")
    kind = f"{first.modality}s"
    run = Run(
        client, chosen.of(first.modality), kind, options, output, resume, truncate, examples, retry_errors=retry_errors
    )
    if before is not None:
        check_comparable(before, run.asked, output)
    if not has_parquet():
        typer.echo("regard: no tables/ without pyarrow (extra tables): values.zarr has the numbers", err=True)
    count_done = 0
    try:
        with progress(reading.gathering.count(sources), 0) as advance:

            def done(inputs: int) -> None:
                nonlocal count_done
                count_done += inputs
                for _ in range(inputs):
                    advance()

            found = run.run(_named(first, each), done)
    except BaseException:
        if count_done:
            typer.echo(f"regard: {count_done} inputs are in {output}; --resume goes on after them", err=True)
        raise
    drift = None
    if before is not None:
        drift = compare(before, found)
        drift.write(output / "drift.csv")
        write_report(found, drift)
    _show(found)
    tell_written(output / "report.html")
    if errors := found.folder.num_errors:
        typer.echo(f"regard: {errors} of {found.num_inputs} inputs have errors: see {output}/inputs", err=True)
        raise typer.Exit(1)


def _named(first: Source, sources: Iterator[Source]) -> Iterator[tuple[str, Any]]:
    for source in sources:
        if source.modality != first.modality:
            raise InputError(f"{source.place}: a {source.modality} beside a {first.modality}; expected all of a kind")
        yield source.name, source.value


def _show(found: Study) -> None:
    """Print the head with the largest and the least mean of each statistic."""
    table = Table("statistic", "largest", "mean", "least", "mean", box=None, pad_edge=False)
    for statistic in found.statistics:
        if ranked := found.rank(statistic):
            cells = [
                text
                for one in (ranked[0], ranked[-1])
                for text in (
                    f"layer {one.layer}" + ("" if one.head is None else f" head {one.head}"),
                    number_text(one.mean),
                )
            ]
            table.add_row(statistic, *cells)
    Terminal().print(table)


def _span(text: str) -> Span:
    start, dash, end = text.partition("-")
    if not (dash and start.isdecimal() and end.isdecimal() and int(start) < int(end)):
        raise typer.BadParameter(f"{text!r}; expected START-END, two whole numbers that rise", param_hint="--span")
    return int(start), int(end)


def _box(text: str) -> Rectangle:
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}; expected LEFT,TOP,RIGHT,BOTTOM", param_hint="--box") from error
    return left, top, right, bottom
