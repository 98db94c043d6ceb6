import pytest
import torch

from model.decoder import DecoderConfig
from model.encoder import EncoderConfig
from model.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from training.g2p_errors import edit_distance, error_rates, measure, pronounce
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


def test_what_is_measured_is_compared_with_or_without_stress() -> None:
    """A dictionary of what the network says has no errors; with other stresses, only without stress."""
    network = make_network()
    network.tokens.weight.data[: VOCABULARY.index("AA")] *= 0.01  # so that it writes phones
    words = ["abbot", "it"]
    plain = {word: (phones,) for word, phones in pronounce(network, words, beam_size=1).items()}
    assert measure(network, plain, beam_size=1).word == 0
    stressed = {word: (phones,) for word, phones in pronounce(network, words, beam_size=1, with_stress=True).items()}
    assert measure(network, stressed, beam_size=1, with_stress=True).word == 0
    assert measure(network, dict.fromkeys(words, (("B",),)), beam_size=1).word == 1
