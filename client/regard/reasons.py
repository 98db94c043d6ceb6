"""What relevance says, in words and numbers: of the whole, and of each position by its name."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from regard import checks
from regard.comparison import SimilarityRelevance
from regard.errors import InvalidCall
from regard.matrices import positions, query_name, tokens_at
from regard.origin import keep, origin_of
from regard.relevance import Relevance, WordRelevance, tokens_by_word

FOR_COLOUR, AGAINST_COLOUR = "#e69f00", "#56b4e9"
"""Of Okabe and Ito 2008, which colour-blind people can tell apart."""
_NOTHING = 5e-7
"""What rounding leaves of a similarity that is all in pairs."""
_SHORT = 3
"""So many positions stand in a line."""
_NEVER_BELOW_0 = ("genatt", "legrad")


def is_signed(why: Relevance) -> bool:
    """Whether a number may be below 0 by its method; if not, numbers are written without a sign, on a scale from 0."""
    return why.method not in _NEVER_BELOW_0


def written(why: Relevance, value: float, digits: str = ".3g") -> str:
    """Write a number, by a format without a sign, with the sign where `is_signed`."""
    return format(value, f"{'+' if is_signed(why) else ''}{digits}")


def subject(why: Relevance) -> str:
    """Name what is explained: a label, or one against another; without any, a similarity."""
    return f"{why.label} against {why.against}" if why.against else why.label or "similar"


def headline(why: Relevance, model: str = "") -> str:
    """Say what is explained, its score and how far it adds up, in one line whose phrases end at " · "."""
    named = f"{model} · " if model else ""
    depth = "" if why.layer is None else f" · {layer_name(why.layer)}"
    return f"{named}why {subject(why)}{depth} · score {why.score:.4g} · {adds_up(why)}"


def layer_name(layer: int) -> str:
    """Name a depth: what enters the first layer, or what leaves one, counted from 1."""
    return f"layer {layer}" if layer else "entering"


def at_layer(why: Relevance, layer: int) -> Relevance:
    """Return what is there behind a layer; see `Relevance.at_layer`."""
    if why.by_layer is None:
        raise InvalidCall.of("relevance: not by layer; expected that of a request with by_layer")
    layers = why.by_layer
    checks.integer("layer", layer, 0, len(layers.values) - 1)
    values, unsent, added = layers.values[layer], layers.unsent[layer], layers.added[layer]
    there = dataclasses.replace(
        why,
        values=values,
        unsent=unsent,
        rest=added,
        error=abs(float(values.sum(dtype=np.float64)) + unsent + added - why.score),
        relative_error=layers.relative_errors[layer],
        by_layer=None,
        layer=layer,
    )
    keep(there, origin_of(why))
    return there


def similarity_headline(why: SimilarityRelevance, model: str = "") -> str:
    """Say how similar two inputs are, what of that is in no pair, and how far it adds up, as `headline` does."""
    named = f"{model} · " if model else ""
    told = why.first.relative_error if why.pairs is None else why.relative_error
    unpaired = f" · in no pair {why.unpaired:+.3g}" if why.pairs is not None and abs(why.unpaired) > _NOTHING else ""
    return f"{named}similarity {why.first.score:.4g}{unpaired} · {how_far(told or 0.0)}"


def strongest_pairs(why: SimilarityRelevance, most: int) -> list[tuple[str, str, float]]:
    """Return the names and numbers of so many pairs, the largest first whatever its sign; none where none were sent."""
    if why.pairs is None:
        return []
    first, second = names(why.first), names(why.second)
    order = np.argsort(-np.abs(why.pairs), axis=None, kind="stable")[:most]
    places = zip(*np.unravel_index(order, why.pairs.shape), strict=True)
    return [(first[row], second[column], float(why.pairs[row, column])) for row, column in places]


def adds_up(why: Relevance) -> str:
    """Say by which method, and within which share of all that is added the parts make up the score, rounded up."""
    method = "" if why.method == "libra" else f"{why.method} "
    return f"{method}makes up no score" if why.relative_error is None else f"{method}{how_far(why.relative_error)}"


def how_far(share: float) -> str:
    """Say how far, as a share, what is added makes up a score, rounded up to one digit."""
    if not share:
        return "adds up exactly"
    exponent = math.floor(math.log10(share))
    bound = math.ceil(share / 10.0**exponent)
    bound, exponent = (1, exponent + 1) if bound == 10 else (bound, exponent)
    return f"adds up within {bound}e{exponent}"


def in_short(why: Relevance) -> str:
    """Name what is explained, by which method if not the usual one, and the strongest few positions, in a line."""
    told = " · ".join(f"{name} {written(why, value)}" for name, value in strongest(why)[:_SHORT])
    method = "" if why.method == "libra" else f" by {why.method}"
    return f"why {subject(why)}{method}: {told}"


def strongest(why: Relevance) -> list[tuple[str, float]]:
    """Return the name and number of each position, the largest first whatever its sign."""
    named = zip(names(why), map(float, why.values), strict=True)
    return sorted(named, key=lambda one: -abs(one[1]))


def named_once(words: Sequence[str], places: Sequence[int] | None = None) -> list[str]:
    """Put its place behind each word that comes twice; places are counted from 0 unless given."""
    counts, places = Counter(words), range(len(words)) if places is None else places
    return [f"{word} ({place})" if counts[word] > 1 else word for word, place in zip(words, places, strict=True)]


def names(why: Relevance) -> list[str]:
    """Name each position that was sent: a token, with its place where it comes twice; a patch; else its number."""
    places = positions_of(why)
    if why.tokens is not None:
        return named_once([token.text for token in tokens_at(why.tokens, places)], places)
    if why.patches is None:
        return [f"position {place}" for place in places]
    return [query_name(place, why.patches).removeprefix("the ").removeprefix("patch in ") for place in places]


def by_word(why: Relevance) -> tuple[WordRelevance, ...]:
    """Sum the tokens of each word; see `Relevance.by_word`."""
    if why.tokens is None or len(why.words) != len(why.values):
        raise InvalidCall.of("relevance: says no words; expected that of a text, by a server that tells them")
    places, words = positions_of(why), list[WordRelevance]()
    for numbers in tokens_by_word(why.words):
        tokens = [why.tokens[places[number]] for number in numbers]
        value = sum(float(why.values[number]) for number in numbers)
        at = tuple(places[number] for number in numbers)
        words.append(WordRelevance(tokens[0].start, tokens[-1].end, value, at, tokens[0].of_text))
    return tuple(words)


def positions_of(why: Relevance) -> Sequence[int]:
    """Return which positions were sent."""
    return why.positions or range(len(why.values))


def others(why: Relevance) -> list[tuple[str, float]]:
    """Return what was added besides the positions that were sent: what was left out, the rest, the baseline's score."""
    unsent = [("left out", why.unsent)] if why.positions else []
    rest = [("no position" if why.layer is None else "added behind", why.rest)] if why.method == "libra" else []
    return [*unsent, *rest, *([("baseline", why.baseline)] if why.baseline is not None else [])]


def unplaced(why: Relevance) -> str:
    """Say what was added that has no place on the input: an image's prefix tokens, then as `others`."""
    prefix = why.patches.prefix_tokens if why.patches else 0
    sent = [float(value) for place, value in zip(positions_of(why), why.values, strict=True) if place < prefix]
    name = "class token" if len(sent) == 1 else f"{len(sent)} prefix tokens"
    parts = [(name, sum(sent))] if sent else []
    return " · ".join(f"{name} {written(why, value)}" for name, value in [*parts, *others(why)])


def on_patches(why: Relevance) -> NDArray[np.float32]:
    """Return the numbers of an image's patches as they lie on it, float32 [rows, cols]; 0 where none was sent.

    Raises:
        ValueError: It is of no image, or a position lies outside the grid.
    """
    grid = why.patches
    if grid is None:
        raise ValueError("relevance without patches; expected that of an image")
    count, places = positions(grid), list(positions_of(why))
    if places and max(places) >= count:
        raise ValueError(f"relevance of position {max(places)}; expected fewer than {count}, as the patches lie")
    dense = np.zeros(count, np.float32)
    dense[places] = why.values
    return dense[grid.prefix_tokens :].reshape(grid.rows, grid.cols)
