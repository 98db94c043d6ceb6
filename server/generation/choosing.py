"""Chooses tokens: log-probabilities of a step, the likeliest, and draws."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from artifact.dtypes import Array
from server.generation.request import Sampling

_NEVER = -np.inf
_FIRST_LOOK = 256  # tokens, among which top_p is usually found: all of a vocabulary take long to sort


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
    return [(int(token), float(log_probabilities[token])) for token in _largest(log_probabilities, count)]


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
        tokens = _largest(logits, sampling.top_k) if sampling.top_k else np.arange(len(logits))
        chosen = logits[tokens].astype(np.float64)
        with np.errstate(over="ignore"):  # of what is never drawn at so low a temperature
            weights = np.exp((chosen - chosen.max()) / sampling.temperature)
        if sampling.top_p < 1:
            tokens, weights = _nucleus(tokens, weights, sampling.top_p)
        summed = weights.cumsum()
        place = int(np.searchsorted(summed, self._random.random() * summed[-1], side="right"))
        return int(tokens[min(place, len(tokens) - 1)])


def _largest(numbers: Array, count: int) -> NDArray[np.intp]:
    """Return where the so many largest stand, the largest first; without sorting the others."""
    count = min(count, len(numbers))
    if count == len(numbers):
        return np.argsort(-numbers, kind="stable")
    places = np.argpartition(-numbers, count - 1)[:count]
    return places[np.lexsort((places, -numbers[places]))]


def _nucleus(
    tokens: NDArray[np.intp], weights: NDArray[np.float64], top_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Keep the fewest tokens, the likeliest first, that have a share top_p of all weights."""
    wanted, count = top_p * weights.sum(), _FIRST_LOOK
    while True:
        places = _largest(weights, count)
        summed = weights[places].cumsum()
        if summed[-1] >= wanted or count >= len(weights):
            kept = places[: int(np.searchsorted(summed, wanted)) + 1]
            return tokens[kept], weights[kept]
        count = count * 8 if count == _FIRST_LOOK else len(weights)


def forbid(logits: NDArray[np.float32], tokens: Sequence[int]) -> NDArray[np.float32]:
    """Return logits, or log-probabilities, [..., V] with -inf for tokens that must not be written."""
    if not tokens:
        return logits
    allowed = logits.copy()
    allowed[..., list(tokens)] = _NEVER
    return allowed
