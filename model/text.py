"""A text network: token embeddings, an encoder, and the heads of BERT and of sentence embedders."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention import Attend, explained_attention, fused_attention
from model.encoder import Encoder, EncoderConfig


@dataclass(frozen=True)
class TextConfig:
    """Shape of a text network.

    Attributes:
        encoder: Its encoder; `encoder.positions` chooses the positional encoding.
        vocab_size: Number of token ids.
        num_segments: Rows of BERT's segment table; 0 for no table.
        token_types: Whether an input says of which segment each token is; otherwise all are of segment 0.
        embedding_norm: Whether embeddings are normalised before the encoder, as in BERT.
        bert_pooler: Whether there is BERT's pooler, tanh(W cls + b).
        pooling: How positions become one vector: mean over real tokens, or the class token's.
        normalize: Whether that vector is scaled to Euclidean length 1.
        num_classes: Classes of the classifier; 0 for none.
        classify_from: What the classifier reads: BERT's pooler, or the pooled vector before it is normalised.
    """

    encoder: EncoderConfig
    vocab_size: int
    num_segments: int = 0
    token_types: bool = False
    embedding_norm: bool = True
    bert_pooler: bool = False
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    num_classes: int = 0
    classify_from: Literal["pooler", "pooled"] = "pooled"


class TextNetwork(nn.Module):
    """Reads token ids, gives hidden states, a sentence vector and, with a classifier, logits."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.encoder.embed_dim
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.segments = nn.Embedding(config.num_segments, width) if config.num_segments else None
        self.embedding_norm = (
            nn.LayerNorm(width, eps=config.encoder.norm_eps) if config.embedding_norm else nn.Identity()
        )
        self.encoder = Encoder(config.encoder)
        self.pooler = nn.Linear(width, width) if config.bert_pooler else None
        self.classifier = nn.Linear(width, config.num_classes) if config.num_classes else None

    @property
    def input_names(self) -> tuple[str, ...]:
        """In the order in which it takes them."""
        return ("input_ids", "attention_mask", *(["token_type_ids"] if self.config.token_types else []))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Run with fused attention.

        Args:
            input_ids: int64 [B, N].
            attention_mask: int64 [B, N], 1 at real tokens, 0 at padding; at least one real token a row.
            token_type_ids: int64 [B, N], the segment of each token, where the network takes them.

        Returns:
            "last_hidden_state" float [B, N, D]; "embedding" float [B, D]; with BERT's pooler, "pooler_output"
            float [B, D]; with a classifier, "logits" float [B, C].
        """
        return self._run(input_ids, attention_mask, token_type_ids, fused_attention)[0]

    def explain(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Run with eager attention; return also each layer's weights, float [B, H, N, N]."""
        outputs, attentions, _ = self._run(input_ids, attention_mask, token_type_ids, explained_attention)
        return outputs, attentions

    def show_states(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Run with fused attention; return also the hidden states, each float [B, N, D].

        They are what enters the first layer, and what leaves each, before the last norm.
        """
        outputs, _, states = self._run(input_ids, attention_mask, token_type_ids, fused_attention)
        return outputs, states

    def _run(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None, attend: Attend
    ) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        x = self.tokens(input_ids)  # [B, N, D]
        if self.segments is not None:
            x = x + (self.segments.weight[0] if token_type_ids is None else self.segments(token_type_ids))
        x = self.embedding_norm(self.encoder.add_positions(x))
        hidden, attentions, states = self.encoder(x, attention_mask.bool(), attend)
        return self._heads(hidden, attention_mask), attentions, states

    def _heads(self, hidden: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        pooled = hidden[:, 0] if self.config.pooling == "cls" else mean_over_tokens(hidden, attention_mask)  # [B, D]
        embedding = functional.normalize(pooled, dim=-1) if self.config.normalize else pooled
        outputs = {"last_hidden_state": hidden, "embedding": embedding}
        if self.pooler is not None:
            outputs["pooler_output"] = torch.tanh(self.pooler(hidden[:, 0]))
        if self.classifier is not None:
            features = outputs["pooler_output"] if self.config.classify_from == "pooler" else pooled
            outputs["logits"] = self.classifier(features)
        return outputs


def mean_over_tokens(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Average float [B, N, D] over the positions where int64 [B, N] is 1; returns float [B, D]."""
    real = attention_mask[:, :, None].to(hidden.dtype)  # [B, N, 1]
    return (hidden * real).sum(dim=1) / real.sum(dim=1)
