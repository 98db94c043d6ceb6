"""The bias that tells T5's decoder how far each key is (Raffel et al. 2020, section 2.1), for one token of each row."""

from typing import Any

import torch
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """What an attention's own code says of distances, as a table: rows of a step are at different positions."""

    def __init__(self, attention: Any, max_positions: int) -> None:
        """Read it off a causal attention of T5, MT5 or UMT5.

        Args:
            attention: Has compute_bias.
            max_positions: The most tokens that the decoder reads.
        """
        super().__init__()
        with torch.no_grad():
            of_last = attention.compute_bias(1, max_positions, past_seen_tokens=max_positions - 1)  # [1, H, 1, N]
        by_distance = of_last[0, :, 0].T.flip(0).contiguous()  # [N, H]
        self.by_distance = nn.Embedding.from_pretrained(by_distance)

    def forward(self, lengths: Tensor, num_keys: int) -> Tensor:
        """Return float [B, H, 1, K] of tokens behind int64 [B] others; keys behind the token count as the token."""
        distances = lengths[:, None] - torch.arange(num_keys)  # [B, K]
        biases: Tensor = self.by_distance(distances.clamp(0, self.by_distance.num_embeddings - 1))  # [B, K, H]
        return biases.permute(0, 2, 1)[:, :, None]
