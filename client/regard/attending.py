"""The command `regard attend`: reads its options, asks for just what a view needs, prints it and has it drawn."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from regard.answers import Classification, Embedding, Model
from regard.attention import AttentionRequest, LayerAttention
from regard.bulk_commands import BULK_OPTIONS, BulkOptions, Work
from regard.client import Client
from regard.console import (
    PICTURE_SUFFIXES,
    JsonOption,
    ModelOption,
    PairOption,
    PromptOption,
    SourcesArgument,
    Terminal,
    TruncateOption,
    check_output,
    choose,
    print_json,
    tell_written,
    warn_if_cut,
)
from regard.flags import takes
from regard.generation import GenerateOptions, StepKind
from regard.growing import steps
from regard.matrices import Matrix, attended, in_shares, layer_name, matrices, unit_name
from regard.results import RESULT_SUFFIXES, is_results
from regard.sources import InputError, Source, is_folder, read_pair, read_photos
from regard.start import explorer_settings
from regard.tables import tables
from regard.terminal import numbers_table, token_picture
from regard.views import (
    CHARTS,
    SHEETS,
    Answered,
    AttentionResult,
    PictureStyle,
    View,
    ViewOptions,
    choose_view,
    request_for,
    request_for_steps,
    step_kind,
)

_PRINTED = {
    "weights": "attention",
    "rollout": "the rollout",
    "contribution": "contributions",
    "contribution_rollout": "the rollout",
}
_SUFFIXES = (*PICTURE_SUFFIXES, ".html")


_VIEW_OPTIONS = {
    "view": typer.Option(
        metavar="VIEW",
        help="How to show it: overlay, heads, queries, matrix, arcs, entropy, distance (default: heads for photos, "
        "matrix for texts).",
    ),
    "measure": typer.Option(
        metavar="MEASURE",
        help="What to show: weights, rollout, entropy, distance, contribution, contribution_rollout (default: weights, "
        "or what the view is of).",
    ),
    "layers": typer.Option(
        "--layer",
        help="Layer; negative counts from the last; several stand side by side "
        "(default: the last; all for a rollout, entropy and distance).",
    ),
    "heads": typer.Option("--head", help="Head, may be repeated (default: all; a view of one thing takes their mean)."),
    "rows": typer.Option(
        "--row", help="Query position, may be repeated (default: class token of photos, all tokens of texts)."
    ),
    "reduce": typer.Option(help="Show this of the heads, not each."),
    "residual_share": typer.Option(metavar="SHARE", help="Of a rollout: what the residual connection keeps."),
    "value_weighted": typer.Option("--value-weighted", help="Multiply weights by the lengths of the value vectors."),
    "drop_special": typer.Option(
        "--drop-special", help="Leave special or prefix tokens out; rows sum to 1 without them."
    ),
    "top_k": typer.Option(min=0, help="Only so many of each row's weights, the largest; 0 for all."),
    "rows_of_text": typer.Option("--rows-of", help="Of a pair: only the rows of one text."),
    "keys_of_text": typer.Option("--keys-of", help="Of a pair: only what is attended to in one text."),
    "kind": typer.Option(
        help="Of a model that writes: what each token that it writes attends to in the text, or in what was written "
        "before; or the encoder's (default: cross)."
    ),
}
_STYLE_OPTIONS = {
    "size": typer.Option(help="screen: dark, 150 dpi; print: light, 17 cm wide, 300 dpi."),
    "theme": typer.Option(help="Instead of the size's own (of a page: instead of both)."),
    "width_cm": typer.Option(min=4, max=100, help="Width of the picture."),
    "dpi": typer.Option(min=30, max=1200, help="Dots per inch."),
    "curve": typer.Option(
        "--scale",
        help="How colours follow weights; log shows three decades (default: linear on photos, sqrt in texts).",
    ),
    "percentile": typer.Option(
        "--clip",
        metavar="PERCENTILE",
        min=1,
        max=100,
        help="Where a scale ends; 100 for the largest (default: 100, of a rollout 99).",
    ),
    "common_scale": typer.Option(
        "--common-scale/--own-scales", help="Whether panels have one scale (default: side by side and on sheets)."
    ),
    "multiples": typer.Option("--multiples", help="Weights as multiples of 1/N, which is uniform attention."),
    "opacity": typer.Option(min=0, max=1, help="Of the largest weights over a photo (default: 0.88)."),
    "smooth": typer.Option("--smooth/--no-smooth", help="Whether maps run smoothly from patch to patch."),
    "contour": typer.Option(
        min=1, max=100, metavar="PERCENT", help="A line around the fewest patches that hold so much of the weight."
    ),
}
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="Picture: .png, .svg, .pdf, or a page, .html (default for photos: NAME-attention.png in this folder); "
        "numbers: .jsonl, .npz, .parquet.",
    ),
]
OpenOption = Annotated[
    bool, typer.Option("--open", help="Show it on the page of regard explore instead, and print a link to it.")
]
PageOption = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        envvar="REGARD_PAGE",
        help="Of --open: where the page runs; where none does, it is started.",
    ),
]
CompareOption = Annotated[str, typer.Option(metavar="MODEL", help="Put this model beside it.")]


@takes("options", ViewOptions, _VIEW_OPTIONS)
@takes("style", PictureStyle, _STYLE_OPTIONS)
@takes("bulk", BulkOptions, BULK_OPTIONS)
def attend(
    context: typer.Context,
    sources: SourcesArgument,
    *,
    bulk: BulkOptions,
    pair: PairOption = None,
    output: OutputOption = None,
    options: ViewOptions,
    model: ModelOption = "",
    compare: CompareOption = "",
    style: PictureStyle,
    prompt: PromptOption = "",
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
    open_page: OpenOption = False,
    page: PageOption = "127.0.0.1:8080",
) -> None:
    """Show what a transformer attends to: a picture for photos, token by token for texts, a sheet for many."""
    check_output(output, (*_SUFFIXES, *RESULT_SUFFIXES))
    is_bulk = bulk.wants(sources, output) or bulk.lines or len(sources) > 1
    if is_bulk:
        _refuse_for_many({"--pair": pair, "--compare": compare, "--json": as_json, "--open": open_page})
    if is_results(output):
        asked = {**dataclasses.asdict(options), "prompt": prompt, "truncate": truncate}
        _write_many(Work(context.obj, "attend", sources, bulk, output, asked), options, model, prompt, truncate)
        return
    if is_bulk:
        _refuse_for_many({"--prompt": prompt})
        photos = read_photos(bulk.gathering.read(sources))
        name = Path(sources[0]).resolve().name if is_folder(sources[0]) else "photos"
        _draw_sheet(context.obj, output or Path(f"{name}-attention.png"), photos, options, model, style)
        return
    given = read_pair(sources[0], pair, as_text=bulk.as_text)
    view = choose_view(options, is_photo=given.image is not None)
    client: Client = context.obj
    models = _models(client, given, model, compare)
    if open_page:
        for option, value in {"-o": output, "--json": as_json, "--prompt": prompt}.items():
            if value:
                raise InputError(f"{option}: with --open it is shown on the page alone; expected none")
        from regard.opening import open_on_page  # Starlette is needed here alone

        open_on_page(page, explorer_settings(context), given, models, view, options, style, truncate=truncate)
        return
    answers = [_ask(client, given, each, view, options, prompt, truncate) for each in models]
    if as_json:
        for answer in answers:
            print_json(dataclasses.asdict(answer.answer))
    elif given.text is not None or view in CHARTS:
        for answer in answers:
            _print(answer)
    if output is None and given.image is not None and not as_json:
        output = Path(f"{Path(given.name).stem}-attention.png")
    if output is not None:
        _draw(output, view, style, given, answers)


def _refuse_for_many(given: dict[str, object]) -> None:
    if wrong := [option for option, value in given.items() if value]:
        raise InputError(f"{wrong[0]}: many inputs are drawn as one sheet or written with -o; expected none")


def _write_many(work: Work, options: ViewOptions, model: str, prompt: str, truncate: bool) -> None:
    """Write what a view shows of each input, as numbers."""

    def ask(name: str, first: Source, inputs: dict[str, Any]) -> Iterator[Any]:
        taking = work.client.model(name).of(first.modality)
        if step_kind(options, taking):
            raise InputError(f"-o {work.output}: {name} writes; expected --kind encoder, or regard generate")
        asked = request_for(choose_view(options, is_photo=first.modality == "image"), options, taking)
        return work.client.attend_many(**inputs, model=name, attention=asked, prompt=prompt, truncate=truncate)

    work.run(model, ask, lambda source, answer: None)


def _draw_sheet(
    client: Client, output: Path, photos: Sequence[Source], options: ViewOptions, name: str, style: PictureStyle
) -> None:
    """Ask for each photo of a folder, and draw all on one sheet."""
    view = choose_view(options, is_photo=True)
    for option, chosen in (("--layer", options.layers), ("--row", options.rows)):
        if len(chosen) > 1:
            raise InputError(f"{option} {', '.join(map(str, chosen))}: photos are drawn as one sheet; expected one")
    if view not in SHEETS:
        raise InputError(f"--view {view}: photos are drawn as one sheet; expected {' or '.join(SHEETS)}")
    if output.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(f"-o {output}: a sheet ends in {', '.join(PICTURE_SUFFIXES)}")
    (model,) = _models(client, photos[0], name, "")
    answers = [_ask(client, photo, model, view, options, "", truncate=False) for photo in photos]
    from regard.drawing import write_sheet  # as in _draw

    write_sheet(output, style, photos, answers)
    tell_written(output)


def _models(client: Client, source: Source, name: str, compare: str) -> list[Model]:
    """Return the model that is asked, and the one beside it."""
    first = client.model(name).of(source.modality) if name else choose(client, source, "attend")
    if not compare:
        return [first]
    second = client.model(compare).of(source.modality)
    if second.modality != source.modality:
        takes = f"takes {second.modality}s" if second.modality else "takes tensors only"
        raise InputError(f"--compare {compare}: this model {takes}; expected one for {source.modality}s")
    if source.second is not None and not second.takes_pairs:
        raise InputError(f"--compare {compare}: this model takes single texts; expected one for pairs")
    return [first, second]


def _ask(
    client: Client, source: Source, model: Model, view: View, options: ViewOptions, prompt: str, truncate: bool
) -> Answered:
    """Ask by the call that tells most; prompts are of those that embed."""
    if kind := step_kind(options, model):
        if prompt or source.pair:
            given_too = f"--prompt {prompt}" if prompt else "--pair"
            raise InputError(f"{given_too}: {model.name} writes of one text as it is; expected none, or --kind encoder")
        return _write(client, source, model, kind, request_for_steps(view, options), truncate)
    asked = request_for(view, options, model)
    answer: Classification | Embedding | AttentionResult
    given: dict[str, Any] = {**source.given, "model": model.name, "truncate": truncate}
    if model.can_classify and not prompt:
        answer = client.classify(**given, attention=asked)
    elif model.can_embed and not source.pair:
        answer = client.embed(**given, prompt=prompt, attention=asked)
    else:
        parts = client.attend(**given, prompt=prompt, attention=asked)
        answer = AttentionResult.join(model, list(parts))
    warn_if_cut(source, answer)
    if answer.attention is None or not answer.attention.layers:
        raise InputError("the server sent no attention")
    mixed = frozenset(one.layer for one in model.attention_layers if one.mixes_heads)
    return Answered(answer, answer.attention, asked, mixed)


def _write(
    client: Client, source: Source, model: Model, kind: StepKind, asked: AttentionRequest, truncate: bool
) -> Answered:
    """Let a model write, and put together what its tokens attended to."""
    options: GenerateOptions = {"model": model.name, "num_beams": 1, "truncate": truncate}
    options |= {"cross_attention": asked} if kind == "cross" else {"self_attention": asked}
    with client.generate(source.text or "", **options) as tokens:
        found = tokens.finish()
    attention = steps(found, kind)
    answer = AttentionResult(found.model, found.version, attention, found.truncated)
    warn_if_cut(source, answer)
    return Answered(answer, attention, asked)


def _print(answered: Answered) -> None:
    """Print a text's matrices, or the numbers of all heads."""
    attention, terminal = answered.attention, Terminal()
    if answered.asked.measure in CHARTS:
        for table in tables(attention, model=answered.answer.model, asked=answered.asked):
            terminal.print(Text(table.caption, "bold"), numbers_table(table), sep="\n\n", soft_wrap=True)
        return
    if not attention.tokens:
        raise InputError("the server sent no tokens")
    keys = attended(attention.tokens, attention.key_tokens)
    for layer in attention.layers:
        for matrix in matrices(layer, len(keys), answered.asked):
            title, shares = _percent(answered, layer, matrix)
            coloured = terminal.color_system is not None
            unit = "" if layer.layer in answered.mixed else " %"  # the title names it, which may be none of these
            picture = token_picture(
                shares, attention.tokens, width=terminal.width, colour=coloured, key_tokens=keys, unit=unit
            )
            terminal.print(Text(title, "bold"), picture, sep="\n\n", end="", soft_wrap=True)


def _percent(answered: Answered, layer: LayerAttention, matrix: Matrix) -> tuple[str, Matrix]:
    """Return a title and shares of 1; numbers that are none by themselves become shares of their row.

    Weights of mixed heads are no shares, but they are what there is to be seen: they stay as they are.
    """
    what, shares, unit = f"percent of {_PRINTED[layer.measure]}", matrix, unit_name(layer, answered.asked)
    mixed = layer.measure == "weights" and layer.layer in answered.mixed
    if layer.measure == "contribution" or (layer.measure == "weights" and answered.asked.value_weighted):
        what, shares = f"percent of each row's {'absolute ' if mixed else ''}{unit}", in_shares(matrix)
    elif mixed:
        what = f"hundredths of {unit}"
    name = f"{answered.answer.model} · {layer_name(layer)} · {matrix.name}"
    if answered.attention.key_tokens is None:
        who = "rows attend to columns"
    else:
        who = f"output attends to {'input' if layer.kind == 'cross' else 'what was written before'}"
    return f"{name} · {what}, {who}", shares


def _draw(output: Path, view: View, style: PictureStyle, source: Source, answers: Sequence[Answered]) -> None:
    from regard.drawing import write  # matplotlib takes half a second that the other commands need not spend

    write(output, view, style, source, answers)
    tell_written(output)
