"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017): an encoder that reads, a decoder that writes.

Axes: B batch, S source tokens, T target tokens, D embedding, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention import Attend, KeysValues, explained_attention, fused_attention
from model.decoder import Cache, Decoded, Decoder, DecoderConfig, following
from model.encoder import Encoder, EncoderConfig


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """Shape of an encoder-decoder, and the tokens that begin and end what it writes.

    Attributes:
        encoder: Its encoder.
        decoder: Its decoder, of the encoder's embed_dim.
        vocab_size: Number of target token ids, V.
        source_vocab_size: Number of source token ids; None where both sides share one vocabulary and its embeddings.
        tie_output: Whether the output layer's weights are the target's embeddings (section 3.4).
        scale_embeddings: Whether embeddings are multiplied by sqrt(D) (section 3.4).
        output_bias: Whether the output layer adds a bias.
        start_token: What the decoder reads first.
        end_token: What it writes last.
        pad_token: What stands behind the end of shorter sequences.

    Raises:
        ValueError: The decoder is of another width, or a token is not in the vocabulary.
    """

    encoder: EncoderConfig
    decoder: DecoderConfig
    vocab_size: int
    source_vocab_size: int | None = None
    tie_output: bool = True
    scale_embeddings: bool = True
    output_bias: bool = False
    start_token: int = 1
    end_token: int = 2
    pad_token: int = 0

    def __post_init__(self) -> None:
        if self.decoder.embed_dim != self.encoder.embed_dim:
            raise ValueError(
                f"decoder.embed_dim: {self.decoder.embed_dim}; expected the encoder's, {self.encoder.embed_dim}"
            )
        for name in ("start_token", "end_token", "pad_token"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(f"{name}: {getattr(self, name)}; expected one of the {self.vocab_size} target ids")


class EncoderDecoder(nn.Module):
    """Reads source tokens and tells, for each target token so far, how likely each token is to follow it."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        width = config.encoder.embed_dim
        self.config = config
        self.scale = math.sqrt(width) if config.scale_embeddings else 1.0
        self.source_tokens = nn.Embedding(config.source_vocab_size, width) if config.source_vocab_size else None
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config.decoder)
        self.output = None if config.tie_output else nn.Linear(width, config.vocab_size, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.output_bias else None
        for embeddings in (self.tokens, self.source_tokens):
            if embeddings is not None:
                nn.init.normal_(embeddings.weight, std=width**-0.5)
        self.encoder_dropout = nn.Dropout(config.encoder.dropout)
        self.decoder_dropout = nn.Dropout(config.decoder.dropout)

    def forward(self, source_ids: Tensor, source_mask: Tensor, target_ids: Tensor) -> Tensor:
        """Run both halves on whole sequences with fused attention.

        Args:
            source_ids: int64 [B, S].
            source_mask: int64 [B, S], 1 at real tokens, 0 at padding; at least one real token a row.
            target_ids: int64 [B, T], the start token and what follows it; padding at the right.

        Returns:
            Logits of the token after each, float [B, T, V].
        """
        hidden, _ = self.encode(source_ids, source_mask)
        return self.logits(self.decode(target_ids, self.decoder.read_source(hidden), source_mask).hidden)

    def explain(
        self, source_ids: Tensor, source_mask: Tensor, target_ids: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Run with eager attention.

        Returns:
            Logits, float [B, T, V], and each layer's weights: the encoder's, float [B, H, S, S], the decoder's,
            float [B, H, T, T], and those of its cross attention, float [B, H, T, S].
        """
        hidden, attentions = self.encode(source_ids, source_mask, explained_attention)
        source = self.decoder.read_source(hidden)
        decoded = self.decode(target_ids, source, source_mask, attend=explained_attention)
        return self.logits(decoded.hidden), attentions, decoded.self_attentions, decoded.cross_attentions

    def encode(
        self, source_ids: Tensor, source_mask: Tensor, attend: Attend = fused_attention
    ) -> tuple[Tensor, list[Tensor]]:
        """Read the source: float [B, S, D], and each layer's weights, float [B, H, S, S], none for fused attention."""
        hidden, attentions, _ = self.encoder(self.embed_source(source_ids), source_mask.bool(), attend)
        return hidden, attentions

    def embed_source(self, source_ids: Tensor) -> Tensor:
        """Make what the encoder takes, float [B, S, D], of int64 [B, S]."""
        embeddings = self.tokens if self.source_tokens is None else self.source_tokens
        embedded: Tensor = self.encoder_dropout(self.encoder.add_positions(embeddings(source_ids) * self.scale))
        return embedded

    def decode(
        self,
        target_ids: Tensor,
        source: Sequence[KeysValues],
        source_mask: Tensor,
        cache: Cache | None = None,
        attend: Attend = fused_attention,
    ) -> Decoded:
        """Write whole sequences, or with a cache the next T tokens of each row, int64 [B, T]."""
        positions = None if cache is None else following(cache.lengths, target_ids.shape[1])
        x = self.embed_target(target_ids, positions)
        decoded: Decoded = self.decoder(x, source, source_mask.bool(), cache, attend)
        return decoded

    def embed_target(self, target_ids: Tensor, positions: Tensor | None) -> Tensor:
        """Make what the decoder takes, float [B, T, D], of int64 [B, T] at such positions, or at 0 .. T-1."""
        embedded: Tensor = self.decoder_dropout(
            self.decoder.add_positions(self.tokens(target_ids) * self.scale, positions)
        )
        return embedded

    def step(
        self,
        target_ids: Tensor,
        source: Sequence[KeysValues],
        source_mask: Tensor,
        cache: Cache,
        attend: Attend = fused_attention,
    ) -> tuple[Tensor, Cache, Decoded]:
        """Write the next T tokens of each row: a pure function, whose results equal those of the whole sequence.

        Args:
            target_ids: int64 [B, T].
            source: What `decoder.read_source` gives.
            source_mask: int64 [B, S], 1 at real tokens, 0 at padding.
            cache: Of the tokens before; `decoder.empty_cache` before the first.
            attend: How attention is computed.

        Returns:
            Logits, float [B, T, V]; the cache for the step after; and all that the decoder gives.
        """
        decoded = self.decode(target_ids, source, source_mask, cache, attend)
        return self.logits(decoded.hidden), Cache(decoded.layers, cache.lengths + target_ids.shape[1]), decoded

    def logits(self, hidden: Tensor) -> Tensor:
        """How likely each token is to follow, float [B, T, D] to [B, T, V], before the softmax."""
        weight = self.tokens.weight if self.output is None else self.output.weight  # [V, D]
        return functional.linear(hidden, weight, self.output_bias)
