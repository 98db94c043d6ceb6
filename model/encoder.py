"""The transformer encoder (Vaswani et al. 2017, section 3.1), pre-norm or post-norm."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from model.attention import Attend, MultiHeadAttention, fused_attention
from model.positions import Rotary, alibi_bias, alibi_slopes, sinusoidal_halves, sinusoidal_interleaved

Positions = Literal["learned", "sinusoidal_halves", "sinusoidal_interleaved", "rotary", "alibi", "none"]
Activation = Literal["gelu", "relu", "silu"]


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder.

    Attributes:
        embed_dim: D.
        num_layers: How many encoder layers.
        num_heads: H; divides D.
        mlp_dim: Width of the hidden layer of each MLP.
        norm: "pre" normalises what enters attention and MLP, and once at the end; "post" normalises each sum.
        activation: Of the MLP.
        norm_eps: Added to the variance by every LayerNorm.
        qkv_bias: Whether query, key and value projections add a bias.
        layer_scale: Whether each branch is multiplied by a learned vector (Touvron et al. 2021, section 2).
        dropout: Probability of dropping a channel of a branch while training.
        positions: The positional encoding; "none" where the network adds its own.
        max_positions: The longest sequence that learned, sinusoidal and rotary encodings can number.
    """

    embed_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    norm: Literal["pre", "post"] = "pre"
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    layer_scale: bool = False
    dropout: float = 0.0
    positions: Positions = "none"
    max_positions: int = 512


class MLP(nn.Module):
    """Two linear layers with an activation between (section 3.3)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.embed_dim, config.mlp_dim)
        self.down = nn.Linear(config.mlp_dim, config.embed_dim)
        self.activation = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}[config.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Map each position on its own, float [B, N, D] to [B, N, D]."""
        hidden: Tensor = self.activation(self.up(x))  # [B, N, mlp_dim]
        out: Tensor = self.down(hidden)
        return out


class LayerScale(nn.Module):
    """Multiplies each channel by a learned factor."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.full((embed_dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """Scale float [B, N, D]."""
        return x * self.factors


class EncoderLayer(nn.Module):
    """Attention, then an MLP, each added to what came in."""

    def __init__(self, config: EncoderConfig, rotary: Rotary | None) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.attention = MultiHeadAttention(config.embed_dim, config.num_heads, qkv_bias=config.qkv_bias, rotary=rotary)
        self.attention_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.attention_scale = LayerScale(config.embed_dim) if config.layer_scale else nn.Identity()
        self.mlp = MLP(config)
        self.mlp_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.mlp_scale = LayerScale(config.embed_dim) if config.layer_scale else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, attend: Attend) -> tuple[Tensor, Tensor | None]:
        """Map float [B, N, D] to [B, N, D]; return it with the attention weights [B, H, N, N] or None."""
        if self.pre_norm:
            attended, weights = self.attention(self.attention_norm(x), mask=mask, attend=attend)
            x = x + self.dropout(self.attention_scale(attended))
            return x + self.dropout(self.mlp_scale(self.mlp(self.mlp_norm(x)))), weights
        attended, weights = self.attention(x, mask=mask, attend=attend)
        x = self.attention_norm(x + self.dropout(self.attention_scale(attended)))
        return self.mlp_norm(x + self.dropout(self.mlp_scale(self.mlp(x)))), weights


class Stack(nn.Module):
    """What encoder and decoder have in common: a positional encoding of choice, and the norm after pre-norm layers."""

    position_table: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        if config.positions == "learned":
            self.learned_positions = nn.Embedding(config.max_positions, config.embed_dim)
        elif config.positions in ("sinusoidal_halves", "sinusoidal_interleaved"):
            table = sinusoidal_halves if config.positions == "sinusoidal_halves" else sinusoidal_interleaved
            self.register_buffer("position_table", table(config.max_positions, config.embed_dim), persistent=False)
        self.final_norm: nn.Module = nn.Identity()
        if config.norm == "pre":
            self.final_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)

    def add_positions(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Add the encoding of int64 [B, N] positions, or of 0 .. N-1, to embeddings, float [B, N, D].

        Where the encoding is not one that is added, x is returned.
        """
        if self.config.positions == "learned":
            table = self.learned_positions.weight
        elif self.config.positions in ("sinusoidal_halves", "sinusoidal_interleaved"):
            table = self.position_table
        else:
            return x
        return x + (table[: x.shape[1]] if positions is None else table[positions])


def make_rotary(config: EncoderConfig) -> Rotary | None:
    """Make what turns queries and keys, where that is the positional encoding."""
    if config.positions != "rotary":
        return None
    return Rotary(config.max_positions, config.embed_dim // config.num_heads)


class Encoder(Stack):
    """A stack of encoder layers."""

    slopes: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        if config.positions == "alibi":
            self.register_buffer("slopes", alibi_slopes(config.num_heads), persistent=False)
        rotary = make_rotary(config)
        self.layers = nn.ModuleList(EncoderLayer(config, rotary) for _ in range(config.num_layers))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, attend: Attend = fused_attention
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Encode a batch of sequences.

        Args:
            x: Float [B, N, D].
            mask: Bool [B, N], True at real positions and False at padding; None where there is none.
            attend: How attention is computed.

        Returns:
            Float [B, N, D]; each layer's weights, float [B, H, N, N], none for fused attention; and the hidden states,
            each float [B, N, D]: what enters the first layer, and what leaves each, before the last norm.
        """
        scores_mask = self._scores_mask(x, mask)
        attentions: list[Tensor] = []
        states = [x]
        for layer in self.layers:
            x, weights = layer(x, scores_mask, attend)
            states.append(x)
            if weights is not None:
                attentions.append(weights)
        return self.final_norm(x), attentions, states

    def _scores_mask(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """What attention adds to or hides from the scores: bool [B, 1, N, N] or float [B or 1, H, N, N]."""
        num_positions = x.shape[1]
        keys = None if mask is None else mask[:, None, None, :].expand(-1, 1, num_positions, -1)
        if self.config.positions != "alibi":
            return keys
        bias = alibi_bias(self.slopes, num_positions)[None]  # [1, H, N, N]
        return bias if keys is None else bias.masked_fill(~keys, float("-inf"))
