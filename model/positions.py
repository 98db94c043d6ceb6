"""Positional encodings, one formula each, chosen by name. N positions, D embedding, d head_dim."""

import torch
from torch import Tensor, nn


def sinusoidal_halves(num_positions: int, embed_dim: int) -> Tensor:
    """Sines in the first half of the channels, cosines in the second, as taught in the lecture regard grew from.

    For D = 2 m: PE(p, i) = sin(p / 10000^(i/m)) for i < m, and cos(p / 10000^((i-m)/m)) for i >= m.

    Returns:
        Float [N, D].
    """
    angles = _angles(num_positions, embed_dim)  # [N, m]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sinusoidal_interleaved(num_positions: int, embed_dim: int) -> Tensor:
    """Sine and cosine in turn (Vaswani et al. 2017, section 3.5).

    PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D)).

    Returns:
        Float [N, D].
    """
    angles = _angles(num_positions, embed_dim)  # [N, D/2]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _angles(num_positions: int, embed_dim: int) -> Tensor:
    """Return p / 10000^(i / (D/2)) as float [N, D/2], computed in float64."""
    if embed_dim % 2:
        raise ValueError(f"embed_dim: {embed_dim} is odd; sinusoidal encodings need an even number of channels")
    half = embed_dim // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    return (torch.arange(num_positions, dtype=torch.float64)[:, None] * rates).float()


class Rotary(nn.Module):
    """Rotary position embedding: turns each pair of channels by an angle that grows with the position.

    Source: RoFormer (Su et al. 2021), equations 15 and 34: channels (2i, 2i+1) at position p turn by
    p / 10000^(2i/d), so that the dot product of a query and a key depends on their distance only.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, max_positions: int, head_dim: int) -> None:
        super().__init__()
        angles = _angles(max_positions, head_dim)  # [N, d/2]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Turn queries or keys, float [B, H, N, d], by the angles of int64 [B, N] positions, or of 0 .. N-1."""
        if positions is None:
            cos, sin = self.cos[: x.shape[-2]], self.sin[: x.shape[-2]]  # [N, d/2]
        else:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]  # [B, 1, N, d/2]
        even, odd = x[..., 0::2], x[..., 1::2]  # [B, H, N, d/2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def alibi_slopes(num_heads: int) -> Tensor:
    """How fast each head's attention falls with distance (Press et al. 2022, section 3 and its appendix).

    For a power of two H: 2^(-8/H), 2^(-16/H), ..., 2^-8. Otherwise the slopes of the next smaller power of two,
    followed by every other slope of the next larger one.

    Returns:
        Float [H].
    """
    lower = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * (i + 1) / lower) for i in range(lower)]
    slopes += [2.0 ** (-8 * (i + 1) / (2 * lower)) for i in range(0, 2 * (num_heads - lower), 2)]
    return torch.tensor(slopes)


def alibi_bias(slopes: Tensor, num_positions: int) -> Tensor:
    """Penalty added to the scores: -slope * |i - j|, the two-sided form for encoders.

    Args:
        slopes: Float [H].
        num_positions: N.

    Returns:
        Float [H, N, N].
    """
    positions = torch.arange(num_positions, device=slopes.device)
    return -slopes[:, None, None] * (positions[:, None] - positions[None, :]).abs()
