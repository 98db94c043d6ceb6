import math

import numpy as np
import pytest
import torch
from torch import Tensor

from model.attention import MultiHeadAttention, explained_attention, fused_attention

BATCH, HEADS, QUERIES, KEYS, HEAD_DIM = 2, 3, 5, 7, 8


def make_qkv(keys: int = QUERIES) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, keys and values."""
    torch.manual_seed(0)
    query = torch.randn(BATCH, HEADS, QUERIES, HEAD_DIM)
    return query, torch.randn(BATCH, HEADS, keys, HEAD_DIM), torch.randn(BATCH, HEADS, keys, HEAD_DIM)


def padding_mask(keys: int) -> Tensor:
    """True at real keys: all of the first row, all but two of the second."""
    mask = torch.ones(BATCH, 1, 1, keys, dtype=torch.bool)
    mask[1, ..., -2:] = False
    return mask


CASES = {
    "plain": (QUERIES, None, False),
    "padding mask": (QUERIES, padding_mask(QUERIES), False),
    "causal": (QUERIES, None, True),
    "cross": (KEYS, None, False),
    "cross with padding": (KEYS, padding_mask(KEYS), False),
    "bias": (QUERIES, torch.linspace(-3, 3, QUERIES * QUERIES).reshape(1, 1, QUERIES, QUERIES), False),
}


@pytest.mark.parametrize("case", CASES)
def test_fused_and_eager_attention_are_equal(case: str) -> None:
    """Within 1e-6 in float32."""
    keys, mask, causal = CASES[case]
    query, key, value = make_qkv(keys)
    fused, nothing = fused_attention(query, key, value, mask, causal=causal)
    explained, _ = explained_attention(query, key, value, mask, causal=causal)
    assert nothing is None
    torch.testing.assert_close(fused, explained, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_weights_follow_the_formula(case: str) -> None:
    """softmax(Q K^T / sqrt(d)) computed in float64 with loops; rows sum to 1, hidden keys get 0."""
    keys, mask, causal = CASES[case]
    query, key, value = make_qkv(keys)
    _, weights = explained_attention(query, key, value, mask, causal=causal)
    full = None if mask is None else mask.expand(BATCH, HEADS, QUERIES, keys).numpy()
    for b, h, q in np.ndindex(BATCH, HEADS, QUERIES):
        scores = key[b, h].numpy().astype(np.float64) @ query[b, h, q].numpy().astype(np.float64)
        scores /= math.sqrt(HEAD_DIM)
        if full is not None:
            scores = np.where(full[b, h, q], scores, -np.inf) if full.dtype == bool else scores + full[b, h, q]
        if causal:
            scores[q + 1 :] = -np.inf
        expected = np.exp(scores - scores.max())
        np.testing.assert_allclose(weights[b, h, q].numpy(), expected / expected.sum(), atol=1e-6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, HEADS, QUERIES), atol=1e-6, rtol=0)


def test_scores_may_be_scaled_otherwise() -> None:
    """As torch's own attention does it, with a bias that is not scaled."""
    query, key, value = make_qkv()
    bias = torch.linspace(-3, 3, QUERIES).reshape(1, 1, 1, QUERIES)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.7)
    found, weights = explained_attention(query, key, value, bias, scale=0.7)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights @ value, expected, atol=1e-6, rtol=0)


def test_a_mask_together_with_causal_is_refused() -> None:
    """As torch's own kernel refuses it."""
    query, key, value = make_qkv()
    with pytest.raises(ValueError, match="causal: True together with a mask; expected one of the two"):
        explained_attention(query, key, value, padding_mask(QUERIES), causal=True)


@pytest.mark.parametrize("cross", [False, True])
def test_multi_head_attention_is_the_heads_put_side_by_side(cross: bool) -> None:
    """Concat(head_1 .. head_h) W^O, each head projected with its own slice of the weights."""
    torch.manual_seed(0)
    heads, width = 4, 24
    attention = MultiHeadAttention(width, heads)
    x = torch.randn(BATCH, QUERIES, width)
    context = torch.randn(BATCH, KEYS, width) if cross else x
    outputs = []
    for head in range(heads):
        rows = slice(head * width // heads, (head + 1) * width // heads)
        query, key, value = (
            source @ layer.weight[rows].T + layer.bias[rows]
            for source, layer in ((x, attention.query), (context, attention.key), (context, attention.value))
        )
        scores = (query @ key.transpose(1, 2) / math.sqrt(width / heads)).softmax(-1)
        outputs.append(scores @ value)
    expected = torch.cat(outputs, dim=-1) @ attention.out.weight.T + attention.out.bias
    fused, _ = attention(x, context if cross else None)
    explained, weights = attention(x, context if cross else None, attend=explained_attention)
    torch.testing.assert_close(fused, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(explained, expected, atol=1e-6, rtol=1e-5)
    assert weights.shape == (BATCH, heads, QUERIES, KEYS if cross else QUERIES)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    """By name and value."""
    with pytest.raises(ValueError, match="num_heads: 5 does not divide embed_dim 24"):
        MultiHeadAttention(24, 5)
