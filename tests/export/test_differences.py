"""Differences by tensor and check: the worst of them stands in the table."""

import math

import numpy as np

from export.differences import Difference, largest, max_abs, summarize


def test_the_worst_of_a_tensor_and_check_is_the_one_nearest_to_its_limit() -> None:
    """Not the largest: limits grow with the magnitude of what is compared."""
    near, far = Difference("logits", "plain", 0.9, 2, 1), Difference("logits", "plain", 2, 100, 50)
    other = Difference("logits", "torch", 0.1, 1, 1)
    first, second = summarize([far, near, other])
    assert (first.cases, first.max_abs, first.max_rel, first.limit) == (2, 0.9, 0.45, 1)
    assert (second.check, second.cases) == ("torch", 1)


def test_a_difference_that_is_no_number_is_the_worst() -> None:
    """Whatever stands before or behind it."""
    nan, large = Difference("x", "plain", math.nan, 1, 1), Difference("x", "plain", 9, 1, 1)
    for group in ([nan, large], [large, nan]):
        assert math.isnan(summarize(group)[0].max_abs)
    assert math.isnan(largest([1, math.nan, 2]))


def test_the_sign_of_a_difference_does_not_count_and_other_shapes_are_infinitely_far() -> None:
    """Empty arrays of one shape are the same."""
    assert max_abs(np.array([1.0, 2.0]), np.array([4.0, 2.0])) == 3
    assert max_abs(np.zeros((1, 2)), np.zeros((2, 1))) == math.inf
    assert max_abs(np.zeros((0, 2)), np.zeros((0, 2))) == 0
