"""What is drawn, and how often."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from server.generation.choosing import Sampler, forbid, likeliest, measure
from server.generation.request import Sampling

VOCABULARY, DRAWS = 1000, 20_000
LOGITS = (np.random.default_rng(3).normal(size=VOCABULARY) * 2.5).astype(np.float32)


def wanted(temperature: float, top_k: int, top_p: float) -> NDArray[np.float64]:
    """Return the probability of each token, by sorting all of them."""
    scaled = LOGITS.astype(np.float64) / temperature
    order = np.argsort(-scaled)[: top_k or None]
    probabilities = np.exp(scaled[order]) / np.exp(scaled[order]).sum()
    kept = int((probabilities.cumsum() < top_p).sum()) + 1
    found = np.zeros(VOCABULARY)
    found[order[:kept]] = probabilities[:kept] / probabilities[:kept].sum()
    return found


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.5, 0, 0.6), (1.5, 0, 0.99), (1.0, 40, 0.5)]
)
def test_tokens_are_drawn_as_often_as_they_should_be(temperature: float, top_k: int, top_p: float) -> None:
    """And no others: within four standard deviations of as many draws."""
    expected = wanted(temperature, top_k, top_p)
    sampler = Sampler(Sampling(temperature, top_k, top_p, seed=1))
    counts = Counter(sampler.draw(LOGITS) for _ in range(DRAWS))
    assert not [token for token in counts if expected[token] == 0]
    for token in np.argsort(-expected)[:20]:
        spread = np.sqrt(DRAWS * expected[token] * (1 - expected[token]))
        assert abs(counts[int(token)] - DRAWS * expected[token]) <= 4 * spread + 1e-9


def test_equal_seeds_draw_alike() -> None:
    """Others do not; none at all is a seed that nobody knows."""

    def draws(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(seed=seed))
        return [sampler.draw(LOGITS) for _ in range(20)]

    assert draws(5) == draws(5)
    assert len({tuple(draws(seed)) for seed in (5, 6, None, None)}) == 4


def test_what_is_forbidden_is_not_drawn() -> None:
    """Though it were the likeliest."""
    best = int(LOGITS.argmax())
    sampler = Sampler(Sampling(temperature=0.1, seed=0))
    assert best not in {sampler.draw(forbid(LOGITS, (best,))) for _ in range(100)}


def test_the_likeliest_come_in_order() -> None:
    """Of equal ones the smaller number first."""
    log_probabilities = np.array([-3.0, -1.0, -2.0, -1.0], np.float32)
    assert likeliest(log_probabilities, 3) == [(1, -1.0), (3, -1.0), (2, -2.0)]
    assert len(likeliest(log_probabilities, 10)) == 4


def test_the_normalizer_makes_log_probabilities_of_logits() -> None:
    """However large they are."""
    logits = np.stack([LOGITS, LOGITS + 500])
    best, normalizers = measure(logits)
    assert best == [int(LOGITS.argmax())] * 2
    for row, normalizer in zip(logits, normalizers, strict=True):
        assert np.exp(row.astype(np.float64) - normalizer).sum() == pytest.approx(1, abs=1e-4)
