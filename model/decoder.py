"""The transformer decoder (Vaswani et al. 2017, section 3.1), for whole sequences and for the next tokens of them.

Axes: B batch, H heads, T target tokens, S source tokens, L length of a cache, D embedding, d head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from model.attention import Attend, KeysValues, MultiHeadAttention, fused_attention
from model.encoder import MLP, EncoderConfig, Stack, make_rotary
from model.positions import Rotary


@dataclass(frozen=True)
class DecoderConfig(EncoderConfig):
    """Shape of a decoder: the fields of an encoder's, less "alibi" positions and layer_scale.

    Raises:
        ValueError: One of those two was asked for.
    """

    def __post_init__(self) -> None:
        if self.positions == "alibi":
            raise ValueError("positions: 'alibi'; expected another encoding for a decoder")
        if self.layer_scale:
            raise ValueError("layer_scale: True; expected False for a decoder")


@dataclass(frozen=True)
class Cache:
    """What a decoder keeps of the tokens that it has read.

    Attributes:
        layers: Each layer's keys and values of self attention, float [B, H, L, d]; those at a row's length and beyond
            it are not read.
        lengths: Of each row, int64 [B].
    """

    layers: Sequence[KeysValues]
    lengths: Tensor


@dataclass(frozen=True)
class Decoded:
    """What a decoder gives.

    Attributes:
        hidden: Float [B, T, D].
        self_attentions: Each layer's weights, float [B, H, T, T], or with a cache [B, H, T, L]; none if fused.
        cross_attentions: Each layer's weights, float [B, H, T, S]; none if fused.
        layers: Each layer's keys and values of self attention after this, float [B, H, T or L, d].
    """

    hidden: Tensor
    self_attentions: list[Tensor]
    cross_attentions: list[Tensor]
    layers: list[KeysValues]


class Write(Protocol):
    """One way to put keys or values into a cache: `write`."""

    def __call__(self, cached: Tensor, new: Tensor, positions: Tensor) -> Tensor:
        """Return the cache, float [B, H, L, d], with float [B, H, T, d] at int64 [B, T] positions."""
        ...


def write(cached: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """Put float [B, H, T, d] at int64 [B, T] positions of float [B, H, L, d]; what was given stays as it is."""
    return cached.scatter(2, positions[:, None, :, None].expand_as(new), new)


class DecoderLayer(nn.Module):
    """Attention to what was written, attention to what was read, then an MLP, each added to what came in."""

    def __init__(self, config: DecoderConfig, rotary: Rotary | None) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.attention = MultiHeadAttention(config.embed_dim, config.num_heads, qkv_bias=config.qkv_bias, rotary=rotary)
        self.attention_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.cross_attention = MultiHeadAttention(config.embed_dim, config.num_heads, qkv_bias=config.qkv_bias)
        self.cross_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.mlp_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        source: KeysValues,
        source_mask: Tensor | None,
        cached: KeysValues | None,
        cached_mask: Tensor | None,
        positions: Tensor | None,
        attend: Attend,
        write: Write = write,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, KeysValues]:
        """Map float [B, T, D] to [B, T, D].

        Args:
            x: Float [B, T, D].
            source: This layer's keys and values of the source, float [B, H, S, d].
            source_mask: Bool [B, 1, 1, S], True at real positions.
            cached: Keys and values of the tokens before x, float [B, H, L, d]; None where x begins the sequence.
            cached_mask: Which of them, those of x included, it may attend to: bool [B, 1, T, L]; None without a cache.
            positions: Of x in a cached sequence, int64 [B, T]; None without a cache.
            attend: How attention is computed.
            write: How keys and values of x get into the cache.

        Returns:
            Float [B, T, D]; the weights of self and of cross attention, or None; the keys and values with those of x.
        """
        own = (cached, cached_mask, positions, attend, write)
        if self.pre_norm:
            attended, own_weights, written = self._attend_to_own(self.attention_norm(x), *own)
            x = x + self.dropout(attended)
            attended, source_weights = self.cross_attention.look_up(
                self.cross_norm(x), source, source_mask, attend=attend
            )
            x = x + self.dropout(attended)
            return x + self.dropout(self.mlp(self.mlp_norm(x))), own_weights, source_weights, written
        attended, own_weights, written = self._attend_to_own(x, *own)
        x = self.attention_norm(x + self.dropout(attended))
        attended, source_weights = self.cross_attention.look_up(x, source, source_mask, attend=attend)
        x = self.cross_norm(x + self.dropout(attended))
        return self.mlp_norm(x + self.dropout(self.mlp(x))), own_weights, source_weights, written

    def _attend_to_own(
        self,
        x: Tensor,
        cached: KeysValues | None,
        mask: Tensor | None,
        positions: Tensor | None,
        attend: Attend,
        write: Write,
    ) -> tuple[Tensor, Tensor | None, KeysValues]:
        """Attend to x itself and to what is cached, each position up to its own; return the keys and values too."""
        own = self.attention.keys_and_values(x, positions)  # [B, H, T, d]
        if cached is None or positions is None:
            attended, weights = self.attention.look_up(x, own, causal=True, attend=attend)
            return attended, weights, own
        written = KeysValues(write(cached.key, own.key, positions), write(cached.value, own.value, positions))
        attended, weights = self.attention.look_up(x, written, mask, positions=positions, attend=attend)
        return attended, weights, written


class Decoder(Stack):
    """A stack of decoder layers."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        rotary = make_rotary(config)
        layers = nn.ModuleList(DecoderLayer(config, rotary) for _ in range(config.num_layers))
        self.layers: Sequence[DecoderLayer] = layers  # type: ignore[assignment]

    def read_source(self, hidden: Tensor) -> list[KeysValues]:
        """Project the encoder's output, float [B, S, D], once for all steps: each layer's keys and values of it."""
        return [layer.cross_attention.keys_and_values(hidden) for layer in self.layers]

    def forward(
        self,
        x: Tensor,
        source: Sequence[KeysValues],
        source_mask: Tensor | None = None,
        cache: Cache | None = None,
        attend: Attend = fused_attention,
    ) -> Decoded:
        """Decode whole sequences, or with a cache the next T tokens of each row.

        Args:
            x: Float [B, T, D]. Padding stands at the right: no position attends to what follows it.
            source: What `read_source` gives.
            source_mask: Bool [B, S], True at real positions and False at padding; None where there is none.
            cache: Of the tokens before x; a row's length and T are together at most L.
            attend: How attention is computed.
        """
        mask = None if source_mask is None else source_mask[:, None, None, :]  # [B, 1, 1, S]
        positions, cached_mask = None, None
        if cache is not None:
            positions = following(cache.lengths, x.shape[1])  # [B, T]
            cached_mask = up_to(positions, cache.layers[0].key.shape[2])  # [B, 1, T, L]
        self_attentions, cross_attentions, layers = [], [], []
        for index, layer in enumerate(self.layers):
            cached = None if cache is None else cache.layers[index]
            x, own_weights, source_weights, written = layer(
                x, source[index], mask, cached, cached_mask, positions, attend
            )
            layers.append(written)
            if own_weights is not None:
                self_attentions.append(own_weights)
                cross_attentions.append(source_weights)
        return Decoded(self.final_norm(x), self_attentions, cross_attentions, layers)

    def empty_cache(self, batch: int, max_tokens: int) -> Cache:
        """Make a cache of length L = max_tokens that holds nothing."""
        heads = self.config.num_heads
        zeros = self.layers[0].attention.key.weight.new_zeros(
            batch, heads, max_tokens, self.config.embed_dim // heads
        )  # [B, H, L, d]
        lengths = torch.zeros(batch, dtype=torch.int64, device=zeros.device)
        return Cache([KeysValues(zeros, zeros)] * self.config.num_layers, lengths)


def following(lengths: Tensor, num_tokens: int) -> Tensor:
    """Positions of the next T tokens of each row, int64 [B, T], after int64 [B] tokens."""
    return lengths[:, None] + torch.arange(num_tokens, device=lengths.device)


def up_to(positions: Tensor, cache_length: int) -> Tensor:
    """Which keys of a cache a token at int64 [B, T] may attend to: those up to its own; bool [B, 1, T, L]."""
    keys = torch.arange(cache_length, device=positions.device)
    return (keys <= positions[..., None])[:, None]
