"""Norms against their definitions, computed from the networks' own layers in float64, every vector computed."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph import to_onnx
from export.tapping.contributions import tap_contributions
from export.tapping.tap import FUSED_RULES, RULES, tap
from export.traits import InputSpec, Traits, own_traits
from model.attention import MultiHeadAttention
from model.checkpoint import Network
from model.encoder import EncoderConfig, EncoderLayer
from model.text import TextConfig, TextNetwork
from model.vit import VisionTransformer, ViTConfig
from tests.export.networks import write_onnx
from tests.export.tapping import run


def text_network() -> TextNetwork:
    """BERT's order: norms behind the sums."""
    torch.manual_seed(0)
    encoder = EncoderConfig(24, 2, 4, 32, positions="learned", max_positions=32)
    return TextNetwork(TextConfig(encoder, vocab_size=60)).eval()


def image_network() -> VisionTransformer:
    """DINOv2's order: norms before the layers, and layer scales."""
    torch.manual_seed(0)
    config = EncoderConfig(24, 2, 4, 32, positions="none", norm="pre", layer_scale=True)
    network = VisionTransformer(ViTConfig(config, image_size=12, patch_size=4)).eval()
    for layer in network.encoder.layers:
        assert isinstance(layer, EncoderLayer)
        layer.attention_scale.factors.data.uniform_(0.5, 2)  # type: ignore[operator]
    return network


def vectors_of(layer: EncoderLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Each head's f_h(x_j), float64 [B, H, N, D], and the weights [B, H, Q, K]."""
    attention = layer.attention
    assert isinstance(attention, MultiHeadAttention)
    inner = layer.attention_norm(x) if layer.pre_norm else x
    _, weights = explained(attention, inner)
    values = attention._split(attention.value(inner))  # [B, H, N, d]
    by_head = attention.out.weight.T.reshape(attention.num_heads, -1, x.shape[-1])  # [H, d, D]
    vectors = torch.einsum("bhnd,hde->bhne", values, by_head)
    return layer.attention_scale(vectors), weights


def explained(attention: MultiHeadAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Eager attention, of a batch without padding."""
    from model.attention import explained_attention

    attended, weights = attention(x, attend=explained_attention)
    assert weights is not None
    return attended, weights


def expected(network: Network, inputs: list[Tensor]) -> list[NDArray[np.float64]]:
    """||sum_h alpha f_h(x_j) + [i = j] x_i|| of every layer, [B, Q, K]."""
    seen, double = list[Tensor](), network.double()
    hooks = [
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for layer in double.encoder.layers
    ]
    with torch.no_grad():
        double(*inputs)
        for hook in hooks:
            hook.remove()
        found = []
        for layer, x in zip(double.encoder.layers, seen, strict=True):
            assert isinstance(layer, EncoderLayer)
            vectors, weights = vectors_of(layer, x)
            summed = torch.einsum("bhqk,bhke->bqke", weights, vectors)
            summed = summed + torch.eye(x.shape[1], dtype=torch.float64)[None, :, :, None] * x[:, :, None]
            found.append(summed.norm(dim=-1).numpy())
    return found


@pytest.mark.parametrize("make", [text_network, image_network])
def test_contributions_are_the_lengths_of_what_is_added(make: type[nn.Module], tmp_path: Path) -> None:
    """The heads summed, the residual included, without a vector for each pair; within 1e-5."""
    network = make()
    assert isinstance(network, TextNetwork | VisionTransformer)
    traits = own_traits(network, None)
    graph, outputs = tap_contributions(to_onnx(network, traits), tmp_path, FUSED_RULES, range(2))
    assert outputs == {0: "contributions.0", 1: "contributions.1"}
    onnx.save_model(graph, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    feed = traits.example(3, {"seq_len": 9})
    got = session.run(list(outputs.values()), feed)
    tensors = [torch.from_numpy(array) for array in feed.values()]
    wanted = expected(network, [one.double() if one.is_floating_point() else one for one in tensors])
    for one, reference in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, reference, rtol=1e-5, atol=1e-5)


def test_contributions_add_no_weights(tmp_path: Path) -> None:
    """Besides masks of heads and numbers: the projections are the graph's own."""
    network = text_network()
    plain = to_onnx(network, own_traits(network, None))
    graph, _ = tap_contributions(plain, tmp_path, FUSED_RULES, range(2))
    known = {tensor.name for tensor in plain.graph.initializer}
    added = [tensor for tensor in graph.graph.initializer if tensor.name not in known]
    assert added
    assert max(len(tensor.raw_data) for tensor in added) <= 4 * 4 * 4  # [H, H, 1] in float32


def test_a_layer_that_is_not_asked_for_has_none(tmp_path: Path) -> None:
    """Cross-attention has no residual at its keys; build leaves such layers out."""
    network = text_network()
    plain = to_onnx(network, own_traits(network, None))
    assert tap_contributions(plain, tmp_path, FUSED_RULES, [1])[1] == {1: "contributions.1"}


@pytest.mark.parametrize("make", [text_network, image_network])
def test_value_norms_are_each_heads_vectors_lengths(make: type[nn.Module], tmp_path: Path) -> None:
    """||f_h(x_j)|| before a layer scale, of the first layer, whose input is known; within 1e-5."""
    network = make()
    assert isinstance(network, TextNetwork | VisionTransformer)
    traits = own_traits(network, None)
    graph, taps = tap(to_onnx(network, traits), tmp_path, FUSED_RULES)
    onnx.save_model(graph, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    feed = traits.example(2, {"seq_len": 7})
    (got,) = session.run([taps[0].value_norms], feed)
    layer, seen = network.double().encoder.layers[0], list[Tensor]()
    assert isinstance(layer, EncoderLayer)
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    layer.attention_scale = nn.Identity()
    tensors = [torch.from_numpy(array) for array in feed.values()]
    with torch.no_grad():
        network(*(one.double() if one.is_floating_point() else one for one in tensors))
        vectors, _ = vectors_of(layer, seen[0])
    np.testing.assert_allclose(got, vectors.norm(dim=-1).numpy(), rtol=1e-5, atol=1e-5)


def test_an_mlp_beside_attention_is_not_taken_for_the_residual(tmp_path: Path) -> None:
    """The sum of MLP, attention and x, as GPT-J and GPT-NeoX write it; within 1e-5."""
    torch.manual_seed(0)

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.attention = nn.LayerNorm(24), MultiHeadAttention(24, 4)
            self.mlp = nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 24))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            inner = self.norm(x)
            return {"last_hidden_state": self.mlp(inner) + self.attention(inner)[0] + x}

    network = Parallel().eval()
    traits = Traits((InputSpec("x", ("batch", 7, 24)),))
    graph, outputs = tap_contributions(to_onnx(network, traits), tmp_path, FUSED_RULES, [0])
    onnx.save_model(graph, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    feed = traits.example(2, {})
    (got,) = session.run([outputs[0]], feed)
    x, attention = torch.from_numpy(feed["x"]).double(), network.double().attention
    with torch.no_grad():
        inner = network.norm(x)
        _, weights = explained(attention, inner)
        by_head = attention.out.weight.T.reshape(4, 6, 24)
        vectors = torch.einsum("bhnd,hde->bhne", attention._split(attention.value(inner)), by_head)
        summed = torch.einsum("bhqk,bhke->bqke", weights, vectors)
        summed = summed + torch.eye(7, dtype=torch.float64)[None, :, :, None] * x[:, :, None]
    np.testing.assert_allclose(got, summed.norm(dim=-1).numpy(), rtol=1e-5, atol=1e-5)


class LengthFirst(nn.Module):
    """Torch's own attention on [N, B, D], as CLIP was written; what attention adds may be scaled."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(24), nn.MultiheadAttention(24, 4)
        self.scale = nn.Buffer(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Turn [B, N, D] round and back."""
        x = x.transpose(0, 1)
        inner = self.norm(x)
        x = x + self.attention(inner, inner, inner, need_weights=False)[0] * self.scale
        turned: Tensor = (x + self.norm(x)).transpose(0, 1)
        return turned

    def expected(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """In float64, every vector computed."""
        inner, attention = self.double().norm(state := torch.from_numpy(x).double()), self.attention
        whole = inner @ attention.in_proj_weight.T + attention.in_proj_bias
        query, key, value = (part.reshape(*x.shape[:2], 4, 6).transpose(1, 2) for part in whole.chunk(3, -1))
        weights = (query @ key.transpose(-1, -2) / 6**0.5).softmax(-1)
        vectors = torch.einsum("bhnd,hde->bhne", value, attention.out_proj.weight.T.reshape(4, 6, 24)) * self.scale
        summed = torch.einsum("bhqk,bhke->bqke", weights, vectors)
        summed = summed + torch.eye(x.shape[1], dtype=torch.float64)[None, :, :, None] * state[:, :, None]
        return np.asarray(summed.norm(dim=-1).detach().numpy())


@pytest.mark.parametrize("rows", [2, 7])
@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.linspace(0.5, 2, 24)])
def test_a_residual_whose_positions_come_before_its_rows_is_turned(scale: Tensor, rows: int) -> None:
    """As many rows as positions would hide it; of files by torch's older exporter, which names no sizes."""
    torch.manual_seed(0)
    network, x = LengthFirst(scale).eval(), np.random.default_rng(0).standard_normal((rows, 7, 24)).astype(np.float32)
    plain = write_onnx(network, {"x": torch.zeros(2, 7, 24)}, {"x": {0: "batch"}, "y": {0: "batch"}}, 17, ["y"])
    graph, outputs = tap_contributions(plain, Path(), RULES, [0])
    got = run(graph, {"x": x})[outputs[0]]
    np.testing.assert_allclose(got, network.expected(x), rtol=1e-5, atol=1e-5)


def test_what_scales_positions_is_not_taken_for_a_layer_scale() -> None:
    """It would be multiplied with heads."""
    network = LengthFirst(torch.linspace(0.5, 2, 7)[:, None, None]).eval()
    plain = write_onnx(network, {"x": torch.zeros(2, 7, 24)}, {"x": {0: "batch"}, "y": {0: "batch"}}, 17, ["y"])
    assert tap_contributions(plain, Path(), RULES, [0])[1] == {}
