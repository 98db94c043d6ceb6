"""Attention: the fused and the written-out form agree, and both agree with the formula."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.attention import MultiHeadAttention, explained_attention, fused_attention
from model.positions import Rotary, alibi_bias, alibi_slopes

# float32 rounding of sums of ten or so terms of magnitude 1.
TOLERANCE = 1e-6
B, H, Q, K, D = 3, 4, 7, 7, 8


def make_tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Random tensors, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def formula(query: Tensor, key: Tensor, value: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """softmax(Q K^T / sqrt(d)) V in loops over batch, head and query, in float64."""
    q, k, v = (tensor.double().numpy() for tensor in (query, key, value))
    weights = np.zeros((*q.shape[:3], k.shape[2]))
    attended = np.zeros(q.shape)
    for b, h, i in np.ndindex(*q.shape[:3]):
        exponentials = np.exp(k[b, h] @ q[b, h, i] / math.sqrt(q.shape[-1]))
        weights[b, h, i] = exponentials / exponentials.sum()
        attended[b, h, i] = sum(weights[b, h, i, j] * v[b, h, j] for j in range(k.shape[2]))
    return attended, weights


def padding_mask() -> Tensor:
    """Rows of 7, 4 and 1 real keys, bool [B, 1, 1, K]."""
    return (torch.arange(K) < torch.tensor([7, 4, 1])[:, None])[:, None, None]


@pytest.mark.parametrize(
    ("mask", "causal"),
    [
        pytest.param(None, False, id="plain"),
        pytest.param(padding_mask(), False, id="padding"),
        pytest.param(None, True, id="causal"),
        pytest.param(make_tensors((1, H, Q, K))[0], False, id="float-bias"),
        pytest.param(alibi_bias(alibi_slopes(H), Q), False, id="alibi"),
    ],
)
def test_fused_equals_explained(mask: Tensor | None, causal: bool) -> None:
    """The kernel and the step by step form give the same values; only the second gives weights, which sum to 1."""
    query, key, value = make_tensors((B, H, Q, D), (B, H, K, D), (B, H, K, D))
    fused, nothing = fused_attention(query, key, value, mask, causal=causal)
    explained, weights = explained_attention(query, key, value, mask, causal=causal)
    assert nothing is None
    torch.testing.assert_close(fused, explained, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, Q), atol=TOLERANCE, rtol=0)


def test_cross_attention_may_have_other_keys_than_queries() -> None:
    """With 7 queries and 5 keys the weights are [B, H, 7, 5] and both forms agree."""
    query, key, value = make_tensors((B, H, 7, D), (B, H, 5, D), (B, H, 5, D))
    explained, weights = explained_attention(query, key, value)
    assert weights.shape == (B, H, 7, 5)
    torch.testing.assert_close(fused_attention(query, key, value)[0], explained, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, 7), atol=TOLERANCE, rtol=0)


def test_explained_attention_is_the_formula() -> None:
    """Values and weights equal the formula in float64 to 1e-12."""
    query, key, value = make_tensors((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4), dtype=torch.float64)
    attended, weights = explained_attention(query, key, value)
    expected_attended, expected_weights = formula(query, key, value)
    np.testing.assert_allclose(attended.numpy(), expected_attended, atol=1e-12, rtol=0)
    np.testing.assert_allclose(weights.numpy(), expected_weights, atol=1e-12, rtol=0)


def test_hidden_keys_get_exactly_no_weight() -> None:
    """Padding and, in the causal form, the future are 0, not merely small."""
    query, key, value = make_tensors((B, H, Q, D), (B, H, K, D), (B, H, K, D))
    _, padded = explained_attention(query, key, value, padding_mask())
    assert padded[1, :, :, 4:].eq(0).all() and padded[2, :, :, :1].eq(1).all()
    _, causal = explained_attention(query, key, value, causal=True)
    assert causal.triu(1).eq(0).all() and causal.tril().gt(0).sum() == B * H * Q * (Q + 1) // 2


def test_a_float_bias_is_added_to_the_scores_after_scaling() -> None:
    """Adding log 2 to one key's score doubles its weight against the others'."""
    query, key, value = make_tensors((1, 1, 1, D), (1, 1, 4, D), (1, 1, 4, D))
    bias = torch.zeros(1, 1, 1, 4)
    bias[..., 2] = math.log(2)
    plain, biased = (explained_attention(query, key, value, mask)[1][0, 0, 0] for mask in (None, bias))
    torch.testing.assert_close(biased[2] / biased[0], 2 * plain[2] / plain[0], atol=TOLERANCE, rtol=TOLERANCE)


def test_a_mask_together_with_causal_is_refused() -> None:
    """The message names causal and says what to do."""
    query, key, value = make_tensors((B, H, Q, D), (B, H, K, D), (B, H, K, D))
    with pytest.raises(ValueError, match="causal: True together with a mask"):
        explained_attention(query, key, value, padding_mask(), causal=True)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_multi_head_attention_is_the_heads_concatenated_and_projected(qkv_bias: bool) -> None:
    """Each head written out with its own rows of W^Q, W^K and W^V, then Concat(head_1 .. head_h) W^O."""
    torch.manual_seed(0)
    width, heads = 12, 3
    attention = MultiHeadAttention(width, heads, qkv_bias=qkv_bias).double()
    x, context = make_tensors((2, 5, width), (2, 4, width), dtype=torch.float64)
    head_dim = width // heads
    head_values, head_weights = [], []
    for head in range(heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        projections = (attention.query, attention.key, attention.value)
        query, key, value = (
            source @ linear.weight[rows].T + (linear.bias[rows] if qkv_bias else 0)
            for source, linear in zip((x, context, context), projections, strict=True)
        )
        weights = torch.softmax(query @ key.mT / math.sqrt(head_dim), dim=-1)
        head_values.append(weights @ value)
        head_weights.append(weights)
    expected = torch.cat(head_values, dim=-1) @ attention.out.weight.T + attention.out.bias
    got, weights = attention(x, context, attend=explained_attention)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(weights, torch.stack(head_weights, dim=1), atol=1e-12, rtol=0)
    torch.testing.assert_close(attention(x, context)[0], expected, atol=1e-12, rtol=0)


def test_self_attention_looks_at_itself() -> None:
    """Without a context, x is the context."""
    attention = MultiHeadAttention(8, 2)
    (x,) = make_tensors((2, 5, 8))
    torch.testing.assert_close(attention(x)[0], attention(x, x)[0], atol=0, rtol=0)


def test_rotary_heads_turn_queries_and_keys_but_not_values() -> None:
    """With one position to look at, only the value counts, and it comes out unturned."""
    rotary = Rotary(max_positions=8, head_dim=4)
    attention = MultiHeadAttention(8, 2, rotary=rotary)
    x = make_tensors((1, 6, 8))[0]
    only_last = torch.zeros(1, 1, 1, 6, dtype=torch.bool)
    only_last[..., 5] = True
    got, _ = attention(x, mask=only_last)
    expected = attention.out(attention.value(x[:, 5:])).expand(-1, 6, -1)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_heads_that_do_not_divide_the_embedding_are_refused() -> None:
    """The message names both numbers."""
    with pytest.raises(ValueError, match="num_heads: 5 does not divide embed_dim 32"):
        MultiHeadAttention(32, 5)
