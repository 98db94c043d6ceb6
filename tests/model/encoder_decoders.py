"""Small encoder-decoders with random weights, for the tests of model/."""

from typing import Any, Literal

import torch
from torch import Tensor

from model.decoder import DecoderConfig
from model.encoder import EncoderConfig, Positions
from model.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

WIDTH, HEADS, LAYERS, VOCAB = 32, 4, 2, 20
START, END, PAD = 1, 2, 0
SOURCE_LENGTHS, TARGET_LENGTHS = (7, 4, 2), (9, 3, 6)


def make_network(
    positions: Positions = "sinusoidal_interleaved", norm: Literal["pre", "post"] = "pre", **settings: Any
) -> EncoderDecoder:
    """An encoder-decoder whose attention is far from uniform."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "embed_dim": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "mlp_dim": 64, "norm": norm,
        "positions": positions, "max_positions": 16,
    }  # fmt: skip
    encoder, decoder = EncoderConfig(**shape), DecoderConfig(**shape)
    network = EncoderDecoder(EncoderDecoderConfig(encoder, decoder, VOCAB, **settings))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return network.eval().requires_grad_(False)


def make_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Source ids and mask, and target ids, of rows of different lengths, padded at the right."""
    torch.manual_seed(1)
    source, target = (torch.randint(3, VOCAB, (3, max(lengths))) for lengths in (SOURCE_LENGTHS, TARGET_LENGTHS))
    target[:, 0] = START
    mask = (torch.arange(max(SOURCE_LENGTHS)) < torch.tensor(SOURCE_LENGTHS)[:, None]).long()
    for row, length in enumerate(TARGET_LENGTHS):
        target[row, length:] = PAD
    return source * mask, mask, target
