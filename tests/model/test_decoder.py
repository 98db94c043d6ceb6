from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from model.attention import MultiHeadAttention, explained_attention, fused_attention
from model.decoder import Decoder, DecoderConfig, DecoderLayer
from model.encoder import Activation, Encoder, EncoderConfig, Positions

WIDTH, HEADS, BATCH, SOURCE, TARGET = 32, 4, 3, 7, 5
DECODER_POSITIONS = [positions for positions in get_args(Positions) if positions != "alibi"]


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    """Take over torch's attention, whose three projections are one matrix."""
    weights, biases = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    for layer, weight, bias in zip((ours.query, ours.key, ours.value), weights, biases, strict=True):
        layer.load_state_dict({"weight": weight, "bias": bias})
    ours.out.load_state_dict(theirs.out_proj.state_dict())


def copy_layer(ours: Any, theirs: Any) -> None:
    """Take over a torch layer."""
    copy_attention(ours.attention, theirs.self_attn)
    norms = [ours.attention_norm, ours.mlp_norm]
    if isinstance(ours, DecoderLayer):
        copy_attention(ours.cross_attention, theirs.multihead_attn)
        norms.insert(1, ours.cross_norm)
    for index, norm in enumerate(norms, 1):
        norm.load_state_dict(getattr(theirs, f"norm{index}").state_dict())
    ours.mlp.up.load_state_dict(theirs.linear1.state_dict())
    ours.mlp.down.load_state_dict(theirs.linear2.state_dict())


def spread(layer: nn.Module) -> None:
    """Make weights so large that attention is far from uniform, and no bias or factor of a norm the same as another."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.4)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Target states, source states, and which of the latter are real: all, four, two."""
    torch.manual_seed(1)
    real = torch.arange(SOURCE) < torch.tensor([SOURCE, 4, 2])[:, None]
    return torch.randn(BATCH, TARGET, WIDTH), torch.randn(BATCH, SOURCE, WIDTH), real


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_encoder_layers_equal_torchs(norm: Literal["pre", "post"], activation: Activation) -> None:
    """With copied weights, at real positions, within 1e-5."""
    theirs: Any = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 64, 0.0, activation, batch_first=True, norm_first=norm == "pre", layer_norm_eps=1e-5
    ).eval()
    spread(theirs)
    config = EncoderConfig(WIDTH, 1, HEADS, 64, norm=norm, activation=activation, norm_eps=1e-5)
    encoder = Encoder(config).eval()
    copy_layer(encoder.layers[0], theirs)
    _, x, real = inputs()
    expected = theirs(x, src_key_padding_mask=~real)
    _, _, states = encoder(x, real, fused_attention)
    torch.testing.assert_close(states[-1][real], expected[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("attend", [fused_attention, explained_attention])
def test_decoders_equal_torchs(norm: Literal["pre", "post"], activation: Activation, attend: Any) -> None:
    """Two layers with copied weights, causal, with padding in the source, within 1e-5."""
    theirs: Any = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(
            WIDTH, HEADS, 64, 0.0, activation, batch_first=True, norm_first=norm == "pre", layer_norm_eps=1e-5
        ),
        num_layers=2,
        norm=nn.LayerNorm(WIDTH, eps=1e-5) if norm == "pre" else None,
    ).eval()
    spread(theirs)
    decoder = Decoder(DecoderConfig(WIDTH, 2, HEADS, 64, norm=norm, activation=activation, norm_eps=1e-5)).eval()
    for ours, their_layer in zip(decoder.layers, theirs.layers, strict=True):
        copy_layer(ours, their_layer)
    if norm == "pre":
        decoder.final_norm.load_state_dict(theirs.norm.state_dict())
    x, source, real = inputs()
    causal = nn.Transformer.generate_square_subsequent_mask(TARGET)
    expected = theirs(x, source, tgt_mask=causal, memory_key_padding_mask=~real, tgt_is_causal=True)
    got = decoder(x, decoder.read_source(source), real, attend=attend)
    torch.testing.assert_close(got.hidden, expected, atol=1e-5, rtol=0)


def make_decoder(positions: Positions, norm: Literal["pre", "post"]) -> Decoder:
    """A decoder of two layers with spread weights."""
    decoder = Decoder(DecoderConfig(WIDTH, 2, HEADS, 64, norm=norm, positions=positions, max_positions=12)).eval()
    spread(decoder)
    return decoder.requires_grad_(False)


def test_attention_is_given_back_and_looks_neither_ahead_nor_at_padding() -> None:
    """Rows sum to 1; self attention is 0 above the diagonal, cross attention 0 where the source is padding."""
    decoder = make_decoder("none", "pre")
    x, source, real = inputs()
    decoded = decoder(x, decoder.read_source(source), real, attend=explained_attention)
    assert [w.shape for w in decoded.self_attentions] == [(BATCH, HEADS, TARGET, TARGET)] * 2
    assert [w.shape for w in decoded.cross_attentions] == [(BATCH, HEADS, TARGET, SOURCE)] * 2
    for weights in decoded.self_attentions:
        assert float(weights.triu(1).abs().max()) == 0
    for weights in decoded.cross_attentions:
        assert float((weights * ~real[:, None, None, :]).abs().max()) == 0
    for weights in decoded.self_attentions + decoded.cross_attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, HEADS, TARGET), atol=1e-6, rtol=0)
    fused = decoder(x, decoder.read_source(source), real)
    assert fused.self_attentions == fused.cross_attentions == []


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", DECODER_POSITIONS)
def test_padding_of_a_target_changes_nothing_before_it(positions: Positions, norm: Literal["pre", "post"]) -> None:
    """Three positions of five equal the three alone."""
    decoder = make_decoder(positions, norm)
    x, hidden, real = inputs()
    source = decoder.read_source(hidden)
    whole = decoder(decoder.add_positions(x), source, real).hidden
    part = decoder(decoder.add_positions(x[:, :3]), source, real).hidden
    torch.testing.assert_close(whole[:, :3], part, atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", DECODER_POSITIONS)
def test_order_of_the_target_matters_with_an_encoding_and_only_then(positions: Positions) -> None:
    """For the last position, which attends to all: the others exchanged change it with any encoding, not without."""
    torch.manual_seed(0)
    config = DecoderConfig(WIDTH, 1, HEADS, 64, positions=positions, max_positions=12)
    decoder = Decoder(config).eval().requires_grad_(False)
    spread(decoder)
    x, hidden, real = inputs()
    source = decoder.read_source(hidden)
    last = [
        decoder(decoder.add_positions(x[:, order]), source, real).hidden[:, -1]
        for order in (torch.arange(TARGET), torch.tensor([2, 0, 3, 1, 4]))
    ]
    assert (float((last[0] - last[1]).abs().max()) < 1e-4) == (positions == "none")


def test_what_a_decoder_cannot_do_is_refused() -> None:
    """By field, value and what was expected."""
    with pytest.raises(ValueError, match="positions: 'alibi'; expected another encoding for a decoder"):
        DecoderConfig(WIDTH, 1, HEADS, 64, positions="alibi")
    with pytest.raises(ValueError, match="layer_scale: True; expected False for a decoder"):
        DecoderConfig(WIDTH, 1, HEADS, 64, layer_scale=True)
