import pytest
import torch

from training.g2p_tokens import (
    END,
    PAD,
    START,
    START_WITH_STRESS,
    VOCABULARY,
    decode_phones,
    encode_phones,
    encode_word,
    make_pairs,
    source_batch,
)

DICTIONARY = {
    "a": (("AH0",), ("EY1",)),
    "abbot": (("AE1", "B", "AH0", "T"),),
    "it's": (("IH1", "T", "S"),),
}


def spell(ids: torch.Tensor) -> str:
    """The tokens of ids, in words."""
    return " ".join(VOCABULARY[index] for index in ids.tolist())


def test_the_vocabulary_has_each_token_once() -> None:
    """Four special ones, 29 letters and signs, 39 phones, three stresses; no letter is taken for a phone."""
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 4 + 29 + 39 + 3
    assert [VOCABULARY[index] for index in (PAD, START, END, START_WITH_STRESS)] == ["<pad>", "<s>", "</s>", "<stress>"]


def test_phones_come_back() -> None:
    """With stress and without."""
    for phones in (("AH0", "B", "AW1", "T"), ("AH", "B", "AW", "T"), ()):
        assert decode_phones(encode_phones(phones)) == phones
    assert len(encode_phones(("AH0", "B"))) == 3
    assert decode_phones([VOCABULARY.index("1"), VOCABULARY.index("B")]) == ("1", "B")  # a stress of nothing


def test_other_characters_are_refused() -> None:
    """None of the dictionary's words has them."""
    with pytest.raises(KeyError, match="é"):
        encode_word("café")


def test_a_batch_pairs_letters_with_phones_and_what_follows_them() -> None:
    """Padded at the right to the longest, with stress where it is wanted."""
    pairs = make_pairs(DICTIONARY)
    batch = pairs.batch(torch.tensor([2, 1]), torch.tensor([False, True]))
    assert [spell(row) for row in batch.source_ids] == ["a b b o t </s>", "a </s> <pad> <pad> <pad> <pad>"]
    assert batch.source_mask.tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0]]
    assert [spell(row) for row in batch.target_ids] == ["<s> AE B AH T", "<stress> EY 1 <pad> <pad>"]
    assert [spell(row) for row in batch.next_ids] == ["AE B AH T </s>", "EY 1 </s> <pad> <pad>"]
    ids, mask = source_batch(["abbot", "a"])
    assert torch.equal(ids, batch.source_ids) and torch.equal(mask, batch.source_mask)


def test_an_epoch_has_each_pair_once_among_pairs_of_like_length() -> None:
    """In another order each time; about the wanted share with stress."""
    dictionary = {"a" * (1 + index % 9) + "b" * (index // 9): (("B",) * (1 + index % 4),) for index in range(90)}
    pairs = make_pairs(dictionary)
    generator = torch.Generator().manual_seed(0)
    orders = []
    for _ in range(2):
        batches = pairs.batches(8, 0.3, generator)
        rows = torch.cat([rows for rows, _ in batches])
        assert sorted(rows.tolist()) == list(range(90))
        orders.append(rows.tolist())
        with_stress = torch.cat([with_stress for _, with_stress in batches]).float().mean()
        assert 0.1 < float(with_stress) < 0.5
        padding = [float((pairs.batch(*batch).source_mask == 0).float().mean()) for batch in batches]
        assert sum(padding) / len(padding) < 0.1
    assert orders[0] != orders[1]
