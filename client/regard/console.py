"""What the commands share: their common options, the terminal they print to, and how they choose a model."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from regard.answers import Classification, Embedding, Model
from regard.application import OutputClosed
from regard.client import Client
from regard.sources import InputError, Source, Task, choose_model, choose_towers
from regard.terminal import clean
from regard.views import AttentionResult

_PIPED_WIDTH = 120

ModelOption = Annotated[str, typer.Option("--model", help="Model to ask (default: the first that can do it).")]
PromptOption = Annotated[
    str, typer.Option(metavar="NAME", help="Of the model's prompts, put before each text (default: the model's own).")
]
TruncateOption = Annotated[bool, typer.Option("--truncate", help="Cut a text that is too long for the model.")]
PairOption = Annotated[
    str | None, typer.Option("--pair", metavar="FILE|TEXT", help="Second text, read together with the first.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
ResultsOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write answers there: .jsonl, .npz or .parquet; of one input with --why a picture: .png, .svg or .pdf.",
    ),
]
SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE|TEXT...",
        help="Photos, text files, texts, folders, patterns ('photos/*.jpg'), or - for stdin; one or several.",
    ),
]


class Terminal(Console):
    """stdout: wide where it is a pipe, and saying so where the pipe breaks."""

    def __init__(self) -> None:
        free = sys.stdout.isatty() or "COLUMNS" in os.environ
        super().__init__(width=None if free else _PIPED_WIDTH, highlight=False)

    def on_broken_pipe(self) -> None:
        """End the command; the entry point says why."""
        raise OutputClosed


def choose(client: Client, source: Source, task: Task) -> Model:
    """Take the first model that can do it, and say on stderr which."""
    model = choose_model(client.models(), source.modality, task, pairs=source.second is not None)
    typer.echo(f"regard: using {model.name}", err=True)
    return model


def choose_both(client: Client, *, aligns: bool = False) -> Model:
    """Take the first model that is two towers, and say on stderr which."""
    model = choose_towers(client.models(), aligns=aligns)
    typer.echo(f"regard: using {model.name}", err=True)
    return model


PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


def check_output(output: Path | None, suffixes: Sequence[str], what: str = "a picture ends") -> None:
    """Refuse a file that could not be written, before anything is asked."""
    if output is None:
        return
    if output.suffix.lower() not in suffixes:
        raise typer.BadParameter(f"{output}: {what} in {', '.join(suffixes)}", param_hint="-o")
    if not output.parent.is_dir():
        raise InputError(f"-o {output}: {output.parent} is no folder")


def tell_written(output: Path) -> None:
    """Say on stderr that a file was written."""
    typer.echo(f"regard: wrote {output}", err=True)


def warn_if_cut(source: Source, answer: Classification | Embedding | AttentionResult) -> None:
    """Say on stderr where a text was longer than the model takes."""
    if answer.truncated:
        tell_cut(source, answer.model)


def tell_cut(source: Source, model: str) -> None:
    """Say on stderr that a text was longer than a model takes."""
    typer.echo(f"regard: {clean(source.place)} has more tokens than {model} takes and was cut", err=True)


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    Terminal().out(json.dumps(value, ensure_ascii=False, default=np.ndarray.tolist), highlight=False)
