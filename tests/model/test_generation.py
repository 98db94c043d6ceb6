import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.encoder_decoder import EncoderDecoder
from model.generation import Hypothesis, search_beams, write_greedily
from tests.model.encoder_decoders import END, PAD, START, VOCAB, make_batch, make_network

MAX_TOKENS = 6
Likelihoods = Callable[[list[int]], list[float]]


def likelihoods(network: EncoderDecoder, source_ids: Tensor, mask: Tensor) -> Likelihoods:
    """Log-probabilities of the token after some, from the whole sequence, for a source without its padding."""
    source_ids, mask = source_ids[None, : int(mask.sum())], mask[None, : int(mask.sum())]

    def follow(tokens: list[int]) -> list[float]:
        with torch.inference_mode():
            logits = network(source_ids, mask, torch.tensor([[START, *tokens]]))
        found: list[float] = logits[0, -1].log_softmax(-1).tolist()
        return found

    return follow


def reference_beams(follow: Likelihoods, beam_size: int, length_penalty: float) -> list[Hypothesis]:
    """Beam search by its textbook, one row, without a cache or batches; the end token is part of tokens here."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(MAX_TOKENS):
        longer = [beam for beam in beams if beam[1][-1:] == [END]]
        for score, tokens in beams:
            if tokens[-1:] != [END]:
                longer += [(score + more, [*tokens, token]) for token, more in enumerate(follow(tokens))]
        beams = sorted(longer, key=lambda beam: -beam[0])[:beam_size]
    beams.sort(key=lambda beam: -beam[0] / len(beam[1]) ** length_penalty)
    return [Hypothesis([token for token in tokens if token != END], score) for score, tokens in beams]


def ending_network() -> EncoderDecoder:
    """One that ends early at times, and does not write padding."""
    network = make_network(output_bias=True)
    assert network.output_bias is not None
    network.output_bias[END], network.output_bias[PAD] = 2.0, -1e4
    return network


@pytest.mark.parametrize("beam_size", [1, 2, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_beams_are_those_of_the_textbook(beam_size: int, length_penalty: float) -> None:
    """Tokens and order the same, log-probabilities within 1e-4, for each row of a ragged batch."""
    network = ending_network()
    source_ids, mask, _ = make_batch()
    start = torch.full((3,), START)
    found = search_beams(
        network, source_ids, mask, start, MAX_TOKENS, beam_size=beam_size, length_penalty=length_penalty
    )
    lengths = set()
    for row, beams in enumerate(found):
        expected = reference_beams(likelihoods(network, source_ids[row], mask[row]), beam_size, length_penalty)
        assert [beam.tokens for beam in beams] == [beam.tokens for beam in expected]
        for beam, other in zip(beams, expected, strict=True):
            assert beam.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        lengths |= {len(beam.tokens) for beam in beams}
    assert beam_size < 5 or len(lengths) > 1


def test_writing_greedily_takes_the_likeliest_token_each_time() -> None:
    """Until the end token, or until there are enough."""
    network = ending_network()
    source_ids, mask, _ = make_batch()
    found = write_greedily(network, source_ids, mask, torch.full((3,), START), MAX_TOKENS)
    for row, hypothesis in enumerate(found):
        follow = likelihoods(network, source_ids[row], mask[row])
        tokens: list[int] = []
        total = 0.0
        while len(tokens) < MAX_TOKENS and tokens[-1:] != [END]:
            scores = follow(tokens)
            tokens.append(max(range(VOCAB), key=scores.__getitem__))
            total += scores[tokens[-1]]
        assert hypothesis.tokens == [token for token in tokens if token != END]
        assert hypothesis.log_probability == pytest.approx(total, abs=1e-4)


def test_a_beam_as_wide_as_all_there_is_finds_the_best() -> None:
    """Of every sequence of at most two tokens."""
    network = ending_network()
    source_ids, mask, _ = make_batch()
    follow = likelihoods(network, source_ids[0], mask[0])
    first = follow([])
    best = max(
        [(first[END], [END])]
        + [
            (first[one] + second, [one, other])
            for one in range(VOCAB)
            if one != END and math.isfinite(first[one])
            for other, second in enumerate(follow([one]))
        ]
    )
    found = search_beams(
        network, source_ids[:1], mask[:1], torch.tensor([START]), 2, beam_size=VOCAB, length_penalty=0.0
    )
    assert found[0][0].tokens == [token for token in best[1] if token != END]


def test_each_row_starts_with_its_own_token() -> None:
    """Two start tokens in one batch give what each gives alone."""
    network = ending_network()
    source_ids, mask, _ = make_batch()
    starts = torch.tensor([3, 4, 5])
    together = write_greedily(network, source_ids, mask, starts, MAX_TOKENS)
    for row, start in itertools.product(range(3), [3, 4, 5]):
        (alone,) = write_greedily(
            network, source_ids[row : row + 1], mask[row : row + 1], torch.tensor([start]), MAX_TOKENS
        )
        assert start != starts[row] or alone.tokens == together[row].tokens
