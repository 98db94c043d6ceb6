"""When each word of a text was spoken, from what a model that hears attended to as it wrote it.

The way is that of OpenAI's whisper (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision"):
what some heads attended to, normalised, smoothed, and aligned by dynamic time warping.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regard.answers import Model
from regard.attention import AttentionRequest
from regard.generation import Generated, GeneratedText, GeneratedToken, SoundPositions

_SMOOTHED = 7  # positions of the median, an odd number


@dataclass(frozen=True)
class WordTime:
    """A word, and when it was spoken.

    Attributes:
        text: The word, with what is written at it without a space between.
        start_seconds: From the beginning of the sound.
        end_seconds: Likewise.
        probability: The mean of its tokens'.
    """

    text: str
    start_seconds: float
    end_seconds: float
    probability: float


def request_word_times(model: Model) -> AttentionRequest:
    """What to ask of cross attention, of one beam, so that `word_times` can be told.

    Raises:
        LookupError: The model does not say which of its heads follow the sound.
    """
    found = _heads(model)
    layers, heads = (tuple(sorted(set(places))) for places in zip(*found, strict=True))
    return AttentionRequest(layers=layers, heads=heads)


def word_times(found: Generated, model: Model) -> tuple[WordTime, ...]:
    """Say when each word of the best text was spoken; what is parted by spaces is a word.

    Example:
        ```python
        model = client.model("whisper-tiny-en")
        asked = regard.request_word_times(model)
        said = client.generate_text(audio="speech.wav", model=model.name, num_beams=1, cross_attention=asked)
        for word in regard.word_times(said, model):
            print(f"{word.start_seconds:6.2f} {word.end_seconds:6.2f} {word.text}")
        ```

    Args:
        found: A text that was written of a sound, with the cross attention that `request_word_times` names.
        model: Which wrote it.

    Raises:
        LookupError: The answer holds no sound or lacks that attention, or the model does not say which heads follow it.
    """
    if found.sound is None:
        raise LookupError("no sound in this answer; expected a text that was written of one")
    if not found.results or not found.results[0].tokens:
        return ()
    result = found.results[0]
    weights = np.stack([_weights_of(result, layer, head) for layer, head in _heads(model)])  # [N, Q, K]
    positions = min(found.sound.count, max(1, math.ceil(found.sound.seconds / found.sound.position_seconds)))
    begun = align(weights[..., :positions])
    return tuple(_words(result, [int(key) * found.sound.position_seconds for key in begun], found.sound))


def align(weights: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return at which key each query begins, in increasing order: [Q], of what heads attend to, float32 [N, Q, K]."""
    spread = weights.std(axis=1, keepdims=True)
    told = (weights - weights.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return warp(-smooth(told).mean(axis=0))


def smooth(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace each number of the last axis by the median of those around it; the ends are mirrored."""
    around = _SMOOTHED // 2
    if rows.shape[-1] <= around:
        return rows
    padded = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(around, around)], mode="reflect")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED, axis=-1), axis=-1))


def warp(costs: NDArray[np.float32]) -> NDArray[np.intp]:
    """Find the cheapest way through [Q, K] from the first corner to the last, by steps down, right or both.

    Returns:
        The first column that it visits in each row, [Q].
    """
    queries, keys = costs.shape
    reached = np.full((queries + 1, keys + 1), np.inf)  # at which cost
    reached[0, 0] = 0
    for row, own in enumerate(costs.astype(np.float64)):
        entered = np.minimum(reached[row, :-1], reached[row, 1:])  # from above
        summed = own.cumsum()
        # reached[j] = own[j] + min(entered[j], reached[j - 1]), unrolled over j
        reached[row + 1, 1:] = summed + np.minimum.accumulate(entered - (summed - own))
    row, column = queries, keys
    first = np.zeros(queries, np.intp)
    while row:
        first[row - 1] = column - 1
        both, down, right = reached[row - 1, column - 1], reached[row - 1, column], reached[row, column - 1]
        if both < down and both < right:
            row, column = row - 1, column - 1
        elif down < both and down < right:
            row -= 1
        else:
            column -= 1
    return first


def _heads(model: Model) -> tuple[tuple[int, int], ...]:
    found = model.generation.alignment_heads if model.generation else ()
    if not found:
        raise LookupError(f"{model.name} does not say which of its heads follow the sound")
    return found


def _weights_of(result: GeneratedText, layer: int, head: int) -> NDArray[np.float32]:
    """What each step gave each position in one head, [Q, K]."""
    told = result.alignment(layer)
    if told.axes[0] != "head" or head not in told.heads:
        raise LookupError(f"no head {head} of layer {layer} in this answer; expected what request_word_times names")
    weights: NDArray[np.float32] = told.weights[told.heads.index(head)]
    return weights


def _words(result: GeneratedText, starts: list[float], sound: SoundPositions) -> list[WordTime]:
    """Join tokens to words; a word begins with a space, and ends where what follows it begins."""
    ended = result.finish_reason == "end"
    tokens = result.tokens[:-1] if ended else result.tokens
    bounds = starts if ended else [*starts, sound.seconds]
    groups, opened = list[list[int]](), list[int]()
    for place, token in enumerate(tokens):
        opened.append(place)
        if not token.text:  # its character is not whole yet
            continue
        if token.text[0].isspace() or not groups:
            groups.append(opened)
        else:
            groups[-1] += opened
        opened = []
    return [_word([tokens[place] for place in group], bounds[group[0]], bounds[group[-1] + 1]) for group in groups]


def _word(tokens: list[GeneratedToken], start: float, end: float) -> WordTime:
    probability = sum(math.exp(token.log_probability) for token in tokens) / len(tokens)
    return WordTime("".join(token.text for token in tokens).strip(), start, end, probability)
