"""Turns words and pronunciations into token ids, and those into batches of like length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.cmudict import CONSONANTS, VOWELS, Dictionary, Phones, without_stress

PAD, START, END, START_WITH_STRESS = range(4)
_LETTERS = tuple("'-.abcdefghijklmnopqrstuvwxyz")
_STRESSES = ("0", "1", "2")
# Letters and phones share one vocabulary. With stress, a vowel's stress is a token of its own after it.
VOCABULARY = ("<pad>", "<s>", "</s>", "<stress>", *_LETTERS, *sorted(VOWELS + CONSONANTS), *_STRESSES)
_IDS = {token: index for index, token in enumerate(VOCABULARY)}


@dataclass(frozen=True)
class Batch:
    """Words and pronunciations as token ids.

    Attributes:
        source_ids: Letters and the end token, int64 [B, S].
        source_mask: int64 [B, S], 1 at real tokens, 0 at padding.
        target_ids: A start token and phones, int64 [B, T].
        next_ids: Phones and the end token, int64 [B, T]: what is to follow each target id.
    """

    source_ids: Tensor
    source_mask: Tensor
    target_ids: Tensor
    next_ids: Tensor


@dataclass(frozen=True)
class Pairs:
    """Every word with every pronunciation of it, padded: uint8 [number of pairs, longest]."""

    letters: Tensor
    plain: Tensor
    stressed: Tensor

    def batch(self, rows: Tensor, with_stress: Tensor) -> Batch:
        """Make a batch of int64 [B] rows, each with stress where bool [B] says so."""
        source = _cut(self.letters[rows].long())
        target = torch.where(with_stress[:, None], self.stressed[rows].long(), self.plain[rows].long())
        target = _cut(target)  # [B, T + 1]
        return Batch(source, (source != PAD).long(), target[:, :-1].where(target[:, :-1] != END, PAD), target[:, 1:])

    def batches(self, batch_size: int, stress_share: float, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """Cut an epoch into batches, (rows, with_stress) each, of words and pronunciations of like length."""
        with_stress = torch.rand(len(self.letters), generator=generator) < stress_share
        target = torch.where(with_stress, _lengths(self.stressed), _lengths(self.plain))
        order = torch.randperm(len(self.letters), generator=generator)
        order = order[(_lengths(self.letters) * 1000 + target)[order].argsort(stable=True)]
        cut = order.split(batch_size)
        return [(cut[index], with_stress[cut[index]]) for index in torch.randperm(len(cut), generator=generator)]


def make_pairs(dictionary: Dictionary) -> Pairs:
    """Encode a dictionary."""
    pairs = [(word, phones) for word, variants in dictionary.items() for phones in variants]
    plain = [[START, *encode_phones(without_stress(phones)), END] for _, phones in pairs]
    stressed = [[START_WITH_STRESS, *encode_phones(phones), END] for _, phones in pairs]
    longest = max(map(len, stressed))
    return Pairs(_pad([encode_word(word) for word, _ in pairs]), _pad(plain, longest), _pad(stressed, longest))


def encode_word(word: str) -> list[int]:
    """Encode letters, and the end token.

    Raises:
        KeyError: A character is not one of the dictionary's.
    """
    return [*(_IDS[letter] for letter in word), END]


def encode_phones(phones: Phones) -> list[int]:
    """Encode phones; "AH0" becomes two tokens, "AH" a single one."""
    return [_IDS[part] for phone in phones for part in (phone.rstrip("012"), *phone[len(phone.rstrip("012")) :])]


def decode_phones(ids: Sequence[int]) -> Phones:
    """Turn ids into phones again; a stress is joined to the phone before it."""
    phones: list[str] = []
    for token in (VOCABULARY[index] for index in ids):
        if token in _STRESSES and phones:
            phones[-1] += token
        else:
            phones.append(token)
    return tuple(phones)


def source_batch(words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Encode words: ids and mask, int64 [B, S]."""
    ids = _pad([encode_word(word) for word in words]).long()
    return ids, (ids != PAD).long()


def _pad(rows: Sequence[Sequence[int]], longest: int | None = None) -> Tensor:
    padded = torch.full((len(rows), longest or max(map(len, rows))), PAD, dtype=torch.uint8)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.uint8)
    return padded


def _cut(ids: Tensor) -> Tensor:
    return ids[:, : int(_lengths(ids).max())]


def _lengths(ids: Tensor) -> Tensor:
    return (ids != PAD).sum(-1)
