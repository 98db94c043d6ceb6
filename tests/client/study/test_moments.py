"""Means and variances of numbers that come in parts, against numpy's of all at once."""

import numpy as np
import pytest

from regard.study.moments import Largest, Moments

NUMBERS = np.random.default_rng(0).normal(3, 2, (100, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("parts", [1, 3, 100])
def test_parts_have_the_moments_of_the_whole(parts: int) -> None:
    """However they are cut; NaN does not count."""
    numbers = NUMBERS.copy()
    numbers[::7, 2] = np.nan
    moments = Moments((4, 5))
    for part in np.array_split(numbers, parts):
        moments.add(part)
    whole = numbers.astype(np.float64)
    np.testing.assert_array_equal(moments.count, (~np.isnan(whole)).sum(axis=0))
    np.testing.assert_allclose(moments.mean, np.nanmean(whole, axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, np.nanvar(whole, axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(moments.least, np.nanmin(numbers, axis=0))
    np.testing.assert_allclose(moments.largest, np.nanmax(numbers, axis=0))


def test_a_small_variance_beside_a_large_mean_is_not_lost() -> None:
    """A sum of squares would lose it: 1e9 squared leaves float64 steps of 128."""
    numbers = 1e9 + NUMBERS[:, 0, 0].astype(np.float64)
    moments = Moments(())
    for part in np.array_split(numbers, 10):
        moments.add(part)
    assert float(moments.variance) == pytest.approx(np.var(numbers, ddof=1), rel=1e-7)


def test_what_has_no_number_has_no_mean() -> None:
    """A count of 0, and a variance that is none."""
    moments = Moments((2,)).add(np.array([[1, np.nan]], np.float32))
    assert moments.count.tolist() == [1, 0]
    assert np.isnan(moments.variance).all()


@pytest.mark.parametrize("parts", [1, 3, 100])
def test_the_largest_are_known_by_their_place_among_all(parts: int) -> None:
    """Of equal ones the first; no more than there are."""
    numbers = np.round(NUMBERS)
    numbers[:, 1, 1] = np.nan
    numbers[4, 1, 1] = 1
    largest = Largest((4, 5), 3)
    for part in np.array_split(numbers, parts):
        largest.add(part)
    order = np.argsort(-numbers, axis=0, kind="stable")[:3]
    np.testing.assert_array_equal(largest.numbers[:, 0], order[:, 0])
    np.testing.assert_array_equal(largest.values[:, 0], np.take_along_axis(numbers, order, 0)[:, 0])
    assert largest.numbers[:, 1, 1].tolist() == [4, -1, -1]
