import pytest

from export.derived import find_derived

WAV2VEC2 = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))


def convolve(positions: int, layers: tuple[tuple[int, int], ...], filled: int = 0) -> int:
    """Positions that kernels and strides leave, one behind another; what is shorter is filled up first."""
    positions = max(positions, filled)
    for kernel, stride in layers:
        positions = max((positions - kernel) // stride + 1, 0)
    return positions


def test_wav2vec2_makes_a_frame_every_320_samples() -> None:
    """A second at 16 kHz is 49 of them; the name says how many there are."""
    rule = find_derived("samples", lambda size: convolve(size, WAV2VEC2), 1000, 480_000)
    assert rule
    assert (rule.name, rule.size(16_000), rule.size(399), rule.size(400)) == ("(samples - 80) // 320", 49, 0, 1)


@pytest.mark.parametrize("layers", [WAV2VEC2, ((3, 2),), ((1, 4),), ((5, 1), (2, 3)), ((2, 2), (2, 2))])
@pytest.mark.parametrize("filled", [0, 900])
def test_the_rule_holds_for_every_size(layers: tuple[tuple[int, int], ...], filled: int) -> None:
    """Of whatever convolutions, from nothing up; also where the graph fills up what is too short."""
    rule = find_derived("n", lambda size: convolve(size, layers, filled), max(filled, 50), 5000)
    assert rule
    assert [rule.size(size) for size in range(1, 3000)] == [convolve(size, layers, filled) for size in range(1, 3000)]


def test_what_follows_another_rule_is_not_named() -> None:
    """Squares, what does not grow, and what grows once only."""
    assert find_derived("n", lambda size: size * size, 5, 1000) is None
    assert find_derived("n", lambda size: 7, 5, 1000) is None
    assert find_derived("n", lambda size: int(size > 700), 5, 1000) is None
