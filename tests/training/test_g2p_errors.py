import pytest
import torch

import training.g2p_errors
from model.decoder import DecoderConfig
from model.encoder import EncoderConfig
from model.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from training.cmudict import Phones
from training.g2p_errors import ErrorRates, edit_distance, error_rates, measure, pronounce
from training.g2p_tokens import VOCABULARY


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2),
     ("sunday", "saturday", 3)],
)  # fmt: skip
def test_edit_distances_are_the_known_ones(one: str, other: str, distance: int) -> None:
    """The same from either side."""
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_any_variant_of_a_word_is_right_and_phones_are_counted_against_the_nearest() -> None:
    """One word of four is a second variant, one has a wrong phone of three, one is right, one lacks two of two."""
    dictionary = {
        "tomato": (("T", "AH", "M", "EY", "T", "OW"), ("T", "AH", "M", "AA", "T", "OW")),
        "cat": (("K", "AE", "T"), ("S", "IY", "EY", "T", "IY")),
        "a": (("AH",),),
        "be": (("B", "IY"),),
    }
    found = {"tomato": dictionary["tomato"][1], "cat": ("K", "AH", "T"), "a": ("AH",), "be": ()}
    rates = error_rates(found, dictionary)
    assert rates.word == pytest.approx(2 / 4)
    assert rates.phone == pytest.approx((1 + 2) / (6 + 3 + 1 + 2))
    assert rates.words == 4


def make_network() -> EncoderDecoder:
    """A small one that knows nothing."""
    torch.manual_seed(0)
    shape = EncoderConfig(16, 1, 2, 32, positions="sinusoidal_halves", max_positions=64)
    return EncoderDecoder(EncoderDecoderConfig(shape, DecoderConfig(**vars(shape)), len(VOCABULARY))).eval()


def test_words_are_pronounced_in_batches_as_alone() -> None:
    """Each word gets its own, whatever the order and company."""
    network, words = make_network(), ["abbot", "it", "a", "word's", "on"]
    together = pronounce(network, words, beam_size=2, batch_size=2)
    assert sorted(together) == sorted(words)
    for word in words:
        assert pronounce(network, [word], beam_size=2) == {word: together[word]}


def test_what_is_measured_is_compared_with_or_without_stress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong stress is an error where stress is asked for; elsewhere the dictionary's stress is left out."""
    asked: list[tuple[int, bool]] = []

    def say(network: object, words: list[str], *, beam_size: int, with_stress: bool) -> dict[str, Phones]:
        asked.append((beam_size, with_stress))
        return dict.fromkeys(words, ("AH1", "B") if with_stress else ("AH", "B"))

    monkeypatch.setattr(training.g2p_errors, "pronounce", say)
    dictionary = {"ub": (("AH0", "B"),)}
    assert measure(make_network(), dictionary, beam_size=1) == ErrorRates(word=0, phone=0, words=1)
    assert measure(make_network(), dictionary, beam_size=5, with_stress=True) == ErrorRates(word=1, phone=0.5, words=1)
    assert asked == [(1, False), (5, True)]


def test_stress_is_asked_for_by_the_start_token() -> None:
    """The same word, and another pronunciation."""
    network = make_network()
    with_stress, without = (
        pronounce(network, ["it"], beam_size=1, with_stress=stress)["it"] for stress in (True, False)
    )
    assert with_stress != without
