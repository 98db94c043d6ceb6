"""Positional encodings: each against its formula, computed number by number in float64."""

import math

import numpy as np
import pytest
import torch

from model.positions import Rotary, alibi_bias, alibi_slopes, sinusoidal_halves, sinusoidal_interleaved

# float32 rounding of a sine or cosine.
TOLERANCE = 1e-6
N, D = 50, 16


def test_lecture_form_has_sines_first_and_cosines_second() -> None:
    """PE(p, i) = sin(p / 10000^(i/m)) for i < m and cos(p / 10000^((i-m)/m)) for i >= m, where D = 2 m."""
    m = D // 2
    expected = np.empty((N, D))
    for p in range(N):
        for i in range(D):
            expected[p, i] = math.sin(p / 10000 ** (i / m)) if i < m else math.cos(p / 10000 ** ((i - m) / m))
    np.testing.assert_allclose(sinusoidal_halves(N, D).numpy(), expected, atol=TOLERANCE, rtol=0)


def test_interleaved_form_has_sine_and_cosine_in_turn() -> None:
    """PE(p, 2i) = sin(p / 10000^(2i/D)) and PE(p, 2i+1) = cos(p / 10000^(2i/D))."""
    expected = np.empty((N, D))
    for p in range(N):
        for i in range(D // 2):
            angle = p / 10000 ** (2 * i / D)
            expected[p, 2 * i], expected[p, 2 * i + 1] = math.sin(angle), math.cos(angle)
    np.testing.assert_allclose(sinusoidal_interleaved(N, D).numpy(), expected, atol=TOLERANCE, rtol=0)


def test_both_sinusoidal_forms_hold_the_same_channels_in_another_order() -> None:
    """Halves are the even channels, then the odd channels, of the interleaved form."""
    interleaved = sinusoidal_interleaved(N, D)
    regrouped = torch.cat([interleaved[:, 0::2], interleaved[:, 1::2]], dim=1)
    torch.testing.assert_close(regrouped, sinusoidal_halves(N, D), atol=0, rtol=0)


def test_far_positions_keep_their_precision() -> None:
    """At position 100,000 the fastest channel is still sin(100000), to float32's rounding of the angle."""
    table = sinusoidal_halves(100_001, 2)
    assert abs(float(table[-1, 0]) - math.sin(100_000)) < TOLERANCE


def test_rotary_turns_neighbouring_channels() -> None:
    """Channels (2i, 2i+1) at position p turn by p / 10000^(2i/d)."""
    batch, heads, d = 2, 3, 8
    x = torch.randn(batch, heads, N, d, generator=torch.Generator().manual_seed(0))
    source, expected = x.double().numpy(), np.empty(x.shape)
    for p in range(N):
        for i in range(d // 2):
            angle = p / 10000 ** (2 * i / d)
            even, odd = source[:, :, p, 2 * i], source[:, :, p, 2 * i + 1]
            expected[:, :, p, 2 * i] = even * math.cos(angle) - odd * math.sin(angle)
            expected[:, :, p, 2 * i + 1] = even * math.sin(angle) + odd * math.cos(angle)
    np.testing.assert_allclose(Rotary(N, d)(x).numpy(), expected, atol=TOLERANCE, rtol=0)


def test_rotary_dot_products_depend_on_the_distance_only() -> None:
    """The same query and key at positions (5, 2), (15, 12) and (40, 37) meet with the same score, to 1e-5."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 8, generator=generator).expand(1, 1, N, 8) for _ in range(2))
    rotary = Rotary(N, 8)
    scores = (rotary(query) @ rotary(key).mT)[0, 0]
    for distance in (-20, -3, 0, 3, 20):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert float((scores[5, 2] - scores[5, 3]).abs()) > 0.01


def test_rotary_keeps_lengths() -> None:
    """A rotation changes no vector's length, to 1e-5."""
    x = torch.randn(1, 2, N, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Rotary(N, 8)(x).norm(dim=-1), x.norm(dim=-1), atol=1e-5, rtol=0)


def test_alibi_slopes_of_eight_heads_halve_from_one_half() -> None:
    """1/2, 1/4, ..., 1/256, exactly."""
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]


def test_alibi_slopes_of_twelve_heads_follow_the_paper() -> None:
    """The eight heads' slopes, then the first, third, fifth and seventh of the sixteen heads' slopes."""
    of_sixteen = [2.0 ** (-i / 2) for i in range(1, 17)]
    expected = [2.0**-i for i in range(1, 9)] + of_sixteen[0::2][:4]
    np.testing.assert_allclose(alibi_slopes(12).numpy(), expected, atol=0, rtol=1e-7)


@pytest.mark.parametrize("num_heads", range(1, 17))
def test_every_number_of_heads_gets_as_many_slopes(num_heads: int) -> None:
    """Slopes lie in (0, 1) and no two heads share one."""
    slopes = alibi_slopes(num_heads)
    assert slopes.shape == (num_heads,)
    assert len(set(slopes.tolist())) == num_heads
    assert slopes.gt(0).all() and slopes.lt(1).all()


def test_alibi_bias_falls_with_distance_on_both_sides() -> None:
    """Bias of head h between i and j is -slope_h |i - j|, exactly."""
    slopes = alibi_slopes(8)
    bias = alibi_bias(slopes, 6)
    assert bias.shape == (8, 6, 6)
    for h, i, j in np.ndindex(8, 6, 6):
        assert float(bias[h, i, j]) == -float(slopes[h]) * abs(i - j)


@pytest.mark.parametrize("encoding", [sinusoidal_halves, sinusoidal_interleaved, Rotary])
def test_odd_widths_are_refused(encoding: type) -> None:
    """Channels come in pairs; the message names the width."""
    with pytest.raises(ValueError, match="7 is odd"):
        encoding(N, 7)
