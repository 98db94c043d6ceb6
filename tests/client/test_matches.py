"""The picture of late interaction: a line from each token of a query to what it found."""

import dataclasses

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from regard.attention import Token
from regard.pictures import PRINT, match_lines
from regard.scores import TokenMatches

QUERY = [Token(1, "[CLS]", 0, 0, special=True), Token(5, "white", 0, 5, special=False), Token(6, "whale", 6, 11, False)]
DOCUMENT = (Token(1, "[CLS]", 0, 0, special=True), Token(6, "whale", 0, 5, False), Token(7, "sea", 6, 9, False))
MATCHES = TokenMatches(np.array([0, 2, 1], np.int32), np.array([0.5, -0.25, 1.0], np.float32), DOCUMENT)


def test_each_token_has_a_line_to_what_it_found() -> None:
    """Wider where it is more alike, none below 0; special tokens in another colour, numbers beside the words."""
    figure = match_lines(QUERY, MATCHES, model="late", style=PRINT)
    (axes,) = figure.axes
    (lines,) = (one for one in axes.collections if isinstance(one, LineCollection))
    curves = [np.asarray(path.vertices) for path in lines.get_paths()]
    assert [(curve[0, 1], curve[-1, 1]) for curve in curves] == [(0, 0), (1, 2), (2, 1)]
    widths, colours = np.asarray(lines.get_linewidth()), np.asarray(lines.get_colors())
    assert widths[2] > widths[0] > widths[1]
    assert colours[1, 3] == 0
    assert (colours[0, :3] != colours[2, :3]).any()
    assert [text.get_text() for text in axes.texts][:3] == ["[CLS]  0.50", "white  -0.25", "whale  1.00"]
    assert "sum 1.25" in figure.get_suptitle()


def test_any_token_can_be_written() -> None:
    """Dollar signs are no formula, a line stays one, a long word is cut."""
    odd = [Token(5, text, 0, 5, special=False) for text in ("$$", "\n", "w" * 200)]
    figure = match_lines(odd, dataclasses.replace(MATCHES, document_tokens=tuple(odd)), model="late", style=PRINT)
    figure.canvas.draw()
    shown = [r"\$\$", "·", "w" * 23 + "…"]
    told = [f"{word}  {value}" for word, value in zip(shown, ("0.50", "-0.25", "1.00"), strict=True)]
    assert [text.get_text() for text in figure.axes[0].texts] == [*told, *shown]


def test_tokens_of_another_answer_are_refused() -> None:
    """By how many there are."""
    with pytest.raises(ValueError, match="matches of 3 tokens for 2 of the query"):
        match_lines(QUERY[:2], MATCHES, model="late")
    empty = dataclasses.replace(MATCHES, found=MATCHES.found[:0], similarities=MATCHES.similarities[:0])
    with pytest.raises(ValueError, match="matches of 0 tokens"):
        match_lines(QUERY, empty, model="late")
