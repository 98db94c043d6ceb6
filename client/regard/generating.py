"""The command `regard generate`: a text, as it is written, and what each of its tokens attended to."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from regard.answers import Model
from regard.attention import AttentionRequest
from regard.client import Client
from regard.console import (
    PICTURE_SUFFIXES,
    JsonOption,
    Terminal,
    TruncateOption,
    check_output,
    print_json,
    tell_cut,
    tell_written,
)
from regard.explained_tokens import print_token_relevance
from regard.explaining import named_by_option
from regard.flags import takes
from regard.generation import FinishReason, Generated, GeneratedToken, GenerateOptions, Sampling
from regard.growing import print_alignment, print_rows, token_name, written
from regard.sources import InputError, Source, can_do, read_source
from regard.terminal import clean
from regard.timed_words import request_word_times, word_times

_ENDS: dict[FinishReason, str] = {
    "end": "ended by the model",
    "length": "cut at the most tokens",
    "stop": "ended by --stop",
    "target": "all of the target",
    "unspecified": "ended",
}


@dataclasses.dataclass(frozen=True)
class WritingOptions:
    """How a text is to be written, as the options of the command line say it."""

    start: str = ""
    max_tokens: int = 0
    beams: int = 0
    results: int = 1
    length_penalty: float | None = None
    sample: bool = False
    temperature: float | None = None
    top_k: int = 0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    target: str | None = None
    alternatives: int = 0

    @property
    def sampling(self) -> Sampling | None:
        """How tokens are drawn, where any option of that is given."""
        wants = self.sample or self.top_k or any(one is not None for one in (self.temperature, self.top_p, self.seed))
        if not wants:
            return None
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(temperature, self.top_k, 1.0 if self.top_p is None else self.top_p, self.seed)

    @property
    def asked(self) -> GenerateOptions:
        """The arguments of a call."""
        return {
            "start": self.start,
            "max_tokens": self.max_tokens,
            "num_beams": self.beams,
            "num_results": self.results,
            "length_penalty": self.length_penalty,
            "sampling": self.sampling,
            "stop": self.stop,
            "target": self.target,
            "alternatives": self.alternatives,
        }

    def kept(self, model: Model) -> int:
        """How many beams that makes."""
        own = model.generation.num_beams if model.generation else 1
        return self.beams or (1 if self.sampling or self.target is not None else own)


_WRITING_OPTIONS = {
    "start": typer.Option(metavar="NAME", help="Of the model's starts, what it begins with (default: its own)."),
    "max_tokens": typer.Option(min=0, help="The most tokens that are written (0: the model's)."),
    "beams": typer.Option(min=0, help="Beginnings kept at each step; 1 takes the likeliest token (0: the model's)."),
    "results": typer.Option(min=1, help="How many of the beams to print, the best first."),
    "length_penalty": typer.Option(help="Of beams: ranked by log-probability / length ^ this (default: the model's)."),
    "sample": typer.Option("--sample", help="Draw tokens; so do the next four options."),
    "temperature": typer.Option(help="Above 1 flattens, below 1 sharpens what is drawn from."),
    "top_k": typer.Option(min=0, help="Draw among so many of the likeliest (0: all)."),
    "top_p": typer.Option(help="Draw among the likeliest that make up this probability."),
    "seed": typer.Option(min=0, help="Draw the same again."),
    "stop": typer.Option(metavar="TEXT", help="Write nothing behind this, may be repeated."),
    "target": typer.Option(metavar="TEXT", help="Score this text instead of writing one."),
    "alternatives": typer.Option(min=0, help="Print so many of each step's likeliest tokens."),
}

WriterArgument = Annotated[str, typer.Argument(metavar="MODEL", help="One that can generate, see regard models.")]
TextArgument = Annotated[
    str | None, typer.Argument(metavar="FILE|TEXT", help="What it reads: a text, a text file, or -; not with --audio.")
]
AudioOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What it hears: a WAV or FLAC file (default: none, it reads a text)."),
]
WordsOption = Annotated[bool, typer.Option("--words", help="Print when each word of what it hears was spoken.")]
AlignOption = Annotated[
    bool | None,
    typer.Option("--align/--no-align", help="Draw which source tokens each token attends to (default: on a terminal)."),
]
LayerOption = Annotated[int, typer.Option("--layer", help="Of the decoder; negative counts from the last.")]
HeadOption = Annotated[
    list[int] | None, typer.Option("--head", help="Head, may be repeated; several are averaged (default: all).")
]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", help="Picture of output by input: .png, .svg or .pdf (default: none).")
]
WhyOption = Annotated[
    bool, typer.Option("--why", help="Print what each source token did for each token; -o then draws that.")
]


@takes("writing", WritingOptions, _WRITING_OPTIONS)
def generate(
    context: typer.Context,
    model: WriterArgument,
    text: TextArgument = None,
    *,
    writing: WritingOptions,
    audio: AudioOption = None,
    words: WordsOption = False,
    align: AlignOption = None,
    layer: LayerOption = -1,
    head: HeadOption = None,
    why: WhyOption = False,
    output: OutputOption = None,
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let an encoder-decoder write a text, token by token; shows what each token attended to in the source."""
    check_output(output, PICTURE_SUFFIXES)
    source = None if audio else _read_text(text)
    if audio and (text is not None or align or (output and not why)):
        if text is not None:
            raise InputError("a text: given; expected none with --audio, which is what the model reads")
        given = "--align" if align else "-o"
        raise InputError(f"{given}: given; expected none with --audio, of which no alignment is drawn")
    client: Client = context.obj
    writer = client.model(model)
    if why:
        _check_why(writer, words=words)
    if words:
        _check_words(writing, writer, audio)
    aligns = _aligns(writing, writer, False if audio or (why and not align) else align, output, why, as_json=as_json)
    asked: GenerateOptions = {**writing.asked, "model": writer.name, "truncate": truncate, "audio": audio}
    asked["relevance"] = why
    if aligns:
        asked["num_beams"] = 1
        asked["cross_attention"] = AttentionRequest(layers=(layer,), heads=tuple(head or ()), reduce_heads="mean")
    if words:
        asked |= {"num_beams": 1, "cross_attention": request_word_times(writer)}
    by_step = writing.target is not None or writing.alternatives > 0
    draws, terminal = aligns and align is not False and not (as_json or words), Terminal()
    grows = draws and terminal.is_terminal and not by_step
    with named_by_option(), client.generate(source.text or "" if source else "", **asked) as tokens:
        if grows:
            print_rows(tokens, writer.name, terminal)
        has_streamed = not (grows or as_json or words) and _stream(tokens, by_step=by_step)
        found = tokens.finish()
    if found.truncated and source:
        tell_cut(source, found.model)
    if words:
        _print_words(found, writer, as_json=as_json)
    elif as_json:
        print_json(dataclasses.asdict(found))
    else:
        _print(found, text=not has_streamed, alignment=draws and not grows)
        if why:
            print_token_relevance(found)
    if output is not None:
        _draw(output, found, why=why)


def _read_text(text: str | None) -> Source:
    """Read what there is to read.

    Raises:
        InputError: It is nothing, or a photo.
    """
    if text is None:
        raise InputError("FILE|TEXT: missing; expected a text, a text file, - or --audio")
    source = read_source(text)
    if source.text is None:
        raise InputError(f"{source.title}: a photo; expected a text")
    return source


def _check_words(writing: WritingOptions, writer: Model, audio: Path | None) -> None:
    """Refuse what has no times.

    Raises:
        InputError: Nothing is heard, several beams are kept, or the model does not say which heads follow the sound.
    """
    if audio is None:
        raise InputError("--words: given without --audio; expected a sound, of which words have times")
    if writing.beams > 1:
        raise InputError(f"--beams {writing.beams}: times are of one; expected none, or no --words")
    if not (writer.generation and writer.generation.alignment_heads):
        raise InputError(
            f"--words: {writer.name} does not say which of its heads follow the sound; expected one that does"
        )


def _check_why(writer: Model, *, words: bool) -> None:
    """Refuse what cannot be explained.

    Raises:
        InputError: The model has no relevance, or times of words are printed.
    """
    if words:
        raise InputError("--why: given with --words; expected one of both")
    if writer.generation and not writer.generation.can_explain:
        raise InputError(f"--why: {writer.name} was exported without relevance of tokens; expected a model that has it")


def _print_words(found: Generated, writer: Model, *, as_json: bool) -> None:
    """Print a line for each word: when it begins and ends, in seconds, and the word."""
    times = word_times(found, writer)
    if as_json:
        print_json({"text": found.text, "start": found.start, "words": [dataclasses.asdict(one) for one in times]})
        return
    for one in times:
        Terminal().print(Text(f"{one.start_seconds:7.2f} {one.end_seconds:7.2f}  {clean(one.text)}"), soft_wrap=True)
    typer.echo(f"regard: {_summary(found)}", err=True)


def _aligns(
    writing: WritingOptions, model: Model, align: bool | None, output: Path | None, why: bool, *, as_json: bool
) -> bool:
    """Whether to ask for attention, which is of one beam alone.

    Raises:
        InputError: It is wanted of several beams, or the model writes nothing.
    """
    if not can_do(model, "generate"):
        raise InputError(f"{model.name} does not write texts; expected a model that can generate, see: regard models")
    wanted = bool(align) or (output is not None and not why)
    if wanted and writing.beams > 1:
        raise InputError(f"--beams {writing.beams}: the alignment is of one; expected none, or neither --align nor -o")
    return wanted or (align is None and not as_json and Terminal().is_terminal and writing.kept(model) == 1)


def _stream(tokens: Iterable[GeneratedToken], *, by_step: bool) -> bool:
    """Print tokens as they come, one a line where there is more to say of each; False where none came."""
    terminal, has_come = Terminal(), False
    for token in tokens:
        has_come = True
        line = _step(token) if by_step else Text(_lines(token.text))
        terminal.print(line, end="\n" if by_step else "", soft_wrap=True)
    if has_come and not by_step:
        terminal.print()
    return has_come


def _print(found: Generated, *, text: bool, alignment: bool) -> None:
    """Print what was not streamed, and how it went."""
    terminal = Terminal()
    if text and len(found.results) > 1:
        terminal.print(_ranking(found))
    elif text:
        terminal.print(Text(_lines(found.text)), soft_wrap=True)
    if alignment and found.source and found.results:
        terminal.print()
        print_alignment(found, terminal)
    typer.echo(f"regard: {_summary(found)}", err=True)


def _ranking(found: Generated) -> Table:
    """Write the results below each other, the best first."""
    table = Table("log-probability", "text", box=None, header_style="bold")
    for result in found.results:
        table.add_row(f"{result.log_probability:.4f}", Text(clean(result.text)))
    return table


def _step(token: GeneratedToken) -> Text:
    """Write a token with its probability, and those that might have been."""
    line = Text(f"{token_name(token):>12}  {_percent(token.log_probability)}")
    others = ", ".join(f"{clean(one.text)} {_percent(one.log_probability).strip()}" for one in token.alternatives)
    return line.append(f"   of {others}", "dim") if others else line


def _summary(found: Generated) -> str:
    """Say how much was written, why it ended and how long it took."""
    timings, result = found.timings, found.results[0]
    count = len(result.tokens)
    first_ms, later_ns = timings.first_token_ns / 1e6, timings.total_ns - timings.first_token_ns - timings.explain_ns
    told = f"begun with {clean(found.start)}: " if found.sound and found.start else ""
    told += f"{count} token{'' if count == 1 else 's'}, {_ENDS[result.finish_reason]}"
    told += f", log-probability {result.log_probability:.4f}; {first_ms:.1f} ms to the first"
    return f"{told}, {later_ns / 1e6 / (count - 1):.1f} ms each then" if count > 1 else told


def _percent(log_probability: float) -> str:
    return f"{100 * math.exp(log_probability):6.2f} %"


def _lines(text: str) -> str:
    """Make a text harmless for a terminal, its lines kept."""
    return "\n".join(map(clean, text.split("\n")))


def _draw(output: Path, found: Generated, *, why: bool) -> None:
    from regard import pictures  # matplotlib takes half a second that the other commands need not spend

    if why:
        drawn = pictures.token_matrix(found)
    else:
        layer = found.results[0].alignment()
        drawn = pictures.token_heatmap(layer, written(found), key_tokens=found.source, model=found.model)
    pictures.save(drawn, output)
    tell_written(output)
