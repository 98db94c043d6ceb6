"""When words were spoken: the way through a matrix, what is smoothed, and how tokens make words."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import regard
from regard.answers import Generation, Model
from regard.attention import LayerAttention
from regard.decoding import read_model
from regard.generation import FinishReason, Generated, GeneratedText, GeneratedToken, GenerationTimings, SoundPositions
from regard.timed_words import align, smooth, warp
from regard.v1 import types_pb2 as pb

HEADS = ((0, 1), (2, 0))
SPOKEN = (" the", " c", "at", ",", " sat")  # each at two positions of its own


def ways(rows: int, columns: int) -> list[list[tuple[int, int]]]:
    """Every way from the first corner to the last, by steps down, right or both."""
    if rows == columns == 1:
        return [[(0, 0)]]
    before = [(rows - 1, columns - 1), (rows - 1, columns), (rows, columns - 1)]
    found = [way for row, column in before if row and column for way in ways(row, column)]
    return [[*way, (rows - 1, columns - 1)] for way in found]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3), (4, 6)])
def test_the_cheapest_of_all_ways_is_found(rows: int, columns: int) -> None:
    """Of every way there is."""
    for seed in range(20):
        costs = np.random.default_rng(seed).standard_normal((rows, columns), np.float32)
        cheapest = min(ways(rows, columns), key=lambda way: sum(float(costs[place]) for place in way))
        first = [min(column for row, column in cheapest if row == wanted) for wanted in range(rows)]
        assert warp(costs).tolist() == first


def test_a_median_is_of_seven() -> None:
    """The ends are mirrored, and what is shorter than half of that stays."""
    row = np.array([9, 1, 5, 3, 7, 2, 8, 4], np.float32)
    mirrored = [3, 5, 1, *row, 8, 2, 7]
    assert smooth(row[None])[0].tolist() == [sorted(mirrored[place : place + 7])[3] for place in range(8)]
    assert smooth(row[None, :3])[0].tolist() == [9, 1, 5]


def test_a_head_that_attends_alike_at_each_step_says_nothing() -> None:
    """It divides nothing by nothing, and the others decide."""
    still = np.full((1, 3, 30), 1 / 30, np.float32)
    following = np.full((1, 3, 30), 0.01, np.float32)
    for row in range(3):
        following[0, row, 10 * row : 10 * row + 10] = 1
    assert align(np.concatenate([still, following])).tolist() == align(following).tolist() == [0, 10, 20]


def spoken(texts: tuple[str, ...], reason: FinishReason) -> Generated:
    """Texts of tokens of which each was heard at ten positions, behind the others; the end behind all of them."""
    texts = (*texts, "") if reason == "end" else texts
    tokens = list[GeneratedToken]()
    for place, text in enumerate(texts):
        weights: NDArray[np.float32] = np.full((2, 100), 1e-3, np.float32)
        weights[:, 10 * place : 10 * place + 10] = 0.1
        attention = tuple(LayerAttention(layer, "cross", ("head", "key"), (0, 1), (), weights) for layer, _ in HEADS)
        tokens.append(GeneratedToken(place, text, math.log(0.5 if place % 2 else 1.0), (), attention))
    result = GeneratedText("".join(texts), 0.0, reason, tuple(tokens))
    sound = SoundPositions(100, 0.02, 0.2 * len(texts) + (0.3 if reason == "end" else 0.0))
    return Generated("hears", "1", (), False, (result,), GenerationTimings(0, 0, 0, 0, 1), sound)


@pytest.fixture
def model() -> Model:
    """One that names heads."""
    return replace(read_model(pb.Model(name="hears")), generation=Generation(3, 2, 9, ("en",), "en", 1, 1.0, 9, HEADS))


@pytest.mark.parametrize("reason", ["end", "length"])
def test_tokens_make_words(reason: FinishReason, model: Model) -> None:
    """A space begins one; the last ends where the model saw the end, or with the sound."""
    found = regard.word_times(spoken(SPOKEN, reason), model)
    assert [one.text for one in found] == ["the", "cat,", "sat"]
    assert [one.start_seconds for one in found] == pytest.approx([0, 0.2, 0.8])
    assert [one.end_seconds for one in found] == pytest.approx([0.2, 0.8, 1.0])
    assert [one.probability for one in found] == pytest.approx([1, 2 / 3, 1])


def test_a_character_of_several_tokens_is_of_the_word_that_it_begins(model: Model) -> None:
    """Such tokens have no text until it is whole."""
    found = regard.word_times(spoken((" a", "", " é", "t"), "end"), model)
    assert [(one.text, one.start_seconds) for one in found] == [("a", 0), ("ét", pytest.approx(0.2))]


def test_nothing_that_was_said_has_no_words(model: Model) -> None:
    """Neither has an end alone."""
    assert regard.word_times(spoken((), "end"), model) == ()
    assert regard.word_times(replace(spoken((), "end"), results=()), model) == ()


def test_what_cannot_be_told_is_an_error(model: Model) -> None:
    """That says what is missing."""
    found = spoken(SPOKEN, "end")
    assert model.generation is not None
    for broken, of, message in (
        (replace(found, sound=None), model, "no sound in this answer"),
        (found, replace(model, generation=None), "hears does not say which of its heads follow the sound"),
        (found, replace(model, generation=replace(model.generation, alignment_heads=((1, 0),))), "no cross attention"),
        (
            found,
            replace(model, generation=replace(model.generation, alignment_heads=((0, 5),))),
            "no head 5 of layer 0",
        ),
    ):
        with pytest.raises(LookupError, match=message):
            regard.word_times(broken, of)
    with pytest.raises(LookupError, match="hears does not say"):
        regard.request_word_times(replace(model, generation=None))


def test_layers_and_heads_are_asked_once(model: Model) -> None:
    """In order."""
    assert model.generation is not None
    heads = [*itertools.product((2, 0), (1, 0))]
    asked = regard.request_word_times(
        replace(model, generation=replace(model.generation, alignment_heads=tuple(heads)))
    )
    assert (asked.layers, asked.heads) == ((0, 2), (0, 1))
