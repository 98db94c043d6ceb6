"""Writes sequences with an encoder-decoder, a token at a time: greedily, or by beam search.

Axes: B batch, K beam, S source tokens, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import KeysValues
from model.decoder import Cache
from model.encoder_decoder import EncoderDecoder


@dataclass(frozen=True)
class Hypothesis:
    """What was written, without start and end token, and its log-probability, that of the end token included."""

    tokens: list[int]
    log_probability: float


@torch.inference_mode()
def write_greedily(
    network: EncoderDecoder, source_ids: Tensor, source_mask: Tensor, start: Tensor, max_tokens: int
) -> list[Hypothesis]:
    """Write the likeliest token at each step.

    Args:
        network: In evaluation mode.
        source_ids: int64 [B, S].
        source_mask: int64 [B, S], 1 at real tokens, 0 at padding.
        start: The token each row starts with, int64 [B].
        max_tokens: At which a row that has not ended is cut.
    """
    return [beams[0] for beams in search_beams(network, source_ids, source_mask, start, max_tokens, beam_size=1)]


@torch.inference_mode()
def search_beams(
    network: EncoderDecoder,
    source_ids: Tensor,
    source_mask: Tensor,
    start: Tensor,
    max_tokens: int,
    *,
    beam_size: int,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """Keep the beam_size likeliest beginnings at each step.

    Args:
        network: In evaluation mode.
        source_ids: int64 [B, S].
        source_mask: int64 [B, S], 1 at real tokens, 0 at padding.
        start: The token each row starts with, int64 [B].
        max_tokens: At which a hypothesis that has not ended is cut.
        beam_size: K.
        length_penalty: Hypotheses are ranked by log-probability / length ^ length_penalty, the end token counted.

    Returns:
        K hypotheses a row, the best first.
    """
    batch, end, pad = len(source_ids), network.config.end_token, network.config.pad_token
    hidden, _ = network.encode(source_ids, source_mask)
    first_row = torch.arange(batch) * beam_size  # [B], of the B * K rows
    source_mask = source_mask.repeat_interleave(beam_size, 0)  # [B K, S]
    source = _pick(network.decoder.read_source(hidden), torch.arange(batch).repeat_interleave(beam_size))
    cache = network.decoder.empty_cache(batch * beam_size, max_tokens)
    tokens = start.repeat_interleave(beam_size)[:, None]  # [B K, 1]
    written = tokens[:, :0]
    scores = torch.full((batch, beam_size), -math.inf)
    scores[:, 0] = 0  # at first all beams of a row are the same
    ended = torch.zeros(batch * beam_size, dtype=torch.bool)
    for _ in range(max_tokens):
        logits, cache, _ = network.step(tokens, source, source_mask, cache)
        steps = logits[:, -1].float().log_softmax(-1)  # [B K, V]
        steps[ended] = -math.inf
        steps[ended, pad] = 0  # what has ended stays as it is
        totals = scores[..., None] + steps.unflatten(0, (batch, beam_size))  # [B, K, V]
        scores, best = totals.flatten(1).topk(beam_size)  # [B, K]
        rows = (first_row[:, None] + best // steps.shape[-1]).flatten()  # [B K]
        tokens = (best % steps.shape[-1]).reshape(-1, 1)
        written = torch.cat([written[rows], tokens], dim=1)
        ended = ended[rows] | (tokens[:, 0] == end)
        if ended.all():
            break
        cache = Cache(_pick(cache.layers, rows), cache.lengths[rows])
    return _rank(written.unflatten(0, (batch, beam_size)), scores, end, pad, length_penalty)


def _pick(layers: Sequence[KeysValues], rows: Tensor) -> list[KeysValues]:
    return [KeysValues(key[rows], value[rows]) for key, value in layers]


def _rank(written: Tensor, scores: Tensor, end: int, pad: int, length_penalty: float) -> list[list[Hypothesis]]:
    lengths = (written != pad).sum(-1)  # [B, K]
    order = (scores / lengths**length_penalty).argsort(dim=-1, descending=True, stable=True)
    return [
        [
            Hypothesis(
                [token for token in written[row, beam].tolist() if token not in (end, pad)], float(scores[row, beam])
            )
            for beam in order[row]
        ]
        for row in range(len(written))
    ]
