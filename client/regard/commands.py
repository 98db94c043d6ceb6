"""The commands of `regard`, built with typer; the entry point in cli.py runs them and explains their errors."""

import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.text import Text

from regard.answers import Classification, Embedding, Model
from regard.attention import AttentionRequest, LayerAttention
from regard.client import DEFAULT_TIMEOUT_SECONDS, Client
from regard.sources import InputError, Source, Task, choose_model, read_source
from regard.terminal import clean, cosine_table, labels_table, models_table, token_picture

_PIPED_WIDTH = 120
_PICTURE_SUFFIXES = (".png", ".svg", ".pdf")

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

ModelOption = Annotated[str, typer.Option("--model", help="Model to ask (default: the first that can do it).")]
TruncateOption = Annotated[bool, typer.Option("--truncate", help="Cut a text that is too long for the model.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="As the models folder names it.")]
SourceArgument = Annotated[
    str, typer.Argument(metavar="FILE|TEXT", help="A photo, a text file, a text, or - for stdin.")
]
SourcesArgument = Annotated[list[str], typer.Argument(metavar="FILE|TEXT...", help="As for classify; one or several.")]


class OutputClosed(Exception):
    """Whoever read the output went away."""


class Terminal(Console):
    """stdout: wide where it is a pipe, and saying so where the pipe breaks."""

    def __init__(self) -> None:
        free = sys.stdout.isatty() or "COLUMNS" in os.environ
        super().__init__(width=None if free else _PIPED_WIDTH, highlight=False)

    def on_broken_pipe(self) -> None:
        """Leave it to cli.py."""
        raise OutputClosed


def run() -> int:
    """Run the command line of sys.argv and return its exit code; what goes wrong in a command is raised."""
    try:
        app(prog_name="regard")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


@app.callback()
def connect(
    context: typer.Context,
    server: Annotated[str, typer.Option(metavar="HOST:PORT", envvar="REGARD_SERVER")] = "127.0.0.1:8001",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="For each call.")] = DEFAULT_TIMEOUT_SECONDS,
) -> None:
    """Ask a regard server what a photo or a text is, and what the transformer looked at."""
    context.obj = context.with_resource(Client(server, timeout=timeout))


@app.command()
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models: what they take, what they can do; and versions that are not served, with the reason."""
    client: Client = context.obj
    served = client.models()
    if as_json:
        _print_json([dataclasses.asdict(model) for model in served])
        return
    Terminal().print(models_table(served))
    for version in client.versions():
        if version.state != "READY" or version.reason:
            line = f"{version.model} {version.version} is {version.state}: {version.reason}".rstrip(": ")
            Terminal().print(Text(clean(line)), soft_wrap=True)


@app.command()
def load(context: typer.Context, model: ModelArgument) -> None:
    """Let the server load a model's new and changed versions, and unload what is no longer wanted."""
    client: Client = context.obj
    loaded = client.load_model(model)
    typer.echo(f"regard: {loaded.name} {loaded.version} is served", err=True)


@app.command()
def unload(context: typer.Context, model: ModelArgument) -> None:
    """Let the server stop serving a model."""
    client: Client = context.obj
    client.unload_model(model)
    typer.echo(f"regard: {clean(model)} is no longer served", err=True)


@app.command()
def classify(
    context: typer.Context,
    source: SourceArgument,
    model: ModelOption = "",
    top_k: Annotated[int, typer.Option(min=1, help="How many labels.")] = 5,
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Name what a photo or a text is."""
    client: Client = context.obj
    given = read_source(source)
    name = model or _choose(client, given, "classify").name
    answer = client.classify(image=given.image, text=given.text, model=name, top_k=top_k, truncate=truncate)
    _warn_if_cut(given, answer)
    if as_json:
        _print_json(dataclasses.asdict(answer))
    else:
        Terminal().print(labels_table(answer))


@app.command()
def embed(
    context: typer.Context,
    sources: SourcesArgument,
    model: ModelOption = "",
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn photos or texts into vectors; of several, print the cosine of every pair (or JSON, one a line)."""
    client: Client = context.obj
    given = [read_source(source) for source in sources]
    if len({source.modality for source in given}) > 1:
        raise InputError("photos and texts cannot be compared; give only photos or only texts")
    name = model or _choose(client, given[0], "embed").name
    answers = [client.embed(image=each.image, text=each.text, model=name, truncate=truncate) for each in given]
    for source, answer in zip(given, answers, strict=True):
        _warn_if_cut(source, answer)
        if as_json:
            _print_json({"input": source.name, **dataclasses.asdict(answer)})
        else:
            Terminal().print(_summary(source, answer))
    if len(answers) > 1 and not as_json:
        Terminal().print("", cosine_table([each.title for each in given], [answer.vector for answer in answers]))


@app.command()
def attend(
    context: typer.Context,
    source: SourceArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Picture: .png, .svg or .pdf.  [default for photos: NAME-attention.png in this folder]",
        ),
    ] = None,
    layer: Annotated[int, typer.Option(help="Layer; negative counts from the last.")] = -1,
    head: Annotated[int | None, typer.Option(help="One head (default: each for photos, the mean for texts).")] = None,
    row: Annotated[
        list[int] | None,
        typer.Option(
            help="Position that looks, may be repeated (default: class token of photos, all tokens of texts)."
        ),
    ] = None,
    model: ModelOption = "",
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a transformer looked at: a picture for photos, token by token for texts."""
    if output is not None and output.suffix.lower() not in _PICTURE_SUFFIXES:
        raise typer.BadParameter(f"{output}: a picture ends in {', '.join(_PICTURE_SUFFIXES)}", param_hint="-o")
    client: Client = context.obj
    if output is not None and not output.parent.is_dir():
        raise InputError(f"-o {output}: {output.parent} is no folder")
    given = read_source(source)
    chosen = client.model(model) if model else _choose(client, given, "attend")
    ask = client.classify if chosen.can_classify else client.embed
    wanted = _wanted(given, layer, head, tuple(row or ()))
    answer = ask(image=given.image, text=given.text, model=chosen.name, truncate=truncate, attention=wanted)
    _warn_if_cut(given, answer)
    if as_json:
        _print_json(dataclasses.asdict(answer))
    elif given.text is not None:
        _print_tokens(answer)
    else:
        output = output or Path(f"{Path(given.name).stem}-attention.png")
    if output is not None:
        _save_picture(output, given, answer)


def _wanted(source: Source, layer: int, head: int | None, rows: tuple[int, ...]) -> AttentionRequest:
    """Ask for each head's class token row of a photo, or the heads' mean over a text, unless told otherwise."""
    is_photo = source.image is not None
    return AttentionRequest(
        layers=(layer,),
        heads=() if head is None else (head,),
        reduce_heads="mean" if head is None and not is_photo else None,
        rows=rows,
        cls_only=is_photo and not rows,
    )


def _choose(client: Client, source: Source, task: Task) -> Model:
    model = choose_model(client.models(), source.modality, task)
    typer.echo(f"regard: using {model.name}", err=True)
    return model


def _warn_if_cut(source: Source, answer: Classification | Embedding) -> None:
    if answer.truncated:
        typer.echo(f"regard: {clean(source.title)} has more tokens than {answer.model} takes and was cut", err=True)


def _summary(source: Source, answer: Embedding) -> Text:
    first = ", ".join(f"{value:.4f}" for value in answer.vector[:6])
    more = ", ..." if answer.vector.size > 6 else ""
    norm = float(np.linalg.norm(answer.vector))
    return Text(f"{clean(source.title)}: {answer.vector.size} wide, norm {norm:.4f}, [{first}{more}]")


def _print_tokens(answer: Classification | Embedding) -> None:
    layer = _only_layer(answer)
    if answer.attention is None or not answer.attention.tokens:
        raise InputError("the server sent no tokens")
    who = f"head {layer.heads[0]}" if "head" in layer.axes else f"mean of {len(layer.heads)} heads"
    terminal = Terminal()
    title = f"{answer.model} · layer {layer.layer} · {who} · percent of attention, rows look at columns"
    picture = token_picture(
        layer, answer.attention.tokens, width=terminal.width, colour=terminal.color_system is not None
    )
    terminal.print(Text(title, "bold"), picture, sep="\n\n", end="", soft_wrap=True)


def _save_picture(path: Path, source: Source, answer: Classification | Embedding) -> None:
    from regard import pictures  # matplotlib takes half a second that the other commands need not spend

    layer, attention = _only_layer(answer), answer.attention
    if attention is not None and attention.tokens is not None:
        figure = pictures.token_heatmap(layer, attention.tokens, model=answer.model)
    elif attention is not None and attention.patches is not None and source.image is not None:
        draw = pictures.overlay if layer.weights.shape[:2] == (1, 1) else pictures.head_grid
        figure = draw(pictures.open_photo(source.image), layer, attention.patches, model=answer.model)
    else:
        raise InputError("the server did not say what the positions stand for")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box
        figure.savefig(path, dpi=150)
    typer.echo(f"regard: wrote {path}", err=True)


def _only_layer(answer: Classification | Embedding) -> LayerAttention:
    if answer.attention is None or not answer.attention.layers:
        raise InputError("the server sent no attention")
    return answer.attention.layers[0]


def _print_json(value: Any) -> None:
    Terminal().out(json.dumps(value, ensure_ascii=False, default=np.ndarray.tolist), highlight=False)
