"""Measures how often pronunciations are wrong: by word, and by phone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from model.encoder_decoder import EncoderDecoder
from model.generation import search_beams
from training.cmudict import Dictionary, Phones, without_stress
from training.g2p_tokens import START, START_WITH_STRESS, decode_phones, source_batch

_MAX_PHONES = 48


@dataclass(frozen=True)
class ErrorRates:
    """Shares in [0, 1].

    Attributes:
        word: Words whose pronunciation is none of the dictionary's for that word.
        phone: Phones to insert, delete or exchange until the nearest of them is reached, by phones of the nearest.
        words: How many were pronounced.
    """

    word: float
    phone: float
    words: int


def pronounce(
    network: EncoderDecoder, words: Sequence[str], *, beam_size: int, with_stress: bool = False, batch_size: int = 256
) -> dict[str, Phones]:
    """Write the likeliest pronunciation of each word; the network is in evaluation mode."""
    by_length = sorted(words, key=len)
    found: dict[str, Phones] = {}
    for at in range(0, len(by_length), batch_size):
        batch = by_length[at : at + batch_size]
        start = torch.full((len(batch),), START_WITH_STRESS if with_stress else START)
        beams = search_beams(network, *source_batch(batch), start, _MAX_PHONES, beam_size=beam_size)
        found |= {word: decode_phones(best.tokens) for word, (best, *_) in zip(batch, beams, strict=True)}
    return found


def measure(
    network: EncoderDecoder, dictionary: Dictionary, *, beam_size: int, with_stress: bool = False
) -> ErrorRates:
    """Pronounce a dictionary's words and compare."""
    found = pronounce(network, list(dictionary), beam_size=beam_size, with_stress=with_stress)
    if with_stress:
        return error_rates(found, dictionary)
    return error_rates(found, {word: tuple(map(without_stress, variants)) for word, variants in dictionary.items()})


def error_rates(found: Mapping[str, Phones], dictionary: Dictionary) -> ErrorRates:
    """Compare each word's pronunciation with the nearest of the dictionary's."""
    wrong_words = wrong_phones = phones = 0
    for word, pronunciation in found.items():
        distance, length = min((edit_distance(pronunciation, variant), len(variant)) for variant in dictionary[word])
        wrong_words += distance > 0
        wrong_phones += distance
        phones += length
    return ErrorRates(wrong_words / len(found), wrong_phones / phones, len(found))


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """How many insertions, deletions and exchanges lead from one to the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]
