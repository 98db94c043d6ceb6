from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.attention import explained_attention, fused_attention
from model.encoder import Encoder, EncoderConfig, LayerScale, Positions

WIDTH, HEADS = 16, 4


def make_encoder(
    positions: Positions = "none",
    norm: Literal["pre", "post"] = "pre",
    *,
    layers: int = 2,
    activation: Literal["gelu", "relu"] = "gelu",
    layer_scale: bool = False,
) -> Encoder:
    """An encoder with random weights, large enough that attention is far from uniform."""
    torch.manual_seed(0)
    config = EncoderConfig(
        WIDTH, layers, HEADS, 32, norm=norm, activation=activation, positions=positions, max_positions=12,
        layer_scale=layer_scale,
    )  # fmt: skip
    encoder = Encoder(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    return encoder


def encode(encoder: Encoder, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Add positions and encode with fused attention."""
    hidden: Tensor
    hidden, attentions, _ = encoder(encoder.add_positions(x), mask, fused_attention)
    assert attentions == []
    return hidden


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_pre_norm_layer_is_what_the_formula_says(activation: Literal["gelu", "relu"]) -> None:
    """X + Attention(Norm(x)), then + MLP(Norm(.)), and a norm at the end."""
    encoder = make_encoder(layers=1, activation=activation)
    layer: Any = encoder.layers[0]
    x = torch.randn(2, 5, WIDTH)
    attended = x + layer.attention(layer.attention_norm(x))[0]
    act = getattr(functional, activation)
    mlp = act(layer.mlp_norm(attended) @ layer.mlp.up.weight.T + layer.mlp.up.bias)
    expected = encoder.final_norm(attended + mlp @ layer.mlp.down.weight.T + layer.mlp.down.bias)
    torch.testing.assert_close(encode(encoder, x), expected, atol=1e-5, rtol=1e-5)


def test_a_post_norm_layer_is_what_the_formula_says() -> None:
    """Norm(x + Attention(x)), then Norm(. + MLP(.)), and nothing after."""
    encoder = make_encoder(norm="post", layers=1)
    layer: Any = encoder.layers[0]
    x = torch.randn(2, 5, WIDTH)
    attended = layer.attention_norm(x + layer.attention(x)[0])
    torch.testing.assert_close(encode(encoder, x), layer.mlp_norm(attended + layer.mlp(attended)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", get_args(Positions))
def test_padding_changes_nothing_for_real_positions(positions: Positions, norm: Literal["pre", "post"]) -> None:
    """With any encoding: five real positions of nine equal the five alone, and attention to padding is 0."""
    encoder = make_encoder(positions, norm)
    x = torch.randn(1, 9, WIDTH)
    mask = torch.arange(9)[None] < 5
    torch.testing.assert_close(encode(encoder, x, mask)[:, :5], encode(encoder, x[:, :5]), atol=1e-5, rtol=0)
    _, attentions, _ = encoder(encoder.add_positions(x), mask, explained_attention)
    assert len(attentions) == 2
    for weights in attentions:
        assert weights.shape == (1, HEADS, 9, 9)
        assert float(weights[..., 5:].abs().max()) == 0


@pytest.mark.parametrize("positions", get_args(Positions))
def test_fused_and_explained_encoders_give_the_same(positions: Positions) -> None:
    """Within 1e-5, padded."""
    encoder, x = make_encoder(positions), torch.randn(2, 7, WIDTH)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    hidden, _, _ = encoder(encoder.add_positions(x), mask, explained_attention)
    torch.testing.assert_close(hidden[mask], encode(encoder, x, mask)[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", get_args(Positions))
def test_order_matters_with_an_encoding_and_only_then(positions: Positions) -> None:
    """Without one, exchanged inputs are exchanged outputs."""
    encoder, x = make_encoder(positions), torch.randn(1, 6, WIDTH)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    difference = float((encode(encoder, x[:, order]) - encode(encoder, x)[:, order]).abs().max())
    assert (difference < 1e-4) == (positions == "none")


def test_layer_scale_multiplies_each_branch() -> None:
    """With factors of 0 the layers do nothing; of 1, they are layers without it."""
    encoder, x = make_encoder(layer_scale=True), torch.randn(1, 5, WIDTH)
    scales = [module for module in encoder.modules() if isinstance(module, LayerScale)]
    assert len(scales) == 4
    with torch.no_grad():
        for scale in scales:
            scale.factors.zero_()
    torch.testing.assert_close(encode(encoder, x), encoder.final_norm(x))
    with torch.no_grad():
        for scale in scales:
            scale.factors.fill_(1)
    plain = make_encoder()
    plain.load_state_dict({name: t for name, t in encoder.state_dict().items() if "scale" not in name})
    torch.testing.assert_close(encode(encoder, x), encode(plain, x))
