"""Why tokens were written: how positions are named, and what is said where nothing was explained."""

import dataclasses
import re

import numpy as np
import pytest

from regard import Client, SoundPositions, pictures
from regard.attention import Token
from regard.explained_tokens import explained_tokens, print_token_relevance, source_names
from regard.sources import InputError
from tests.client.fake import OF_TOKENS, WORDS


def test_positions_are_named(
    client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that comes twice with its place; a position of a sound by when it begins."""
    monkeypatch.setenv("COLUMNS", "120")  # a narrower table goes on in the next line
    found = client.generate_text("cat", model="g2p", relevance=[1])
    assert re.fullmatch(rf"TokenRelevance\(AE: of {len(WORDS)} positions, within \S+\)", repr(found.relevance))
    assert source_names(found) == WORDS
    twice = tuple(Token(7, text, 0, 0, special=False) for text in "aba")
    assert source_names(dataclasses.replace(found, source=twice)) == ["a (0)", "b", "a (2)"]
    heard = dataclasses.replace(found, source=(), sound=SoundPositions(5, 0.02, 0.1))
    assert source_names(heard) == ["0.00 s", "0.02 s", "0.04 s", "0.06 s", "0.08 s"]
    print_token_relevance(heard)
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[0] == "AE"
    assert row[4:7] == ["0.02", "s", f"+{OF_TOKENS[1, 1]:.2f}"]


def test_a_text_that_is_not_explained_has_neither_table_nor_picture(client: Client) -> None:
    """As an older server answers."""
    found = client.generate_text("cat", model="g2p")
    with pytest.raises(InputError, match="the server sent no relevance"):
        explained_tokens(found)
    with pytest.raises(ValueError, match="a text without relevance"):
        pictures.token_matrix(found)


def test_a_picture_has_a_row_for_each_token_that_is_explained(client: Client) -> None:
    """And a column for each of the source's."""
    found = client.generate_text("cat", model="g2p", relevance=[0, 3])
    axes = pictures.token_matrix(found).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["K", "(end)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == WORDS
    (drawn,) = axes.get_images()
    np.testing.assert_array_equal(drawn.get_array(), OF_TOKENS[[0, 3]])
