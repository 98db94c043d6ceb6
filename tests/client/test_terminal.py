"""A text's attention as characters."""

import numpy as np

from regard import LayerAttention, Token
from regard.terminal import clean, token_picture


def _picture(words: list[str], width: int, colour: bool = False) -> list[str]:
    """Draw tokens that look at themselves only."""
    identity = np.eye(len(words), dtype=np.float32)
    layer = LayerAttention(0, "self", ("query", "key"), (0,), tuple(range(len(words))), identity)
    tokens = [Token(0, word, 0, 0, False) for word in words]
    return token_picture(layer, tokens, width=width, colour=colour).plain.splitlines()


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
    assert lines[7].startswith(" w7 looks at w7 100 %, w0 0 %")


def test_long_and_wide_tokens_keep_the_columns_straight() -> None:
    """Long ones are cut; letters two cells wide have room or become a dot."""
    lines = _picture(["internationalisation", "猫"], 80)
    assert lines[-2].startswith("international… 100")
    assert lines[-1].startswith(" " * 12 + "猫   ·100")


def test_control_characters_are_not_sent_to_the_terminal() -> None:
    """A label may hold anything."""
    assert clean("\x1b[31mred\n") == "·[31mred·"
