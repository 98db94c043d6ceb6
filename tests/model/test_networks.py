import pytest
import torch
from torch.nn import functional

from model.encoder import EncoderConfig
from model.text import TextConfig, TextNetwork, mean_over_tokens
from model.vit import VisionTransformer, ViTConfig, interpolate_positions

ENCODER = EncoderConfig(16, 2, 4, 32)


def make_vit() -> VisionTransformer:
    """A small vision transformer for 12 x 12 images of 4 x 4 patches."""
    torch.manual_seed(0)
    return VisionTransformer(ViTConfig(ENCODER, image_size=12, patch_size=4, num_classes=3)).eval()


def test_patch_embedding_is_a_linear_map_of_flattened_patches() -> None:
    """The convolution equals unfold and a matrix."""
    network, pixels = make_vit(), torch.randn(2, 3, 12, 12)
    assert network.patches.bias is not None
    flat = functional.unfold(pixels, 4, stride=4).transpose(1, 2)  # [B, patches, 3 * 4 * 4]
    expected = flat @ network.patches.weight.flatten(1).T + network.patches.bias
    torch.testing.assert_close(network.patches(pixels).flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_a_vision_transformer_sees_the_class_token_and_every_patch() -> None:
    """Ten positions for nine patches; the embedding is the class token's last state."""
    outputs, attentions = make_vit().explain(torch.randn(2, 3, 12, 12))
    assert outputs["last_hidden_state"].shape == (2, 10, 16)
    assert [weights.shape for weights in attentions] == [(2, 4, 10, 10)] * 2
    assert torch.equal(outputs["embedding"], outputs["last_hidden_state"][:, 0])


def test_positions_of_the_same_grid_stay_as_they_are() -> None:
    """Not even rounded."""
    positions = torch.randn(1, 10, 16)
    assert interpolate_positions(positions, 3, 3) is positions


@pytest.mark.parametrize(("rows", "cols"), [(5, 5), (2, 7)])
def test_positions_are_fitted_to_another_grid_bicubically(rows: int, cols: int) -> None:
    """As torch interpolates an image of D channels; the class token's stays."""
    positions = torch.randn(1, 10, 16)
    fitted = interpolate_positions(positions, rows, cols)
    image = positions[0, 1:].T.reshape(1, 16, 3, 3)
    expected = functional.interpolate(image, size=(rows, cols), mode="bicubic")[0].flatten(1).T
    torch.testing.assert_close(fitted[0, 1:], expected)
    assert torch.equal(fitted[0, 0], positions[0, 0])


def test_a_vision_transformer_takes_other_image_sizes() -> None:
    """20 x 8 pixels are 5 x 2 patches."""
    assert make_vit()(torch.randn(1, 3, 20, 8))["last_hidden_state"].shape == (1, 11, 16)


def test_the_mean_over_tokens_leaves_padding_out() -> None:
    """(1 + 3) / 2, whatever stands in the padding."""
    hidden = torch.tensor([[[1.0], [3.0], [99.0]]])
    assert mean_over_tokens(hidden, torch.tensor([[1, 1, 0]])).item() == 2.0


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_text_network_pools_as_configured(pooling: str, normalize: bool) -> None:
    """Mean or class token, of length 1 or as it is; the classifier reads it before it is normalised."""
    torch.manual_seed(0)
    config = TextConfig(ENCODER, 20, pooling=pooling, normalize=normalize, num_classes=2)  # type: ignore[arg-type]
    network = TextNetwork(config).eval()
    ids, mask = torch.randint(20, (2, 6)), torch.tensor([[1] * 6, [1] * 3 + [0] * 3])
    outputs = network(ids, mask)
    hidden = outputs["last_hidden_state"]
    pooled = hidden[:, 0] if pooling == "cls" else torch.stack([hidden[0].mean(0), hidden[1, :3].mean(0)])
    expected = pooled / pooled.norm(dim=-1, keepdim=True) if normalize else pooled
    torch.testing.assert_close(outputs["embedding"], expected)
    assert network.classifier is not None
    torch.testing.assert_close(outputs["logits"], network.classifier(pooled))
