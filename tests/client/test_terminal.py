"""A text's attention as characters."""

import numpy as np
import pytest
from rich.console import Console

from regard import Token
from regard.matrices import Matrix
from regard.tables import Table
from regard.terminal import clean, numbers_table, token_picture


def _picture(words: list[str], width: int, colour: bool = False) -> list[str]:
    """Draw tokens that attend to themselves only."""
    identity = np.eye(len(words), dtype=np.float32)
    positions = tuple(range(len(words)))
    tokens = [Token(0, word, 0, 0, False) for word in words]
    return token_picture(
        Matrix("head 0", positions, positions, identity), tokens, width=width, colour=colour
    ).plain.splitlines()


def test_where_there_is_room_cells_are_percentages() -> None:
    """Keys are written downwards, each above its column."""
    assert _picture(["on", "a", "mat"], 80) == [
        "            m",
        "      o     a",
        "      n  a  t",
        " on 100  ·  ·",
        "  a   ·100  ·",
        "mat   ·  ·100",
    ]


def test_where_there_is_less_room_cells_are_shades() -> None:
    """Forty tokens fit a terminal of eighty characters."""
    lines = _picture([f"w{number}" for number in range(40)], 80)
    assert max(map(len, lines)) <= 80
    assert lines[-40] == " w0 █" + " " * 39


def test_where_there_is_no_room_each_row_names_what_it_looks_at() -> None:
    """A hundred tokens do not fit."""
    lines = _picture([f"w{number}" for number in range(100)], 80)
    assert len(lines) == 100
    assert lines[7].startswith(" w7 attends to w7 100 %, w0 0 %")


def test_long_and_wide_tokens_keep_the_columns_straight() -> None:
    """Long ones are cut; letters two cells wide have room or become a dot."""
    lines = _picture(["internationalisation", "猫"], 80)
    assert lines[-2].startswith("international… 100")
    assert lines[-1].startswith(" " * 12 + "猫   ·100")


def test_control_characters_are_not_sent_to_the_terminal() -> None:
    """A label may hold anything."""
    assert clean("\x1b[31mred\n") == "·[31mred·"


def test_what_was_not_sent_is_a_dot_and_keys_left_out_have_no_column() -> None:
    """The largest of each row alone, of two of three tokens."""
    weights = np.array([[np.nan, 0.7], [0.6, np.nan]], np.float32)
    tokens = [Token(0, word, 0, 0, False) for word in ("[C]", "a", "b")]
    picture = token_picture(Matrix("head 0", (1, 2), (1, 2), weights), tokens, width=80, colour=False)
    assert picture.plain.splitlines() == ["    a  b", "a   · 70", "b  60  ·"]


@pytest.mark.parametrize("colour", [False, True])
def test_numbers_below_0_are_drawn_as_0(colour: bool) -> None:
    """As mixed heads have them: in cells with digits, as shades, and where a row names what it attends to."""
    weights = np.array([[0.5, -1.25], [-0.1, -0.2]], np.float32)
    tokens = [Token(0, word, 0, 0, False) for word in ("a", "b")]
    matrix = Matrix("head 0", (0, 1), (0, 1), weights)
    drawn = {width: token_picture(matrix, tokens, width=width, colour=colour) for width in (80, 4, 3)}
    assert drawn[80].plain.splitlines() == ["    a  b", "a  50  ·", "b   ·  ·"]
    assert drawn[4].plain.splitlines()[1:] == (["a   ", "b   "] if colour else ["a █ ", "b   "])
    assert drawn[3].plain.splitlines() == ["a attends to a 50 %, b 0 %", "b attends to a 0 %, b 0 %"]
    told = token_picture(matrix, tokens, width=3, colour=colour, unit="").plain.splitlines()
    assert told == ["a attends to a 50, b 0", "b attends to a 0, b 0"]


def test_numbers_have_three_digits_and_gaps_stay_empty() -> None:
    """One named row each."""
    console = Console(width=60, record=True)
    with console.capture() as captured:
        console.print(numbers_table(Table("entropy", ["head 0", "head 1"], ["layer 0"], [[1.23456, None]])))
    heading, row = captured.get().splitlines()
    assert heading.split("  ")[-2:] == ["head 0", "head 1 "]
    assert row.split() == ["layer", "0", "1.235"]
