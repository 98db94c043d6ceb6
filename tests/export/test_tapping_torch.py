"""Attention as torch's older exporter wrote it, of its own modules and of others'."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.export.networks import Eager, write_onnx
from tests.export.tapping import compare_lowered, compare_tapped


@pytest.mark.parametrize("opset", [11, 14, 17])
@pytest.mark.parametrize("causal", [False, True])
def test_torchs_older_exporter_is_understood(causal: bool, opset: int) -> None:
    """Within 1e-6 of eager PyTorch for another batch and length than was traced; with value norms."""
    torch.manual_seed(0)
    network = Eager(causal)
    traced = {"x": torch.randn(2, 5, 16), "mask": torch.ones(2, 5, dtype=torch.int64)}
    model = write_onnx(network, traced, {name: {0: "batch", 1: "n"} for name in traced}, opset)
    x, mask = torch.randn(3, 7, 16), torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 2 + [0] * 5])
    taps, got = compare_tapped(model, {"x": x.numpy(), "mask": mask.numpy()})
    with torch.no_grad():
        _, weights = network.explain(x, mask)
    np.testing.assert_allclose(got["attention.0"], weights.numpy(), atol=1e-6)
    assert taps[0].value_norms
    assert compare_lowered(model, {"x": x.numpy(), "mask": mask.numpy()}) is None


@pytest.mark.parametrize("opset", [11, 14, 17])
@pytest.mark.parametrize("batch_first", [False, True])
def test_torchs_own_multi_head_attention_is_understood(batch_first: bool, opset: int) -> None:
    """Whose heads are folded into the batch where it returns its weights too."""
    torch.manual_seed(0)
    network = nn.MultiheadAttention(16, 4, batch_first=batch_first)
    axes = {0: "batch", 1: "n"} if batch_first else {0: "n", 1: "batch"}
    traced = {name: torch.randn(2, 5, 16) for name in ("query", "key", "value")}
    model = write_onnx(network, traced, dict.fromkeys(traced, axes), opset)
    feed = {name: torch.randn(3, 7, 16) for name in traced}
    _, got = compare_tapped(model, {name: array.numpy() for name, array in feed.items()})
    with torch.no_grad():
        _, weights = network.eval()(**feed, average_attn_weights=False)
    np.testing.assert_allclose(got["attention.0"], weights.numpy(), atol=1e-6)


class Layer(nn.Module):
    """Torch's encoder layer, by what it is asked for here."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, src: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return the new state [B, N, D]; hidden [B, N] is true where there is padding."""
        state: torch.Tensor = self.layer(src, src_key_padding_mask=hidden)
        return state


@pytest.mark.parametrize("opset", [14, 17])
def test_torchs_own_encoder_layer_is_understood(opset: int) -> None:
    """With a mask of padding, as torch's older exporter writes its fused attention out, for a length that is fixed."""
    torch.manual_seed(0)
    network = Layer()
    traced = {"src": torch.randn(2, 7, 16), "hidden": torch.zeros(2, 7, dtype=torch.bool)}
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model = write_onnx(network, traced, {name: {0: "batch"} for name in traced}, opset)
        x, hidden = torch.randn(3, 7, 16), torch.arange(7) >= torch.tensor([[7], [4], [1]])
        taps, got = compare_tapped(model, {"src": x.numpy(), "hidden": hidden.numpy()})
        with torch.no_grad():
            _, weights = network.layer.self_attn(x, x, x, key_padding_mask=hidden, average_attn_weights=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    np.testing.assert_allclose(got["attention.0"], weights.numpy(), atol=1e-6)
    assert len(taps) == 1
    assert taps[0].value_norms
