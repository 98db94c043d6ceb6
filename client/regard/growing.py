"""What each token of a text attended to in the source: drawn when all is written, or row by row as tokens come."""

import dataclasses

from rich.text import Text

from regard.attention import Attention, LayerAttention, Token
from regard.console import Terminal
from regard.generate_calls import TokenStream
from regard.generation import Generated, GeneratedText, GeneratedToken, StepKind
from regard.matrices import Matrix, layer_name, one_matrix
from regard.terminal import RowPainter, clean, label_room, token_picture

_START, _END, _OPEN = "(start)", "(end)", "\ufffd"


def print_alignment(found: Generated, terminal: Terminal) -> None:
    """Draw the alignment of the best result, below a title."""
    layer = found.results[0].alignment()
    matrix = one_matrix(layer, len(found.source))
    coloured = terminal.color_system is not None
    picture = token_picture(matrix, written(found), width=terminal.width, colour=coloured, key_tokens=found.source)
    terminal.print(_title(found.model, layer, matrix), picture, sep="\n\n", end="", soft_wrap=True)


def print_rows(tokens: TokenStream, model: str, terminal: Terminal) -> None:
    """Print a row for each token when it comes, below a title.

    What is drawn brightest is a weight of 1: nobody knows yet which will be the largest. A token without a text is
    named by what follows: behind the last one the text has ended.
    """
    painter: RowPainter | None = None
    unnamed: GeneratedToken | None = None
    for token in tokens:
        painter = painter or _begin(tokens, token, model, terminal)
        if unnamed:
            _print_row(painter, unnamed, token_name(unnamed), terminal)
        unnamed = None if token.text else token
        if token.text:
            _print_row(painter, token, token_name(token), terminal)
    found = tokens.finish()
    if painter and unnamed:
        _print_row(painter, unnamed, _last_name(found.results[0]), terminal)
    if painter:
        terminal.print()


def _begin(tokens: TokenStream, first: GeneratedToken, model: str, terminal: Terminal) -> RowPainter:
    """Print a title, and what stands above the rows."""
    layer, matrix = _row_of(first)
    columns = [clean(token.text) for token in tokens.source]
    width, coloured = terminal.width, terminal.color_system is not None
    painter = RowPainter(columns, label_room(width), width, coloured)
    terminal.print(_title(model, layer, matrix), painter.heading(), sep="\n\n", end="", soft_wrap=True)
    return painter


def _print_row(painter: RowPainter, token: GeneratedToken, name: str, terminal: Terminal) -> None:
    terminal.print(painter.row(name, _row_of(token)[1].weights[0]), end="", soft_wrap=True)


def _row_of(token: GeneratedToken) -> tuple[LayerAttention, Matrix]:
    layer = GeneratedText(token.text, token.log_probability, "unspecified", (token,)).alignment()
    return layer, one_matrix(layer, layer.weights.shape[-1])


def _title(model: str, layer: LayerAttention, matrix: Matrix) -> Text:
    shown = f"{model} · {layer_name(layer)} · {matrix.name} · percent of attention, output attends to input"
    return Text(shown, "bold")


def written(found: Generated) -> list[Token]:
    """Return what was written, as positions of a picture."""
    result = found.results[0]
    named = [Token(one.token, token_name(one), 0, 0, special=not one.text) for one in result.tokens]
    if named:
        named[-1] = dataclasses.replace(named[-1], text=_last_name(result))
    return named


def steps(found: Generated, kind: StepKind) -> Attention:
    """Put together what the tokens of the best result attended to, of all layers that were sent.

    Of self attention, what the decoder begins with is named "(start)": nobody tells its tokens.

    Raises:
        LookupError: No attention of this kind was sent.
    """
    result = found.results[0]
    names, keys = written(found), list(found.source)
    sent = [one.layer for one in result.tokens[0].attention] or [-1]
    layers = tuple(result.alignment(layer, kind) for layer in sent)
    if kind == "self":
        first = layers[0].queries[0]
        start = [Token(0, _START, 0, 0, special=True)] * (first + 1)
        names, keys = start[:first] + names, start + names[:-1]
    return Attention(layers, tuple(names), truncated=found.truncated, key_tokens=tuple(keys))


def _last_name(result: GeneratedText) -> str:
    """Name the last token, which has no text where it ends the text.

    An end is forced on a text that is as long as may be. A token that leaves a character open has no text either, but
    the text then ends with a sign for that.
    """
    last = result.tokens[-1]
    forced = result.finish_reason == "length" and not last.text and not result.text.endswith(_OPEN)
    return _END if forced or result.finish_reason in ("end", "target") else token_name(last)


def token_name(token: GeneratedToken) -> str:
    """Name a token by its text, for one line."""
    return clean(token.text).strip() or "·"
