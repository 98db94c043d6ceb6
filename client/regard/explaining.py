"""Why a label, at the command line: the options of `regard classify --why`, what they print and what they draw."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import typer
from rich.bar import Bar
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from regard.answers import Classification
from regard.console import PICTURE_SUFFIXES, Terminal, check_output, tell_written
from regard.errors import RegardError
from regard.reasons import AGAINST_COLOUR, FOR_COLOUR, headline, is_signed, layer_name, others, strongest, written
from regard.relevance import Relevance, RelevanceMethod, RelevanceRequest
from regard.results import RESULT_SUFFIXES
from regard.sources import InputError, Source
from regard.terminal import clean
from regard.views import Size, Theme

_MOST, _BAR_CELLS, _DIGITS, _MOST_AT_LAYER = 20, 40, 4, 3
_WHY = "--why"
_FIELD = re.compile(r"relevance(?:\.(\w+))?(?:\[\d+\])?(?=:)")  # which an error's message begins with
_OPTIONS = {"label": _WHY, "labels": _WHY, "tokens": _WHY, "top": "--why-top"}

WHY_OPTIONS = {
    "why": typer.Option(
        _WHY,
        metavar="[LABEL]",
        help="Say why it is this label, or the most probable one: which tokens or patches spoke for it and against "
        "it; -o .png, .svg or .pdf draws that. Stands behind the inputs. Given several times, of each label.",
    ),
    "why_top": typer.Option(min=0, metavar="N", help="The same of the N most probable labels."),
    "method": typer.Option(
        metavar="METHOD",
        help=f"How --why explains, as the model was exported: {', '.join(get_args(RelevanceMethod))}.",
    ),
    "by_layer": typer.Option(
        "--by-layer", help="Of --why: where in the network it is, at each depth, as models exported for it tell."
    ),
    "steps": typer.Option(min=0, metavar="N", help="Of integrated-gradients: at how many points; 0 for 64."),
    "against": typer.Option(metavar="LABEL", help="Of --why LABEL: why that one and not this."),
    "size": typer.Option(help="Of its picture; screen: dark, 150 dpi; print: light, 17 cm wide, 300 dpi."),
    "theme": typer.Option(help="Instead of the size's own."),
}


class WhyCommand(TyperCommand):
    """A command whose --why may stand without a label, which typer has no option for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put an empty label behind a --why that ends the line or stands before another option."""
        ends = args.index("--") if "--" in args else len(args)
        filled = []
        for place, each in enumerate(args):
            bare = each == _WHY and place < ends and (place + 1 == len(args) or args[place + 1].startswith("-"))
            filled.append(f"{_WHY}=" if bare else each)
        return super().parse_args(ctx, filled)


@dataclass(frozen=True)
class WhyOptions:
    """What is to be explained, as the options of the command line say it.

    Attributes:
        why: The labels; an empty one for the most probable, none for no explanation.
        why_top: How many of the most probable, instead; 0 for none.
        method: How they are explained.
        steps: Of integrated gradients; 0 for the server's own number.
        against: What it is told apart from; empty for none.
        by_layer: Whether it is told at each depth.
        size: Of the picture; None for that of a screen.
        theme: Of it; None for the size's own.
    """

    why: tuple[str, ...] = ()
    why_top: int = 0
    method: RelevanceMethod = "libra"
    steps: int = 0
    against: str = ""
    by_layer: bool = False
    size: Size | None = None
    theme: Theme | None = None

    @property
    def request(self) -> RelevanceRequest | None:
        """What is asked of the server; None for nothing."""
        if not self.is_asked:
            return None
        how: dict[str, Any] = {"method": self.method, "steps": self.steps, "by_layer": self.by_layer}
        if self.why_top:
            return RelevanceRequest(top=self.why_top, **how)
        if len(self.why) > 1:
            return RelevanceRequest(labels=self.why, **how)
        return RelevanceRequest(label=self.why[0], against=self.against, **how)

    @property
    def is_asked(self) -> bool:
        """Whether anything is to be explained."""
        return bool(self.why) or self.why_top > 0

    @property
    def asked(self) -> dict[str, str]:
        """What must be the same where a run goes on; empty for no explanation."""
        if not self.is_asked:
            return {}
        layers = {"by_layer": "yes"} if self.by_layer else {}
        method = {"method": self.method, "steps": str(self.steps)}
        return {"why": ",".join(self.why), "against": self.against, **method, **layers}

    def check(self, output: Path | None, labels: str, *, is_many: bool) -> None:
        """Refuse options that contradict each other, and a file that could not be written.

        Raises:
            BadParameter: The file has another suffix than can be written.
            InputError: Any other.
        """
        self._check_labels(output)
        pictures = () if not self.is_asked or is_many else PICTURE_SUFFIXES
        if is_many and self.is_asked and _is_picture(output):
            raise InputError(f"-o {output}: a picture is of one input; expected {_listed(RESULT_SUFFIXES)} of several")
        what = "pictures and answers are written" if pictures else "answers are written"
        hint = "" if self.is_asked or not _is_picture(output) else " (pictures with --why)"
        check_output(output, (*pictures, *RESULT_SUFFIXES), f"{what}{hint}")
        if self.against and (not self.is_asked or self.why == ("",)):
            wrong = "--why without a label" if self.why else "no --why"
            raise InputError(f"--against {self.against}: given with {wrong}; expected --why LABEL with it")
        if (self.against,) == self.why and self.against:
            raise InputError(f"--against {self.against}: the label of --why itself; expected another")
        if self.is_asked and labels:
            raise InputError(f"--labels {labels}: given with --why, which explains a model's own labels; expected none")
        if (self.size or self.theme) and not (_is_picture(output) and self.is_asked):
            given = f"--size {self.size}" if self.size else f"--theme {self.theme}"
            raise InputError(
                f"{given}: given without a picture; expected --why and -o with {_listed(PICTURE_SUFFIXES)}"
            )

    def _check_labels(self, output: Path | None) -> None:
        several = len(self.why) > 1 or self.why_top > 0
        if self.why and self.why_top:
            raise InputError(f"--why-top {self.why_top}: given with --why; expected one of both")
        if several and "" in self.why:
            raise InputError("--why: given several times and once without a label; expected one each time")
        if several and self.against:
            raise InputError(f"--against {self.against}: given with several labels; expected one --why LABEL")
        if several and output is not None:
            raise InputError(f"-o {output}: holds one explanation of an input; expected one --why, or --json")
        if not self.is_asked and (self.method != "libra" or self.steps or self.by_layer):
            other = f"--steps {self.steps}" if self.steps else "--by-layer"
            given = other if self.method == "libra" else f"--method {self.method}"
            raise InputError(f"{given}: given with no --why; expected it with --why")
        if self.steps and self.method != "integrated-gradients":
            raise InputError(f"--steps {self.steps}: given with {self.method}; expected integrated-gradients")
        if self.by_layer and self.method != "libra":
            raise InputError(f"--by-layer: given with {self.method}; expected libra, the method without --method")

    def checked(self, answers: Iterable[Any]) -> Iterator[Any]:
        """Yield answers and errors of several inputs.

        Raises:
            InputError: The server did not say why of an answer, and it was asked.
        """
        with named_by_option():
            for one in answers:
                if isinstance(one, RegardError):
                    _name_by_option(one)
                elif self.is_asked:
                    explained(one, by_layer=self.by_layer)
                yield one

    def draw(self, output: Path, source: Source, answer: Classification) -> None:
        """Draw it over the photo, or token by token, and write that.

        Raises:
            OSError: The file cannot be written.
        """
        from regard import pictures  # matplotlib takes half a second that the other commands need not spend

        style = pictures.make_style(self.size or "screen", self.theme)
        why = explained(answer)
        if self.by_layer:
            photo = None if source.image is None else pictures.open_photo(source.image)
            drawn = pictures.relevance_layers(why, model=answer.model, photo=photo, style=style)
        elif source.image is not None:
            drawn = pictures.relevance_map(pictures.open_photo(source.image), why, model=answer.model, style=style)
        else:
            drawn = pictures.relevance_text(why, model=answer.model, style=style)
        pictures.save(drawn, output)
        tell_written(output)


@contextmanager
def named_by_option() -> Iterator[None]:
    """Let errors name the option of the command line, where they name a field of RelevanceRequest.

    Raises:
        RegardError: That of the call within.
    """
    try:
        yield
    except RegardError as error:
        _name_by_option(error)
        raise


def _name_by_option(error: RegardError) -> None:
    if found := _FIELD.match(error.message):
        field = found[1] or "why"
        option = _OPTIONS.get(field, f"--{field.replace('_', '-')}")
        error.message = f"{option}{error.message[found.end() :]}"


def explained(answer: Classification, *, by_layer: bool = False) -> Relevance:
    """Return why an answer has its label.

    Raises:
        InputError: The server did not say, or not by layer where that was asked for.
    """
    if answer.relevance is None:
        raise InputError("the server sent no relevance; expected one that knows ClassifyRequest.relevance")
    if by_layer and answer.relevance.by_layer is None:
        raise InputError("the server sent none by layer; expected one that knows RelevanceRequest.by_layer")
    return answer.relevance


def print_why(answer: Classification, *, by_layer: bool = False) -> None:
    """Print what is explained, then each position's number with a bar, the strongest first, then the rest; layers."""
    explained(answer, by_layer=by_layer)
    for why in answer.relevances:
        terminal = Terminal()
        terminal.print("", Text(clean(headline(why)), "bold"), soft_wrap=True, sep="\n")
        terminal.print(why_table(why))
        if by_layer:
            terminal.print("", layer_table(why), sep="\n")


def why_table(why: Relevance) -> Table:
    """Return each position's number with a bar, the strongest first, then what is in no position that was sent."""
    ranked = strongest(why)
    shown, hidden = ranked[:_MOST], ranked[_MOST:]
    beside = [(f"{len(hidden)} others", sum(value for _, value in hidden))] if hidden else []
    beside += others(why)
    most = max((abs(value) for _, value in (*shown, *beside)), default=0) or 1.0
    largest = abs(ranked[0][1]) if ranked and ranked[0][1] else 1.0
    digits = max(_DIGITS, _DIGITS - 1 - math.floor(math.log10(largest)))  # the strongest has so many of its own
    zero = most if is_signed(why) else 0.0
    table = Table.grid(padding=(0, 2))
    for name, value in shown:
        table.add_row(Text(clean(name)), written(why, value, f".{digits}f"), _bar(value, zero, most))
    for name, value in beside:
        table.add_row(Text(name, "dim"), written(why, value, f".{digits}f"), _bar(value, zero, most))
    return table


def layer_table(why: Relevance) -> Table:
    """Return for each depth what the positions did together, what is added behind, and the strongest positions."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for name in ("", "positions", "added behind", "strongest"):
        table.add_column(name, header_style="dim", justify="right" if name in ("positions", "added behind") else "left")
    for layer in range(len(why.by_layer.values) if why.by_layer else 0):
        there = why.at_layer(layer)
        held = float(there.values.sum()) + there.unsent
        most = " · ".join(f"{name} {value:+.3g}" for name, value in strongest(there)[:_MOST_AT_LAYER] if value)
        table.add_row(layer_name(layer), f"{held:+.4f}", f"{there.rest:+.4f}", Text(clean(most)))
    return table


def _bar(value: float, zero: float, most: float) -> Bar:
    """Draw a number from where 0 is, to the right where it is above, else to the left."""
    begin, end = sorted((zero, zero + value))
    return Bar(zero + most, begin, end, width=_BAR_CELLS, color=FOR_COLOUR if value > 0 else AGAINST_COLOUR)


def _is_picture(output: Path | None) -> bool:
    return output is not None and output.suffix.lower() in PICTURE_SUFFIXES


def _listed(suffixes: Sequence[str]) -> str:
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
