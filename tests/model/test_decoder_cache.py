from typing import Literal, get_args

import pytest
import torch
from torch import Tensor

from model.attention import KeysValues, explained_attention
from model.decoder import Cache, following, up_to, write
from model.encoder import Positions
from model.encoder_decoder import EncoderDecoder
from tests.model.encoder_decoders import HEADS, LAYERS, PAD, SOURCE_LENGTHS, TARGET_LENGTHS, make_batch, make_network

POSITIONS = [positions for positions in get_args(Positions) if positions != "alibi"]
CAPACITY = 12


def read(network: EncoderDecoder, source_ids: Tensor, mask: Tensor) -> list[KeysValues]:
    """Each layer's keys and values of the source."""
    return network.decoder.read_source(network.encode(source_ids, mask)[0])


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_steps_with_a_cache_equal_the_whole_sequence(positions: Positions, norm: Literal["pre", "post"]) -> None:
    """Logits and every layer's attention within 1e-5, for a ragged source, in a cache with room to spare."""
    network = make_network(positions, norm)
    source_ids, mask, target_ids = make_batch()
    logits, _, self_attentions, cross_attentions = network.explain(source_ids, mask, target_ids)
    source, cache = read(network, source_ids, mask), network.decoder.empty_cache(3, CAPACITY)
    for at in range(target_ids.shape[1]):
        step, cache, decoded = network.step(target_ids[:, at : at + 1], source, mask, cache, explained_attention)
        fused, _, _ = network.step(
            target_ids[:, at : at + 1], source, mask, Cache(cache.layers, cache.lengths - 1)
        )  # writes the same once more
        torch.testing.assert_close(step[:, 0], logits[:, at], atol=1e-5, rtol=0)
        torch.testing.assert_close(fused, step, atol=1e-5, rtol=0)
        for layer in range(LAYERS):
            own, whole = decoded.self_attentions[layer][:, :, 0], self_attentions[layer][:, :, at]
            torch.testing.assert_close(own[..., : whole.shape[-1]], whole, atol=1e-5, rtol=0)
            assert float(own[..., at + 1 :].abs().max()) == 0
            crossed = decoded.cross_attentions[layer][:, :, 0]
            torch.testing.assert_close(crossed, cross_attentions[layer][:, :, at], atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_rows_of_different_lengths_share_a_step(positions: Positions, norm: Literal["pre", "post"]) -> None:
    """Each row has read all but its last two tokens, of nine, three and six; then one and another at once."""
    network = make_network(positions, norm)
    source_ids, mask, target_ids = make_batch()
    expected = network(source_ids, mask, target_ids)
    caches = []
    for row, length in enumerate(TARGET_LENGTHS):
        one = slice(row, row + 1)
        source = read(network, source_ids[one, : SOURCE_LENGTHS[row]], mask[one, : SOURCE_LENGTHS[row]])
        cache = network.decoder.empty_cache(1, CAPACITY)
        _, cache, _ = network.step(
            target_ids[one, : length - 2], source, mask[one, : SOURCE_LENGTHS[row]], cache
        )  # several tokens at once
        caches.append(cache)
    layers = [
        KeysValues(*(torch.cat(side) for side in zip(*(cache.layers[layer] for cache in caches), strict=True)))
        for layer in range(LAYERS)
    ]
    cache = Cache(layers, torch.cat([cache.lengths for cache in caches]))
    assert cache.lengths.tolist() == [length - 2 for length in TARGET_LENGTHS]
    source = read(network, source_ids, mask)
    for back in (2, 1):
        at = torch.tensor(TARGET_LENGTHS) - back
        rows = torch.arange(3)
        logits, cache, _ = network.step(target_ids[rows, at][:, None], source, mask, cache)
        torch.testing.assert_close(logits[:, 0], expected[rows, at], atol=1e-5, rtol=0)
    assert cache.lengths.tolist() == list(TARGET_LENGTHS)


def test_a_step_changes_nothing_it_was_given() -> None:
    """The same step twice from the same cache gives the same, and the cache stays as it was."""
    network = make_network()
    source_ids, mask, target_ids = make_batch()
    source, empty = read(network, source_ids, mask), network.decoder.empty_cache(3, CAPACITY)
    _, cache, _ = network.step(target_ids[:, :2], source, mask, empty)
    before = [(key.clone(), value.clone()) for key, value in cache.layers]
    one, after, _ = network.step(target_ids[:, 2:3], source, mask, cache)
    other, _, _ = network.step(target_ids[:, 2:3], source, mask, cache)
    assert torch.equal(one, other)
    assert not torch.equal(after.layers[0].key, cache.layers[0].key)
    for (key, value), (old_key, old_value) in zip(cache.layers, before, strict=True):
        assert torch.equal(key, old_key) and torch.equal(value, old_value)
    assert float(empty.layers[0].key.abs().max()) == 0


def test_what_lies_beyond_a_rows_length_is_not_read() -> None:
    """Rubbish there changes nothing."""
    network = make_network()
    source_ids, mask, target_ids = make_batch()
    source, empty = read(network, source_ids, mask), network.decoder.empty_cache(3, CAPACITY)
    rubbish = [KeysValues(key + 1e4, value + 1e4) for key, value in empty.layers]
    expected, _, _ = network.step(target_ids[:, :3], source, mask, empty)
    got, _, _ = network.step(target_ids[:, :3], source, mask, Cache(rubbish, empty.lengths))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_places_in_a_cache() -> None:
    """Where the next tokens go, which keys they may attend to, and what is written."""
    positions = following(torch.tensor([0, 3]), 2)
    assert positions.tolist() == [[0, 1], [3, 4]]
    allowed = [[[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]], [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]]
    assert up_to(positions, 5).squeeze(1).int().tolist() == allowed
    written = write(torch.zeros(2, HEADS, 5, 1), torch.ones(2, HEADS, 2, 1), positions)
    for head in range(HEADS):
        assert written[:, head, :, 0].tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]


def test_the_batch_of_these_tests_is_ragged() -> None:
    """Padding on both sides."""
    source_ids, mask, target_ids = make_batch()
    assert mask.sum(-1).tolist() == list(SOURCE_LENGTHS)
    assert (source_ids != PAD).sum(-1).tolist() == list(SOURCE_LENGTHS)
    assert (target_ids != PAD).sum(-1).tolist() == list(TARGET_LENGTHS)
