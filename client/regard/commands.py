"""The commands of `regard`, built with typer."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from regard.aligning import align
from regard.answers import Classification, Embedding, TextRole, VectorFormat
from regard.application import start
from regard.attending import attend
from regard.bulk_commands import BULK_OPTIONS, BulkOptions, Work
from regard.client import Client
from regard.comparing import compare
from regard.console import (
    JsonOption,
    ModelOption,
    PairOption,
    PromptOption,
    ResultsOption,
    SourcesArgument,
    Terminal,
    TruncateOption,
    choose,
    choose_both,
    print_json,
    warn_if_cut,
)
from regard.examples import EXAMPLES
from regard.explaining import WHY_OPTIONS, WhyCommand, WhyOptions, named_by_option, print_why
from regard.flags import takes
from regard.generating import generate
from regard.lines import ask_each, read_lines
from regard.ranking import rank
from regard.sources import InputError, Source, Task, read_labels, read_pair, read_source
from regard.start import connect, explorer_settings, new_app
from regard.states_file import STATES_OPTIONS, StatesOptions
from regard.studying import study
from regard.summaries import show_vector
from regard.terminal import TABLE_CELLS, clean, cosine_table, labels_line, labels_table, models_list, models_table

app = new_app()
app.callback()(connect)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="As the models folder names it.")]


@app.command(epilog=EXAMPLES["models"])
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models: what they take, what they can do; and versions that are not served, with the reason."""
    client: Client = context.obj
    served = client.models()
    if as_json:
        print_json([dataclasses.asdict(model) for model in served])
        return
    terminal = Terminal()
    terminal.print((models_table if terminal.width >= TABLE_CELLS else models_list)(served))
    for version in client.versions():
        if version.state != "READY" or version.reason:
            line = f"{version.model} {version.version} is {version.state}: {version.reason}".rstrip(": ")
            Terminal().print(Text(clean(line)), soft_wrap=True)


@app.command(epilog=EXAMPLES["load"])
def load(context: typer.Context, model: ModelArgument) -> None:
    """Let the server load a model's new and changed versions, and unload what is no longer wanted."""
    client: Client = context.obj
    loaded = client.load_model(model)
    typer.echo(f"regard: {loaded.name} {loaded.version} is served", err=True)


@app.command(epilog=EXAMPLES["unload"])
def unload(context: typer.Context, model: ModelArgument) -> None:
    """Let the server stop serving a model."""
    client: Client = context.obj
    client.unload_model(model)
    typer.echo(f"regard: {clean(model)} is no longer served", err=True)


@app.command(epilog=EXAMPLES["classify"], cls=WhyCommand)
@takes("why", WhyOptions, WHY_OPTIONS)
@takes("bulk", BulkOptions, BULK_OPTIONS)
def classify(
    context: typer.Context,
    sources: SourcesArgument,
    *,
    bulk: BulkOptions,
    pair: PairOption = None,
    model: ModelOption = "",
    why: WhyOptions,
    top_k: Annotated[int, typer.Option(min=1, help="How many labels.")] = 5,
    labels: Annotated[
        str, typer.Option(metavar="A,B,C", help="Of two towers: the labels to choose from, between commas.")
    ] = "",
    template: Annotated[str, typer.Option(help="The sentence that each of --labels is put into, at its {}.")] = "",
    truncate: TruncateOption = False,
    output: ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name what photos, texts or a pair of texts are; of many a line each, or a file with -o."""
    client: Client = context.obj
    is_many = bulk.wants(sources, output) or bulk.lines or len(sources) > 1
    why.check(output, labels, is_many=is_many)
    task: Task = "classify" if why.request is None else "explain"
    own: dict[str, Any] = {"candidate_labels": read_labels(labels), "label_template": template}
    if is_many:
        if pair is not None:
            raise InputError("--pair: each input is a text of its own; expected one")
        if bulk.lines and labels:
            raise InputError("--labels: each line is a text; expected no --lines")

        own |= {"top_k": top_k, "truncate": truncate}

        def ask(name: str, _: Source, inputs: dict[str, Any]) -> Iterator[Any]:
            yield from why.checked(client.classify_many(**inputs, model=name, relevance=why.request, **own))

        def show(source: Source, found: Classification) -> None:
            if as_json:
                print_json({"input": source.name, **dataclasses.asdict(found)})
            else:
                Terminal().print(labels_line(source.title, found), soft_wrap=True)

        name = model or (choose_both(client).name if labels else "")
        Work(client, task, sources, bulk, output, own | why.asked).run(name, ask, show)
        return
    (source,) = sources
    given = read_pair(source, pair, as_text=bulk.as_text)
    name = model or (choose_both(client) if labels else choose(client, given, task)).name
    with named_by_option():
        answer = client.classify(
            **given.given, model=name, top_k=top_k, truncate=truncate, relevance=why.request, **own
        )
    warn_if_cut(given, answer)
    if as_json:
        print_json(dataclasses.asdict(answer))
    else:
        Terminal().print(labels_table(answer))
        if why.request is not None:
            print_why(answer, by_layer=why.by_layer)
    if output is not None:
        why.draw(output, given, answer)


@app.command(epilog=EXAMPLES["embed"])
@takes("states", StatesOptions, STATES_OPTIONS)
@takes("bulk", BulkOptions, BULK_OPTIONS)
def embed(
    context: typer.Context,
    sources: SourcesArgument,
    *,
    bulk: BulkOptions,
    states: StatesOptions,
    model: ModelOption = "",
    prompt: PromptOption = "",
    truncate: TruncateOption = False,
    dimensions: Annotated[
        int, typer.Option(min=0, help="Only the first so many numbers, as regard models lists them (0: all).")
    ] = 0,
    vector_format: Annotated[
        VectorFormat, typer.Option("--format", help="What vectors travel as; binary is a bit a number.")
    ] = "float32",
    role: Annotated[TextRole, typer.Option(help="Of late interaction: what the texts are.")] = "document",
    max_terms: Annotated[int, typer.Option(min=0, help="Of sparse vectors: the heaviest so many terms (0: all).")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn photos or texts into vectors; of several print each pair's cosine, of many a line each, or a file."""
    client: Client = context.obj
    asked: dict[str, Any] = {"truncate": truncate, "prompt": prompt, "hidden_states": states.request()}
    asked |= {"dimensions": dimensions, "vector_format": vector_format, "max_terms": max_terms, "with_terms": True}
    asked["role"] = role
    if not states.layers and (bulk.wants(sources, states.output) or bulk.lines):

        def ask(name: str, _: Source, inputs: dict[str, Any]) -> Iterator[Any]:
            yield from client.embed_many(**inputs, model=name, **asked)

        def show(source: Source, found: Embedding) -> None:
            show_vector(source, found, as_json=as_json, states=False)

        Work(client, "embed", sources, bulk, states.output, asked).run(model, ask, show)
        return
    if bulk.lines:
        kept = list[tuple[Source, Embedding]]()
        texts = [text for source in sources for text in read_lines(source)]
        states.check_inputs(len(texts))
        taking = client.model(model) if model else choose(client, texts[0], "embed")
        try:
            for each, found in ask_each(
                texts,
                taking.max_inputs,
                lambda part: client.embed_many(texts=part, model=taking.name, **asked),
            ):
                show_vector(each, found, as_json=as_json, states=states.output is None)
                kept += [(each, found)] if states.output else []
        finally:  # an error of one line, or of a later call, loses none of the others
            states.save(kept)
        return
    given = [read_source(source, as_text=bulk.as_text) for source in sources]
    states.check_inputs(len(given))
    if len({source.modality for source in given}) > 1:
        name = _choose_for_both(client, model)
    else:
        name = model or choose(client, given[0], "embed").name
    answers = [client.embed(image=each.image, text=each.text, model=name, **asked) for each in given]
    for source, answer in zip(given, answers, strict=True):
        show_vector(source, answer, as_json=as_json, states=states.output is None)
    if len(answers) > 1 and not as_json and all(answer.tokens is None for answer in answers):
        Terminal().print("", cosine_table([each.title for each in given], [answer.to_floats() for answer in answers]))
    states.save(list(zip(given, answers, strict=True)))


app.command(epilog=EXAMPLES["rank"])(rank)
app.command(epilog=EXAMPLES["align"])(align)
app.command(epilog=EXAMPLES["compare"])(compare)
app.command(epilog=EXAMPLES["attend"])(attend)
app.command(epilog=EXAMPLES["study"])(study)
app.command(epilog=EXAMPLES["generate"])(generate)


@app.command(epilog=EXAMPLES["explore"])
def explore(
    context: typer.Context,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Port 0 takes a free one.")] = "127.0.0.1:8080",
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Listen where others reach it.")] = False,
    host_name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name of this machine that others use; may be repeated.")
    ] = None,
) -> None:
    """Show attention on a page in the browser: drop a photo or type a text, point at a patch or a token."""
    from regard.explorer import read_address  # Starlette is needed here alone
    from regard.explorer import serve as serve_page

    address = read_address(listen, allow_remote=allow_remote)
    settings = explorer_settings(context, *(host_name or ()), address.host)
    serve_page(settings, address, open_page=open_page)


_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command(context_settings=_PASSED_ON)
def serve(context: typer.Context) -> None:
    """Serve exported models, or the small one that regard brings (extra server); --help lists its own options."""
    raise typer.Exit(start("serve", context.args))


@app.command(context_settings=_PASSED_ON)
def export(context: typer.Context) -> None:
    """Export a network to an artifact that the server serves (extra export); --help lists its own options."""
    raise typer.Exit(start("export", context.args))


def _choose_for_both(client: Client, model: str) -> str:
    """Name a model that compares photos with texts."""
    served = [client.model(model)] if model else client.models()
    if not any(one.towers for one in served):
        raise InputError("photos and texts cannot be compared; give only photos or only texts")
    return model or choose_both(client).name
