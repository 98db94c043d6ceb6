"""Chooses tokens: log-probabilities of a step, the likeliest, and draws."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from artifact.dtypes import Array
from server.generation.request import Sampling

_NEVER = -np.inf


def measure(logits: Array) -> tuple[list[int], list[float]]:
    """Return the likeliest token of each row of float32 [B, V], and log(sum(exp(logits))).

    A log-probability is a logit less the latter. Python's numbers: whoever looks at one row finds them faster.
    """
    best = logits.argmax(axis=1)
    largest = logits[np.arange(len(best)), best]
    sums = np.add.reduce(np.exp(logits - largest[:, None]), axis=1)
    return best.tolist(), (largest + np.log(sums)).tolist()


def likeliest(log_probabilities: NDArray[np.float32], count: int) -> list[tuple[int, float]]:
    """Return the so many likeliest tokens of one row [V], with their log-probabilities; of equal ones the first."""
    count = min(count, len(log_probabilities))
    places = np.argpartition(-log_probabilities, count - 1)[:count] if count < len(log_probabilities) else None
    places = np.arange(len(log_probabilities)) if places is None else places
    order = places[np.lexsort((places, -log_probabilities[places]))]
    return [(int(token), float(log_probabilities[token])) for token in order]


class Sampler:
    """Draws tokens, from the request alone: what shares its steps does not change them."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))

    def draw(self, logits: NDArray[np.float32]) -> int:
        """Draw a token by the logits of one row [V], -inf for those that must not be.

        Temperature, then the likeliest top_k, then the fewest that have top_p (Holtzman et al. 2020, "The Curious Case
        of Neural Text Degeneration"), in the order of the transformers library.
        """
        sampling = self._sampling
        order = np.argsort(-logits, kind="stable")
        if sampling.top_k:
            order = order[: sampling.top_k]
        scaled = logits[order].astype(np.float64) / sampling.temperature
        probabilities = np.exp(scaled - scaled[0])
        probabilities /= probabilities.sum()
        summed = probabilities.cumsum()
        if sampling.top_p < 1:
            kept = int(np.searchsorted(summed, sampling.top_p)) + 1
            summed = summed[:kept]
        place = int(np.searchsorted(summed, self._random.random() * summed[-1], side="right"))
        return int(order[min(place, len(summed) - 1)])


def forbid(logits: NDArray[np.float32], tokens: Sequence[int]) -> NDArray[np.float32]:
    """Return logits, or log-probabilities, [..., V] with -inf for tokens that must not be written."""
    if not tokens:
        return logits
    allowed = logits.copy()
    allowed[..., list(tokens)] = _NEVER
    return allowed
