import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import CheckpointError, load_network, save_network
from model.huggingface import Pooling
from model.text import TextNetwork
from tests.golden import GOLDEN_NETWORK

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
TOLERANCE = 1e-5
VISION_KINDS = ("ViTModel", "ViTForImageClassification", "Dinov2Model", "Dinov2ForImageClassification")


@pytest.fixture(scope="module")
def transformers() -> Any:
    """The reference library; a development dependency only."""
    return pytest.importorskip("transformers")


def make_reference(transformers: Any, kind: str, folder: Path, **settings: Any) -> Any:
    """Save a random small network of the reference library, whose attention is far from uniform; returns it."""
    family = next(name for name in ("Bert", "ViT", "Dinov2") if kind.startswith(name))
    sizes: dict[str, dict[str, Any]] = {"Bert": {"vocab_size": 50}, "ViT": {"image_size": 24, "patch_size": 4}}
    sizes["Dinov2"] = sizes["ViT"] | {"layerscale_value": 0.5}
    config = getattr(transformers, f"{family}Config")(**(SMALL | sizes[family] | settings), attn_implementation="eager")
    torch.manual_seed(0)
    network = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 or "bias" in name:
                parameter.normal_(std=0.2)
    network.save_pretrained(folder)
    return network


def compare(outputs: dict[str, torch.Tensor], attentions: list[torch.Tensor], reference: Any, real: Any) -> None:
    """Compare every output that both have, and every layer's attention, at real positions."""
    compared = []
    for name in ("last_hidden_state", "pooler_output", "logits"):
        expected = getattr(reference, name, None)
        if expected is not None and name in outputs:
            got = outputs[name]
            pick = real if name == "last_hidden_state" else slice(None)
            torch.testing.assert_close(got[pick], expected[pick], atol=TOLERANCE, rtol=0)
            compared.append(name)
    assert compared
    assert len(attentions) == len(reference.attentions) == SMALL["num_hidden_layers"]
    for got, expected in zip(attentions, reference.attentions, strict=True):
        pick = real if isinstance(real, slice) else real[:, None, :, None].expand_as(got)
        torch.testing.assert_close(got[pick], expected[pick], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", ["BertModel", "BertForSequenceClassification"])
def test_bert_equals_transformers(kind: str, transformers: Any, tmp_path: Path) -> None:
    """Outputs and every layer's attention within 1e-5, for a ragged batch."""
    reference = make_reference(transformers, kind, tmp_path)
    network: Any = load_network(tmp_path)
    ids = torch.randint(50, (3, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [5], [2]])).long()
    with torch.inference_mode():
        expected = reference(ids, attention_mask=mask, output_attentions=True)
        outputs, attentions = network.explain(ids, mask)
        fused = network(ids, mask)
    compare(outputs, attentions, expected, mask.bool())
    compare(fused, attentions, expected, mask.bool())


@pytest.mark.parametrize(
    "kind", ["ViTModel", "ViTForImageClassification", "Dinov2Model", "Dinov2ForImageClassification"]
)
@pytest.mark.parametrize("size", [24, 32])
def test_vision_transformers_equal_transformers(kind: str, size: int, transformers: Any, tmp_path: Path) -> None:
    """Outputs and every layer's attention within 1e-5, at the size they were made for and at another."""
    reference = make_reference(transformers, kind, tmp_path)
    network: Any = load_network(tmp_path)
    pixels = torch.randn(2, 3, size, size)
    options = {"interpolate_pos_encoding": True} if kind.startswith("ViT") else {}
    with torch.inference_mode():
        expected = reference(pixels, output_attentions=True, **options)
        outputs, attentions = network.explain(pixels)
    compare(outputs, attentions, expected, slice(None))


def test_own_checkpoints_come_back_exactly(tmp_path: Path) -> None:
    """Configuration and every tensor."""
    network = load_network(GOLDEN_NETWORK)
    save_network(network, tmp_path, labels=("a", "b"))
    again = load_network(tmp_path)
    assert isinstance(again, TextNetwork)
    assert again.config == network.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_tensors_that_do_not_fit_are_all_listed(transformers: Any, tmp_path: Path) -> None:
    """Missing, unexpected and of another shape, in one message, by name and shape."""
    make_reference(transformers, "BertModel", tmp_path)

    def harm(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["encoder.layer.1.attention.self.query.weight"]
        tensors["odd.weight"] = torch.zeros(2)
        tensors["embeddings.word_embeddings.weight"] = torch.zeros(49, 32)

    edit(tmp_path, harm)
    with pytest.raises(CheckpointError) as caught:
        load_network(tmp_path)
    message = str(caught.value)
    assert "missing encoder.layers.1.attention.query.weight [32, 32]" in message
    assert "unexpected odd.weight [2]" in message
    assert "tokens.weight has shape [49, 32], expected [50, 32]" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type: 'gpt2'; expected one of bert, vit, dinov2"),
        ({"hidden_act": "tanh"}, "hidden_act: 'tanh'; expected 'gelu' or 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: 'relative_key'"),
        ({"is_decoder": True}, "is_decoder: True; expected False"),
        ({"vocab_size": None}, "vocab_size"),
    ],
)
def test_a_configuration_these_networks_cannot_do_is_refused(
    changes: dict[str, Any], message: str, transformers: Any, tmp_path: Path
) -> None:
    """The option, its value and what was expected."""
    make_reference(transformers, "BertModel", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    config = {name: value for name, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_network(tmp_path)


@pytest.mark.parametrize("change", [{"vocab_size": None}, {"odd": 1}, {"encoder": None}, {"encoder": {"odd": 1}}])
def test_an_own_configuration_that_is_wrong_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    """A field that is missing or unknown is the file's fault."""
    save_network(load_network(GOLDEN_NETWORK), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    config = {name: value for name, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        load_network(tmp_path)


def test_how_tokens_are_pooled_is_told_by_whoever_loads(transformers: Any, tmp_path: Path) -> None:
    """The class token, not normalised; else the normalised mean."""
    make_reference(transformers, "BertModel", tmp_path)
    for pooling, expected in ((Pooling("cls", normalize=False), ("cls", False)), (None, ("mean", True))):
        network = load_network(tmp_path, pooling)
        assert isinstance(network, TextNetwork)
        assert (network.config.pooling, network.config.normalize) == expected


def test_half_precision_checkpoints_become_float32(tmp_path: Path) -> None:
    """Whatever they were saved as."""
    save_network(load_network(GOLDEN_NETWORK).half(), tmp_path)
    assert {parameter.dtype for parameter in load_network(tmp_path).parameters()} == {torch.float32}


def test_swiglu_is_refused(transformers: Any, tmp_path: Path) -> None:
    """DINOv2-giant's MLP is not there."""
    make_reference(transformers, "Dinov2Model", tmp_path, use_swiglu_ffn=True)
    with pytest.raises(CheckpointError, match="use_swiglu_ffn: True; expected False"):
        load_network(tmp_path)


def test_files_that_are_absent_or_damaged_are_named(tmp_path: Path) -> None:
    """One after the other."""
    with pytest.raises(CheckpointError, match=r"config\.json: not found"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not JSON"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: holds a list; expected an object"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not found"):
        load_network(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((GOLDEN_NETWORK / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file"):
        load_network(tmp_path)
