"""Where encoder-decoders of the transformers library keep what writing takes: BART's kin, and T5's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from export.relative_bias import RelativeBias

RELATIVE_POSITIONS = 512  # tokens that are read and written where positions have no end of their own


@dataclass(frozen=True, eq=False)
class Parts:
    """What a network has.

    Attributes:
        num_heads: Of each layer of the decoder.
        head_dim: Numbers of a key.
        scale: What q k is multiplied by.
        max_positions: The most tokens that each half reads; 0 where the configuration does not say so of both.
        cross: What makes keys and values of the encoder's output, of each layer.
        biases: Of self attention: one for all layers, or one for each; none where positions are added.
        output_scale: What the decoder's output is multiplied by before it is compared with words.
    """

    num_heads: int
    head_dim: int
    scale: float
    max_positions: int
    cross: Sequence[tuple[nn.Module, nn.Module]]
    biases: tuple[RelativeBias, ...] = ()
    output_scale: float = 1.0


def find_parts(network: Any) -> Parts:
    """Find them, by the names that the family gives them."""
    config, decoder = network.config, network.get_decoder()
    if hasattr(decoder, "block"):
        return _find_relative(config, decoder)
    head_dim = config.d_model // config.decoder_attention_heads
    cross = [(layer.encoder_attn.k_proj, layer.encoder_attn.v_proj) for layer in decoder.layers]
    positions = getattr(config, "max_position_embeddings", 0)
    return Parts(config.decoder_attention_heads, head_dim, head_dim**-0.5, positions, cross)


def _find_relative(config: Any, decoder: Any) -> Parts:
    """T5's names: of its layers the first alone tells distances, of UMT5's each."""
    own = [block.layer[0].SelfAttention for block in decoder.block]
    cross = [block.layer[1].EncDecAttention for block in decoder.block]
    return Parts(
        num_heads=config.num_heads,
        head_dim=config.d_kv,
        scale=own[0].scaling,
        max_positions=RELATIVE_POSITIONS,
        cross=[(attention.k, attention.v) for attention in cross],
        biases=tuple(RelativeBias(one, RELATIVE_POSITIONS) for one in own if one.has_relative_attention_bias),
        output_scale=config.d_model**-0.5 if _scales_output(config) else 1.0,
    )


def _scales_output(config: Any) -> bool:
    """Whether it does as the first T5, whose embeddings are its output layer, too; MT5 never does."""
    told = {"t5": "scale_decoder_outputs", "umt5": "tie_word_embeddings"}.get(config.model_type)
    return bool(told and getattr(config, told))
