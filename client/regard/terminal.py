"""What the command line shows in a terminal: tables, bars, and a text's attention token by token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.bar import Bar
from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.table import Table
from rich.text import Text

from regard.answers import Classification, Model
from regard.attention import Token
from regard.matrices import Matrix, attended, tokens_at
from regard.reasons import in_short
from regard.sources import Task, can_do
from regard.tables import Table as Numbers

_LABEL_CELLS, _LEAST_LABEL_CELLS = 14, 5
_HEADING_LINES = 10
TABLE_CELLS = 100
"""In fewer columns of a terminal, a table of models is no longer readable."""
_SHADES = " ░▒▓█"
_VIRIDIS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]])
"""Five colours of matplotlib's viridis, which colour-blind people can read, as RGB from 0 to 255."""


def models_table(models: Sequence[Model]) -> Table:
    """Draw what the server offers, one model a row."""
    table = Table(
        "name",
        "version",
        "family",
        "takes",
        "can",
        "layers x heads",
        "precision",
        "device",
        box=None,
        header_style="bold",
    )
    for model in models:
        cells = (
            model.name,
            model.version,
            model.family,
            _takes(model),
            _can(model),
            _depth(model),
            model.precision,
            model.device,
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def models_list(models: Sequence[Model]) -> Text:
    """Write what the table has, a paragraph a model, for terminals in which columns would not be readable."""
    lines = list[str]()
    for model in models:
        depth = "" if (found := _depth(model)) == "-" else f"; {found} layers x heads"
        lines += [f"{model.name} {model.version}", f"  {model.family}, {model.precision}, {model.device}{depth}"]
        lines += [f"  takes {_takes(model)}", f"  can {_can(model)}"]
    return Text("\n".join(lines))


def labels_table(answer: Classification) -> Table:
    """Draw labels with their probabilities and bars, most probable first."""
    table = Table.grid(padding=(0, 2))
    for label in answer.labels:
        bar = Bar(1, 0, label.probability, width=30, color="cyan")
        table.add_row(Text(clean(label.name)), f"{percent(label.probability):>5} %", bar)
    return table


def percent(share: float) -> str:
    """Write a share of 1 in percent, with as many digits as keep it from looking certain or impossible."""
    for digits in range(1, 6):
        text = f"{100 * share:.{digits}f}"
        if share in (0, 1) or float(text) not in (0, 100):
            return text
    return "<0.00001" if share < 0.5 else ">99.99999"


def cosine_table(names: Sequence[str], vectors: Sequence[NDArray[np.float32]]) -> Table:
    """Draw the cosine of every pair of vectors, each float32 [D]."""
    matrix = np.stack(vectors).astype(np.float64)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    table = Table("cosine", *(str(number) for number in range(1, len(names) + 1)), box=None, header_style="bold")
    for number, (name, row) in enumerate(zip(names, matrix @ matrix.T, strict=True), 1):
        label = set_cell_size(clean(name), min(40, cell_len(clean(name))))
        table.add_row(Text(f"{number} {label}"), *(f"{cosine:.3f}" for cosine in row))
    return table


@dataclass(frozen=True)
class RowPainter:
    """Draws the rows of a picture one by one: cells in columns, or the largest by name where columns do not fit.

    Attributes:
        columns: The words of the keys.
        label_cells: Characters of a row's own word.
        width: Characters across.
        colour: Whether the terminal shows colours.
        brightest: The weight that is drawn brightest.
        unit: Behind the numbers of keys that are named.
    """

    columns: Sequence[str]
    label_cells: int
    width: int
    colour: bool
    brightest: float = 1.0
    unit: str = " %"

    @property
    def cell(self) -> int:
        """Characters of a column; 0 where there is no room for columns."""
        return min((self.width - self.label_cells - 1) // len(self.columns), 3)

    def heading(self) -> Text:
        """Write what stands above the rows."""
        return _headings(self.columns, self.cell, self.label_cells) if self.cell > 0 else Text()

    def row(self, word: str, weights: NDArray[np.float32]) -> Text:
        """Draw what one query attends to, float32 [K], as a whole line; numbers below 0 as 0."""
        weights = np.maximum(weights, 0)
        line = Text(_label(word, self.label_cells))
        if self.cell < 1:
            most = ", ".join(
                f"{self.columns[key]} {100 * weights[key]:.0f}{self.unit}" for key in np.argsort(-weights)[:3]
            )
            return line.append(f"attends to {most}\n")
        for weight in weights:
            line.append_text(_cell(float(weight), self.brightest, self.cell, self.colour))
        return line.append("\n")


def label_room(width: int) -> int:
    """Return how many characters rows leave for words that are not known yet."""
    return min(_LABEL_CELLS, max(_LEAST_LABEL_CELLS, width // 8))


def token_picture(
    matrix: Matrix,
    tokens: Sequence[Token],
    *,
    width: int,
    colour: bool,
    key_tokens: Sequence[Token] | None = None,
    unit: str = " %",
) -> Text:
    """Draw who attends to whom in a text: rows are queries, columns are keys.

    Cells hold percentages where there is room, shades where there is less; where not even those fit, each row names
    the three tokens that it attends to most. Numbers below 0 are drawn as 0.

    Args:
        matrix: One head's weights, or what was made of several.
        tokens: All tokens of the text.
        width: Characters across.
        colour: Whether the terminal shows colours.
        key_tokens: Those that are attended to, where they are others: in cross-attention.
        unit: Of hundredths, behind the numbers of tokens that are named.
    """
    weights = np.nan_to_num(matrix.weights)
    sides = ((tokens, matrix.queries), (attended(tokens, key_tokens), matrix.keys))
    rows, columns = ([clean(token.text) for token in tokens_at(side, positions)] for side, positions in sides)
    brightest = max(float(weights.max()), 1e-9)
    painter = RowPainter(columns, min(_LABEL_CELLS, max(map(cell_len, rows))), width, colour, brightest, unit)
    picture = painter.heading()
    for word, row in zip(rows, weights, strict=True):
        picture.append_text(painter.row(word, row))
    return picture


def numbers_table(numbers: Numbers) -> Table:
    """Draw numbers with three digits after the point, one named row each."""
    table = Table("", *numbers.columns, box=None, header_style="bold")
    for name, row in zip(numbers.names, numbers.rows, strict=True):
        table.add_row(Text(clean(name)), *("" if value is None else f"{value:.3f}" for value in row))
    return table


def clean(text: str) -> str:
    """Replace what would move the cursor or change the terminal's colours."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def labels_line(title: str, answer: Classification) -> Text:
    """Write labels with their probabilities beside a text, most probable first, and why where that was asked for."""
    labels = ", ".join(f"{clean(label.name)} {percent(label.probability)} %" for label in answer.labels)
    why = "".join(f"; {clean(in_short(one))}" for one in answer.relevances)
    return Text(f"{clean(title)}: {labels}{why}")


def _takes(model: Model) -> str:
    if model.modality in ("text", "text or image"):
        pairs, images = " and pairs" if model.takes_pairs else "", " or images" if model.towers else ""
        return f"text{pairs}, up to {model.max_tokens} tokens{images}"
    if model.modality == "audio":
        return f"audio, {model.max_audio_seconds:g} s"
    return "images" if model.modality == "image" else "tensors"


def _sizes(model: Model) -> str:
    """Of a model's vectors."""
    if model.token_vector_dim:
        return f"{model.token_vector_dim} a token"
    if model.embedding_sparse:
        return f"sparse, {model.embedding_dim}"
    return ", ".join(map(str, (*model.matryoshka_dims, model.embedding_dim)))


def _can(model: Model) -> str:
    tasks: dict[Task, str] = {
        "classify": f"classify ({len(model.labels)})",
        "explain": "explain",
        "embed": f"embed ({_sizes(model)})",
        "rank": "rank",
        "attend": "attend",
        "generate": "generate, explain" if model.generation and model.generation.can_explain else "generate",
    }
    of_towers = ["classify (your labels)"] if model.towers else []
    of_towers += ["align"] if model.towers and model.towers.can_align else []
    return ", ".join(["predict", *(words for task, words in tasks.items() if can_do(model, task)), *of_towers])


def _depth(model: Model) -> str:
    if model.towers:
        return f"{_depth(model.towers.text)} + {_depth(model.towers.image)}"
    heads = sorted({layer.num_heads for layer in model.attention_layers})
    return f"{len(model.attention_layers)} x {'/'.join(map(str, heads))}" if heads else "-"


def _label(word: str, cells: int) -> str:
    shown = word if cell_len(word) <= cells else set_cell_size(word, cells - 1) + "…"
    return " " * (cells - cell_len(shown)) + shown + " "


def _headings(words: Sequence[str], cell: int, label_cells: int) -> Text:
    """Write the key tokens downwards, each ending just above its column, every second one dim to tell them apart."""
    lines = min(_HEADING_LINES, max(map(len, words)))
    shown = [(word if len(word) <= lines else word[: lines - 1] + "…").rjust(lines) for word in words]
    heading = Text(no_wrap=True)
    for line in range(lines):
        heading.append(" " * (label_cells + 1))
        for column, word in enumerate(shown):
            letter = word[line] if cell_len(word[line]) <= cell else "·"
            heading.append(" " * (cell - cell_len(letter)) + letter, "dim" if column % 2 else "")
        heading.append("\n")
    return heading


def _cell(weight: float, brightest: float, cell: int, colour: bool) -> Text:
    """Draw one weight; colours and shades follow the square root of its share, so that weak links stay visible."""
    share = min(1.0, (weight / brightest) ** 0.5)
    percent = round(100 * weight)
    text = (f"{percent}" if percent else "·").rjust(cell) if cell == 3 else " " * cell
    if colour:
        return Text(text, _style(share))
    return Text(text if cell == 3 else _SHADES[round(share * (len(_SHADES) - 1))] * cell)


def _style(share: float) -> Style:
    red, green, blue = (round(np.interp(share * 4, range(5), channel)) for channel in _VIRIDIS.T)
    return Style(color="black" if share > 0.6 else "white", bgcolor=f"rgb({red},{green},{blue})")
