"""Scaled dot-product and multi-head attention (Vaswani et al. 2017, section 3.2).

Axes: B batch, H heads, Q queries, K keys, D embedding, d head_dim = D / H.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.positions import Rotary


class KeysValues(NamedTuple):
    """What queries meet: keys and values, each float [B, H, K, d]."""

    key: Tensor
    value: Tensor


class Attend(Protocol):
    """One way to compute attention: `fused_attention` or `explained_attention`."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended values and, where this way computes them, the weights."""
        ...


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False
) -> tuple[Tensor, None]:
    """Compute softmax(Q K^T / sqrt(d)) V in one kernel, which never holds the weights.

    Args: as `explained_attention`.

    Returns:
        The attended values, float [B, H, Q, d], and None in place of the weights.
    """
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal), None


def explained_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute softmax(Q K^T / sqrt(d)) V step by step (Vaswani et al. 2017, equation 1).

    Args:
        query: Float [B, H, Q, d].
        key: Float [B, H, K, d].
        value: Float [B, H, K, d].
        mask: Broadcastable to [B, H, Q, K]. Bool: True where a query may attend to a key. Float: added to the scores.
        causal: A query attends to keys up to its own position only; may not be combined with a mask.
        scale: What Q K^T is multiplied by; None for 1 / sqrt(d).

    Returns:
        The attended values, float [B, H, Q, d], and the weights, float [B, H, Q, K], whose rows sum to 1.

    Raises:
        ValueError: Both a mask and causal were given.
    """
    if causal and mask is not None:
        raise ValueError("causal: True together with a mask; expected one of the two (put the causal part in the mask)")
    if causal:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    scores = query @ key.transpose(-2, -1)  # [B, H, Q, K]
    scores = scores / math.sqrt(query.shape[-1]) if scale is None else scores * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1)
    return weights @ value, weights


class MultiHeadAttention(nn.Module):
    """Concat(head_1 .. head_h) W^O with head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) (section 3.2.2)."""

    def __init__(self, embed_dim: int, num_heads: int, *, qkv_bias: bool = True, rotary: Rotary | None = None) -> None:
        """Make the four projections.

        Args:
            embed_dim: D, a multiple of num_heads.
            num_heads: H.
            qkv_bias: Whether the query, key and value projections add a bias.
            rotary: Rotates queries and keys by their positions before they meet.

        Raises:
            ValueError: num_heads does not divide embed_dim.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"num_heads: {num_heads} does not divide embed_dim {embed_dim}")
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim, bias=qkv_bias)
        self.key = nn.Linear(embed_dim, embed_dim, bias=qkv_bias)
        self.value = nn.Linear(embed_dim, embed_dim, bias=qkv_bias)
        self.out = nn.Linear(embed_dim, embed_dim)
        self.rotary = rotary

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        attend: Attend = fused_attention,
    ) -> tuple[Tensor, Tensor | None]:
        """Let every position of x attend to the context, or to x itself.

        Args:
            x: Float [B, Q, D].
            context: Float [B, K, D] for cross attention; None for self attention (K = Q).
            mask: See `explained_attention`.
            causal: See `explained_attention`.
            attend: How attention is computed; decides whether there are weights to return.

        Returns:
            Float [B, Q, D], and the weights [B, H, Q, K] or None.
        """
        keys_values = self.keys_and_values(x if context is None else context)
        return self.look_up(x, keys_values, mask, causal=causal, attend=attend)

    def keys_and_values(self, context: Tensor, positions: Tensor | None = None) -> KeysValues:
        """Project what will be attended to: float [B, K, D] to keys and values, each float [B, H, K, d].

        positions, int64 [B, K], are those that rotary keys are turned by; None for 0 .. K-1.
        """
        key, value = self._split(self.key(context)), self._split(self.value(context))
        return KeysValues(key if self.rotary is None else self.rotary(key, positions), value)

    def look_up(
        self,
        x: Tensor,
        keys_values: KeysValues,
        mask: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        causal: bool = False,
        attend: Attend = fused_attention,
    ) -> tuple[Tensor, Tensor | None]:
        """Let every position of x attend to keys and values that are projected already.

        Args:
            x: Float [B, Q, D].
            keys_values: As `keys_and_values` gives them.
            mask: See `explained_attention`.
            positions: int64 [B, Q], those that rotary queries are turned by; None for 0 .. Q-1.
            causal: See `explained_attention`.
            attend: How attention is computed; decides whether there are weights to return.

        Returns:
            Float [B, Q, D], and the weights [B, H, Q, K] or None.
        """
        query = self._split(self.query(x))
        if self.rotary is not None:
            query = self.rotary(query, positions)
        attended, weights = attend(query, *keys_values, mask, causal=causal)  # [B, H, Q, d]
        return self.out(attended.transpose(1, 2).flatten(2)), weights

    def _split(self, x: Tensor) -> Tensor:
        heads = x.reshape(x.shape[0], x.shape[1], self.num_heads, -1)  # [B, N, H, d]
        return heads.transpose(1, 2)  # [B, H, N, d]
