import math

import pytest
import torch

from model.positions import Rotary, alibi_bias, alibi_slopes, sinusoidal_halves, sinusoidal_interleaved

POSITIONS, WIDTH = 50, 16


def test_the_lectures_encoding_has_sines_first_then_cosines() -> None:
    """Channel i < m is sin(p / 10000^(i/m)), channel i >= m is cos(p / 10000^((i-m)/m)), for width 2 m."""
    table, m = sinusoidal_halves(POSITIONS, WIDTH), WIDTH // 2
    for p in range(POSITIONS):
        for i in range(WIDTH):
            expected = math.sin(p / 10000 ** (i / m)) if i < m else math.cos(p / 10000 ** ((i - m) / m))
            assert table[p, i].item() == pytest.approx(expected, abs=1e-6)


def test_the_papers_encoding_takes_sine_and_cosine_in_turn() -> None:
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D))."""
    table = sinusoidal_interleaved(POSITIONS, WIDTH)
    for p in range(POSITIONS):
        for i in range(WIDTH // 2):
            angle = p / 10000 ** (2 * i / WIDTH)
            assert table[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_both_encodings_hold_the_same_numbers_in_another_order() -> None:
    """The lecture's channels i and i + m are the paper's 2i and 2i + 1."""
    halves, interleaved = sinusoidal_halves(POSITIONS, WIDTH), sinusoidal_interleaved(POSITIONS, WIDTH)
    torch.testing.assert_close(halves[:, : WIDTH // 2], interleaved[:, 0::2])
    torch.testing.assert_close(halves[:, WIDTH // 2 :], interleaved[:, 1::2])


def test_rotary_turns_each_pair_of_channels_by_its_angle() -> None:
    """As the multiplication of complex numbers: (x_2i + j x_2i+1) e^(j p / 10000^(2i/d))."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, POSITIONS, WIDTH, dtype=torch.float64)
    turned = Rotary(POSITIONS, WIDTH)(x.float())
    for p in range(POSITIONS):
        for i in range(WIDTH // 2):
            angle = p / 10000 ** (2 * i / WIDTH)
            number = complex(x[0, 0, p, 2 * i].item(), x[0, 0, p, 2 * i + 1].item()) * complex(
                math.cos(angle), math.sin(angle)
            )
            assert turned[0, 0, p, 2 * i].item() == pytest.approx(number.real, abs=1e-5)
            assert turned[0, 0, p, 2 * i + 1].item() == pytest.approx(number.imag, abs=1e-5)


def test_rotated_dot_products_depend_on_distance_only() -> None:
    """The same query and key at positions (3, 7) and (23, 27)."""
    torch.manual_seed(0)
    query, key = (torch.randn(WIDTH).expand(1, 1, POSITIONS, WIDTH) for _ in range(2))
    rotary = Rotary(POSITIONS, WIDTH)
    scores = rotary(query)[0, 0] @ rotary(key)[0, 0].T
    assert scores[3, 7].item() == pytest.approx(scores[23, 27].item(), abs=1e-4)
    assert scores[3, 7].item() != pytest.approx(scores[3, 8].item(), abs=1e-3)


@pytest.mark.parametrize(
    ("heads", "exponents"),
    [
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (1, [8]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
        (6, [2, 4, 6, 8, 1, 3]),
    ],
)
def test_alibi_slopes_are_the_papers(heads: int, exponents: list[float]) -> None:
    """2^-1 .. 2^-8 for eight heads; other numbers take every other slope of the next power of two."""
    torch.testing.assert_close(alibi_slopes(heads), torch.tensor([2.0**-exponent for exponent in exponents]))


def test_alibi_bias_grows_with_distance_on_both_sides() -> None:
    """-slope |i - j|."""
    bias = alibi_bias(torch.tensor([0.5, 0.25]), 4)
    for head, slope in enumerate((0.5, 0.25)):
        for i in range(4):
            for j in range(4):
                assert bias[head, i, j].item() == -slope * abs(i - j)


def test_odd_widths_are_refused() -> None:
    """There is no half of a channel."""
    for make in (sinusoidal_halves, sinusoidal_interleaved, Rotary):
        with pytest.raises(ValueError, match="embed_dim: 7 is odd"):
            make(4, 7)
