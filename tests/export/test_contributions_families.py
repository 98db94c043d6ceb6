"""Contributions and value norms of the library's networks, from PyTorch's hidden states and modules in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from artifact.dtypes import Array
from export.graph import to_onnx
from export.sources import load_folder
from export.tapping.contributions import tap_contributions
from export.tapping.tap import RULES, tap
from export.transformers_folder import TransformersNetwork
from tests.export.families import FAMILIES, write_folder
from tests.export.tapping import run

# Endings of the names of each layer's value projection, of its output projection, and of what scales that.
MODULES = {
    "electra": (".self.value", ".attention.output.dense", ""),
    "roberta": (".self.value", ".attention.output.dense", ""),
    "llama": (".self_attn.v_proj", ".self_attn.o_proj", ""),
    "qwen3": (".self_attn.v_proj", ".self_attn.o_proj", ""),
    "opt": (".self_attn.v_proj", ".self_attn.out_proj", ""),
    "dinov2_with_registers": (".attention.v_proj", ".attention.o_proj", ".layer_scale1"),
    "deit": (".attention.v_proj", ".attention.o_proj", ""),
    "siglip_vision_model": (".self_attn.v_proj", ".self_attn.out_proj", ""),
    "t5, encoder": (".SelfAttention.v", ".SelfAttention.o", ""),
}


class Heard:
    """What modules gave, in the order of the layers."""

    def __init__(self, network: nn.Module, ending: str) -> None:
        self.modules = [module for name, module in network.named_modules() if name.endswith(ending)] if ending else []
        self.outputs: list[Tensor] = []
        for module in self.modules:
            module.register_forward_hook(lambda module, taken, made: self.outputs.append(made))


def vectors(values: Tensor, projection: nn.Linear, weights: Tensor) -> Tensor:
    """Each head's f_h(x_j), float64 [B, H, K, D]; key heads are repeated for the heads of queries."""
    heads, width = weights.shape[1], projection.in_features // weights.shape[1]
    by_head = values.unflatten(-1, (-1, width)).transpose(1, 2)  # [B, heads of keys, K, d]
    by_head = by_head.repeat_interleave(heads // by_head.shape[1], dim=1)
    return torch.einsum("bhkd,ehd->bhke", by_head, projection.weight.unflatten(1, (heads, width)))


@pytest.mark.parametrize("family", MODULES)
def test_norms_and_contributions_are_those_of_pytorchs_hidden_states(family: str, tmp_path: Path) -> None:
    """Every vector computed: ||f_h(x_j)||, and ||sum_h alpha f_h(x_j) + [i = j] x_i||; within 1e-4 of the largest."""
    _, _, part = family.partition(", ")
    source = load_folder(write_folder(FAMILIES[family], tmp_path / "folder"), part=part or None)
    network, traits = source.network, source.traits
    assert isinstance(network, TransformersNetwork)
    plain = to_onnx(network, traits)
    tapped, taps = tap(plain, tmp_path, RULES)
    graph, outputs = tap_contributions(plain, tmp_path, RULES, range(len(taps)))
    feed = traits.example(2, traits.fit({"seq_len": 9}))
    layers = [one for one in taps if one.layer in outputs]  # but for the attention of a pooling, which has no residual
    given_norms, given_contributions = run(tapped, feed), run(graph, feed)
    norms = [given_norms[str(one.value_norms)] for one in layers]
    contributions = [given_contributions[outputs[one.layer]] for one in layers]

    explained = network.explained.double()
    values, projections, scales = (Heard(explained, ending) for ending in MODULES[family])
    given = [torch.from_numpy(feed[one.name]) for one in traits.inputs]
    with torch.no_grad():
        answer, _ = network._call(
            explained,
            tuple(one.double() if one.is_floating_point() else one for one in given),
            output_attentions=True,
            output_hidden_states=True,
        )
        assert len(norms) == len(answer.attentions) == len(values.outputs) == len(projections.modules) > 0
        for layer, (weights, x) in enumerate(zip(answer.attentions, answer.hidden_states, strict=False)):
            projection = projections.modules[layer]
            assert isinstance(projection, nn.Linear)
            found = vectors(values.outputs[layer], projection, weights)
            close(norms[layer], found.norm(dim=-1))
            if scales.modules:
                found = scales.modules[layer](found)
            mixed = torch.einsum("bhqk,bhke->bqke", weights, found)
            mixed = mixed + torch.eye(x.shape[1], dtype=torch.float64)[None, :, :, None] * x[:, :, None]
            close(contributions[layer], mixed.norm(dim=-1))


def close(got: Array, expected: Tensor) -> None:
    """Compare by the largest."""
    reference = expected.numpy()
    np.testing.assert_allclose(got, reference, rtol=0, atol=1e-4 * float(np.abs(reference).max()))
