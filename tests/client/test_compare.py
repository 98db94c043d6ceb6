"""Comparing two inputs: the client, the picture, the notebook and the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from regard import AsyncClient, Client, Comparison, InvalidArgument, pictures
from regard.reasons import similarity_headline, strongest_pairs
from tests.client.conftest import Run
from tests.client.fake import PAIRS, RELEVANCE_OF_IMAGE, RELEVANCE_OF_TEXT, WORDS, FakeServer

FIRST, SECOND = "The cat sat.", "A cat sits."


@pytest.fixture
def compared(client: Client) -> Comparison:
    """Two texts, by pairs."""
    return client.compare(FIRST, SECOND, pairs=True)


def test_what_is_asked_is_sent(client: Client, server: FakeServer, photo: Path) -> None:
    """A str is a text, a path or bytes an image; no reasons unless they are asked for."""
    assert client.compare(FIRST, photo).relevance is None
    sent = server.requests[-1]
    assert (sent.first.text, sent.second.image) == (FIRST, photo.read_bytes())
    assert not sent.HasField("relevance")
    client.compare(FIRST, SECOND, why=True, drop_special=True, prompts=("query", ""), truncate=True, model="m")
    sent = server.requests[-1]
    assert sent.HasField("relevance")
    assert (sent.relevance.pairs, sent.relevance.drop_special, sent.truncate) == (False, True, True)
    assert (sent.first.prompt, sent.second.prompt, sent.model) == ("query", "", "m")


def test_reasons_are_read(compared: Comparison) -> None:
    """Of both sides, with what positions stand for, and of pairs."""
    why = compared.relevance
    assert why is not None
    assert why.pairs is not None
    assert [token.text for token in why.first.tokens or ()] == WORDS
    np.testing.assert_array_equal(why.first.values, np.array(RELEVANCE_OF_TEXT, np.float32))
    np.testing.assert_array_equal(why.pairs, PAIRS)
    assert why.unpaired == pytest.approx(0.25)
    assert why.relative_error == pytest.approx(4.2e-8)
    assert compared.similarity == pytest.approx(why.first.score)
    assert "5 x 5 pairs" in repr(why)


async def test_the_asynchronous_client_reads_the_same(server: FakeServer) -> None:
    """As the blocking one."""
    async with AsyncClient(server.address) as client:
        found = await client.compare(FIRST, SECOND, pairs=True)
    assert found.relevance is not None
    np.testing.assert_array_equal(found.relevance.pairs, PAIRS)


def test_it_says_what_is_in_no_pair_and_names_the_strongest(compared: Comparison) -> None:
    """Largest first, whatever the sign."""
    why = compared.relevance
    assert why is not None
    assert similarity_headline(why, "m") == "m · similarity 1.5 · in no pair +0.25 · adds up within 5e-8"
    order = np.argsort(-np.abs(PAIRS), axis=None)[:2]
    values = [float(PAIRS.ravel()[place]) for place in order]
    assert [value for _, _, value in strongest_pairs(why, 2)] == values


def test_pairs_are_drawn(compared: Comparison, tmp_path: Path) -> None:
    """A row for each position of the first, a column for each of the second, a scale as long on both sides of 0."""
    why = compared.relevance
    assert why is not None
    figure = why.plot()
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), PAIRS)
    assert axes.images[0].get_clim() == (-np.abs(PAIRS).max(), np.abs(PAIRS).max())
    assert [label.get_text() for label in axes.get_yticklabels()] == WORDS
    assert "similarity 1.5" in " ".join(text.get_text() for text in figure.texts)
    pictures.save(figure, tmp_path / "pairs.svg")
    assert (tmp_path / "pairs.svg").stat().st_size > 1000
    assert f"{WORDS[1]} → {WORDS[0]}: {PAIRS[1, 0]:.3g}" in why._repr_html_()


def test_without_pairs_both_inputs_are_shown(client: Client) -> None:
    """There is no matrix to draw."""
    why = client.compare(FIRST, SECOND, why=True).relevance
    assert why is not None
    with pytest.raises(InvalidArgument, match="relevance: without pairs; expected those of compare with pairs=True"):
        why.plot()
    assert why._repr_html_().count(WORDS[1]) >= 2
    assert "similar" in why.first._repr_html_()


def test_an_image_keeps_what_was_sent(client: Client, photo: Path) -> None:
    """So that its side draws itself."""
    why = client.compare(photo, FIRST, why=True).relevance
    assert why is not None
    np.testing.assert_array_equal(why.first.values, np.array(RELEVANCE_OF_IMAGE, np.float32))
    assert why.first.plot().axes


def test_the_command_prints_reasons_and_draws_pairs(run: Run, tmp_path: Path) -> None:
    """The similarity, each side, the strongest pairs; the picture with -o."""
    plain = run("compare", FIRST, SECOND, "--model", "m")
    assert plain.out == "similarity 1.5000\n"
    done = run("compare", FIRST, SECOND, "--model", "m", "--why", "--pairs", "-o", tmp_path / "pairs.png")
    assert (done.code, done.err) == (0, f"regard: wrote {tmp_path / 'pairs.png'}\n")
    lines = done.out.splitlines()
    assert lines[0] == "similarity 1.5 · in no pair +0.25 · adds up within 5e-8"
    assert sum(WORDS[1] in line for line in lines) >= 3
    assert (tmp_path / "pairs.png").read_bytes().startswith(b"\x89PNG")
    whole = json.loads(run("compare", FIRST, SECOND, "--model", "m", "--pairs", "--json").out)
    assert np.array(whole["relevance"]["pairs"]).shape == (5, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", FIRST, SECOND, "--model", "m", "-o", "pairs.txt"), "pairs.txt"),
        (("compare", FIRST), "INPUT"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """Before anything is asked."""
    done = run(*arguments)
    assert done.code != 0
    assert message in done.err
