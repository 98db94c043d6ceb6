"""The library's own dynamic time warping and median, on the same numbers as the client's."""

from typing import Any

import numpy as np
import torch
from transformers.models.whisper import generation_whisper as library

from regard.timed_words import smooth, warp


def test_words_are_found_as_the_library_finds_them() -> None:
    """What it visits of each row first, and what it smooths."""
    own: Any = library
    for seed in range(10):
        weights = np.random.default_rng(seed).standard_normal((3, 12, 90), np.float32)
        np.testing.assert_array_equal(smooth(weights), own._median_filter(torch.from_numpy(weights), 7).numpy())
        costs = -weights.mean(axis=0)
        rows, columns = own._dynamic_time_warping(costs)
        expected = [columns[rows == row].min() for row in range(12)]
        assert warp(costs).tolist() == expected
