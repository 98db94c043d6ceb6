"""Where titles are broken."""

import pytest

from regard.pictures.lettering import text_inches, wrapped

TITLE = "vit-s14 · layer 11 · mean of 6 heads: what the class token attends to"


@pytest.mark.parametrize("width_inches", [1.0, 2.0, 3.0, 6.0])
def test_a_title_is_broken_into_lines_that_fit(width_inches: float) -> None:
    """No word is lost, and none is broken."""
    title = wrapped(TITLE, width_inches, 9)
    assert title.split() == TITLE.split()
    assert all(text_inches(line, 9) <= width_inches for line in title.split("\n"))


def test_the_lines_of_a_title_are_about_as_long_as_each_other() -> None:
    """Two halves, not a line and a word."""
    assert wrapped(TITLE, text_inches(TITLE, 9) * 0.95, 9).split("\n") == [
        "vit-s14 · layer 11 · mean of 6 heads:",
        "what the class token attends to",
    ]


def test_a_word_wider_than_the_room_has_a_line_of_its_own() -> None:
    """It is cut off rather than lost."""
    assert wrapped("a transformer", 0.2, 9) == "a\ntransformer"


def test_a_letter_that_no_font_has_takes_room() -> None:
    """As an M, so that nothing is measured too narrow."""
    assert text_inches("\N{PILE OF POO}", 9) == text_inches("M", 9) > 0
