"""How tokens and titles are written: what is shown of a token, how wide it comes out, which font has its letters."""

import contextlib
import functools
import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence

from matplotlib import font_manager
from matplotlib.font_manager import FontEntry, FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import text_to_path

from regard.attention import Token
from regard.matrices import tokens_at

POINTS_PER_INCH = 72
SMALLEST_POINTS = 7.0
_LONGEST_LETTERS = 24
LINE_SHARE = 1.3
_USUAL_FONT = "DejaVu Sans"
_REGULAR_WEIGHT = 400
_MAX_NAMED = 12
_WITHOUT_LETTERS = ("Last Resort", "STIXNonUni")
"""Fonts that have a box for every letter, or letters of their own where others have none."""


class MissingFont(UserWarning):
    """Letters come out as boxes, since no installed font has them."""


def words(tokens: Sequence[Token], positions: Iterable[int]) -> list[str]:
    """Return what stands at some positions, as an axis names it.

    Raises:
        ValueError: There are fewer tokens than that.
    """
    return [printable(token.text) for token in tokens_at(tokens, positions)]


def printable(text: str) -> str:
    """Cut a long word, show control characters as dots, keep matplotlib from reading dollar signs as a formula."""
    shown = "".join(letter if letter.isprintable() else "·" for letter in text)
    shown = shown if len(shown) <= _LONGEST_LETTERS else f"{shown[: _LONGEST_LETTERS - 1]}…"
    return shown.replace("$", r"\$")


def cut(name: str, width_inches: float, points: float) -> str:
    """Return a name in one line, with … in its middle where it is wider."""
    shown, kept = name, len(name)
    while kept > 1 and text_inches(shown, points) > width_inches:
        kept -= 1
        shown = f"{name[: kept // 2]}…{name[len(name) - (kept - kept // 2) :]}"
    return shown.replace("$", r"\$")


def named(count: int, inches: float, points: float) -> range:
    """Which of so many rows or columns have room for a name: all, or every second and so on."""
    fitting = max(1, int(inches * POINTS_PER_INCH / (1.15 * points)))
    return range(0, count, max(1, -(-count // fitting)))


def text_inches(text: str, points: float) -> float:
    """Return how wide a line of text comes out; a letter that the usual font lacks counts as an M."""
    font = font_manager.get_font(font_manager.findfont(_USUAL_FONT))
    known = "".join(letter if font.get_char_index(ord(letter)) else "M" for letter in text)
    if not known:
        return 0.0
    width, _, _ = text_to_path.get_text_width_height_descent(known, FontProperties(size=points), ismath=False)
    return float(width) / POINTS_PER_INCH


def height_inches(text: str, points: float) -> float:
    """Return how high some lines of text come out."""
    return (text.count("\n") + 1) * points * LINE_SHARE / POINTS_PER_INCH


def wrapped(title: str, width_inches: float, points: float) -> str:
    """Break a title into as few lines as fit a width, and these into about the same length."""
    for count in range(1, title.count(" ") + 2):
        for letters in range(math.ceil(len(title) / count), len(title) + 1):
            lines = textwrap.wrap(title, letters, break_on_hyphens=False, break_long_words=False)
            if max(text_inches(line, points) for line in lines) > width_inches:
                break
            if len(lines) <= count:
                return "\n".join(lines)
    return "\n".join(title.split(" "))


def longest_inches(names: Sequence[str], points: float) -> float:
    """Return how wide the longest of some words comes out."""
    return max((text_inches(name, points) for name in names), default=0.0)


def fonts_for(names: Iterable[str]) -> list[str]:
    """Return matplotlib's own font, and installed ones that have the letters which it lacks (Chinese, say).

    Letters that no font has come out as boxes, of which a warning says so.
    """
    missing = {letter for name in names for letter in name if letter.isprintable()}
    missing -= _letters_in(font_manager.findfont(_USUAL_FONT), missing)
    fonts = [_USUAL_FONT]
    for entry in sorted(_installed(), key=_distance) if missing else ():
        found = _letters_in(entry.fname, missing)
        if found:
            fonts.append(entry.name)
            missing -= found
        if not missing:
            break
    if missing:
        warnings.warn(_lacking(missing), MissingFont, stacklevel=2)
    return fonts


@functools.cache
def _installed() -> list[FontEntry]:
    """Return the fonts that matplotlib knows, and those that were installed after it wrote its list to a cache."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with contextlib.suppress(RuntimeError, OSError):  # of a kind that it cannot draw, as bitmap emoji
                font_manager.fontManager.addfont(path)
    return font_manager.fontManager.ttflist


def _lacking(letters: set[str]) -> str:
    shown = "".join(sorted(letters)[:_MAX_NAMED])
    more = f" and {len(letters) - _MAX_NAMED} more" if len(letters) > _MAX_NAMED else ""
    return f"no installed font has {shown}{more}: drawn as boxes; expected one of Google's Noto fonts, say"


def _distance(entry: FontEntry) -> tuple[bool, bool, str]:
    """Upright and regular fonts come first."""
    return entry.style != "normal", entry.weight != _REGULAR_WEIGHT, entry.name


def _letters_in(path: str, letters: set[str]) -> set[str]:
    """Return those letters that a font draws; none where FreeType cannot scale it, as with bitmap emoji."""
    try:
        font = FT2Font(path)
    except (RuntimeError, OSError):
        return set()
    if not font.scalable or font.family_name.startswith(_WITHOUT_LETTERS):
        return set()
    return {letter for letter in letters if font.get_char_index(ord(letter))}
