"""Networks of the library whose inputs or answers are unlike others': served, or refused with what is so."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from torch.nn import functional

from bench.families import configurations
from export.build import build
from export.sources import Source, load_folder
from export.transformers_folder import TransformersNetwork
from model.checkpoint import CheckpointError
from tests.export.families import FAMILIES, shallow, write_folder
from tests.export.small.family import TEXT


def load(name: str, folder: Path) -> Source:
    """Read what the matrix of families has by that name, with one layer, as the exporter does."""
    family = shallow(configurations()[name])
    return load_folder(write_folder(family, folder), part=family.part)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("falcon: ALiBi", "falcon: transformers itself computes another last_hidden_state with eager attention"),
        ("rt_detr", r"rt_detr: layer 2 has attention \[2, 6, 4, 3, 4\] for 2 rows; expected \[rows, heads, queries"),
        (
            "siglip2_vision_model",
            "siglip2_vision_model: takes pixel_values with pixel_attention_mask and spatial_shapes; "
            "expected pixel_values alone",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_for_what_it_is(name: str, message: str, tmp_path: Path) -> None:
    """Not for another size of images, nor for the first thing that fails."""
    with pytest.raises(CheckpointError, match=message):
        load(name, tmp_path / "net")


def test_an_image_without_a_size_of_its_own_is_asked_for_and_that_is_all(tmp_path: Path) -> None:
    """A detector takes images of any size; of one that is told it gives both stacks and what lies between."""
    family = shallow(FAMILIES["detr"])
    del family.config["image_size"]
    folder = write_folder(family, tmp_path / "net")
    with pytest.raises(CheckpointError, match=r"image_size: absent from config\.json; expected --image-size"):
        load_folder(folder)
    contract = build(load_folder(folder, image_size=64), tmp_path / "models").contract
    assert [(layer.kind, layer.query_axis, layer.key_axis) for layer in contract.attention] == [
        ("self", 64, 64),
        ("self", 6, 6),
        ("cross", 6, 64),
    ]


def test_attention_that_comes_in_stages_is_read_layer_by_layer(tmp_path: Path) -> None:
    """PVTv2's; its first stages attend to fewer, larger patches."""
    network = load("pvt_v2", tmp_path / "net").network
    assert isinstance(network, TransformersNetwork)
    with torch.inference_mode():
        weights = network.explain(torch.zeros(2, 3, 64, 64))[1]
    assert [one.shape[1:] for one in weights] == [(1, 256, 4), (2, 64, 4), (5, 16, 4), (8, 4, 4)]


def test_debertas_talking_heads_are_what_the_library_returns(tmp_path: Path) -> None:
    """What multiplies the values, behind the map over the heads: rows do not sum to 1, and are not said to."""
    source = load("deberta: talking heads", tmp_path / "net")
    assert isinstance(source.network, TransformersNetwork)
    built = build(source, tmp_path / "models")
    (layer,) = built.contract.attention
    assert layer.mixes_heads
    assert {one.check for one in built.contract.verification if one.tensor == "attention.0"} >= {
        "against torch",
        "rows sum alike",
        "row alone",
    }
    feed = source.traits.example(2, {"seq_len": 9})
    session = onnxruntime.InferenceSession(built.folder / "attention.onnx")
    (found,) = session.run(["attention.0"], feed)
    with torch.inference_mode():
        (expected,) = source.network.explain(*(torch.from_numpy(feed[one.name]) for one in source.traits.inputs))[1]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert np.abs(found.sum(-1) - 1).max() > 0.1


@pytest.mark.parametrize("kind", ["Context", "Question"])
def test_both_encoders_of_dpr_give_states_and_their_own_vector(kind: str, tmp_path: Path) -> None:
    """The first token's, projected; each is the class that its folder names."""
    config = transformers.DPRConfig(**TEXT, projection_dim=12)
    torch.manual_seed(0)
    encoder = getattr(transformers, f"DPR{kind}Encoder")(config).eval()
    encoder.save_pretrained(tmp_path / "net")
    source = load_folder(tmp_path / "net")
    assert source.traits.embedding
    assert (source.traits.embedding.dim, source.traits.embedding.normalized) == (12, False)
    ids, mask = torch.arange(12).reshape(2, 6), torch.ones(2, 6, dtype=torch.int64)
    with torch.inference_mode():
        assert isinstance(source.network, TransformersNetwork)
        outputs, weights = source.network.explain(ids, mask)
        expected = encoder(ids, mask).pooler_output
    torch.testing.assert_close(outputs["embedding"], expected)
    assert outputs["last_hidden_state"].shape == (2, 6, 32)
    assert len(weights) == 2


def test_a_head_that_pools_by_attention_is_a_layer_of_one_query(tmp_path: Path) -> None:
    """SigLIP's, which the library does not tell of: equal to what torch's own module says."""
    built = build(load("siglip, vision", tmp_path / "net"), tmp_path / "models")
    contract = built.contract
    assert [(one.kind, one.query_axis, one.key_axis) for one in contract.attention] == [
        ("self", 16, 16),
        ("cross", 1, 16),
    ]
    (line,) = (one for one in contract.verification if (one.tensor, one.check) == ("attention.1", "against torch"))
    assert line.max_abs < 1e-5
    session = onnxruntime.InferenceSession(built.folder / "attention.onnx", providers=["CPUExecutionProvider"])
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (weights,) = session.run(["attention.1"], {"pixel_values": pixels.numpy()})
    network = transformers.SiglipVisionModel.from_pretrained(tmp_path / "net")
    with torch.inference_mode():
        states = network(pixels).last_hidden_state
        head = network.head.attention
        expected = head(network.head.probe, states, states, average_attn_weights=False)[1]
    np.testing.assert_allclose(weights, expected.numpy(), atol=1e-5)


def test_a_classifier_that_uses_no_such_head_has_no_such_layer(tmp_path: Path) -> None:
    """SigLIP's classifies by the mean of the patches."""
    network = load("siglip, image classifier", tmp_path / "net").network
    assert isinstance(network, TransformersNetwork)
    with torch.inference_mode():
        assert [one.shape for one in network.explain(torch.zeros(2, 3, 32, 32))[1]] == [(2, 4, 16, 16)]


def test_weights_of_which_the_library_gives_the_mean_are_told_by_head(tmp_path: Path) -> None:
    """WavLM's, which torch computes as a whole; torch's function is as it was afterwards."""
    own = functional.multi_head_attention_forward
    network = load("wavlm", tmp_path / "net").network
    assert isinstance(network, TransformersNetwork)
    sound = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (weights,) = network.explain(sound)[1]
        (mean,) = network.explained(sound, output_attentions=True).attentions
    assert weights.shape == (2, 4, 30, 30)
    assert weights.std(dim=1).max() > 0.01
    torch.testing.assert_close(weights.mean(dim=1), mean[:, 0])
    assert functional.multi_head_attention_forward is own


def test_scores_that_are_given_for_attention_become_weights(tmp_path: Path) -> None:
    """SqueezeBERT's."""
    network = load("squeezebert", tmp_path / "net").network
    assert isinstance(network, TransformersNetwork)
    ids, mask = torch.arange(12).reshape(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with torch.inference_mode():
        (weights,) = network.explain(ids, mask)[1]
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 6))
    assert not weights[1, :, :, 4:].any()


def test_a_network_that_masks_patches_at_random_is_exported_with_all_of_them(tmp_path: Path) -> None:
    """ViT-MAE's encoder: as the library computes it where no patch is removed, and none changes its place."""
    source = load("vit_mae", tmp_path / "net")
    assert source.assumed.startswith("all patches are seen")
    assert source.traits.patches
    assert (source.traits.patches.prefix_tokens, source.traits.patches.rows) == (1, 4)
    assert isinstance(source.network, TransformersNetwork)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = transformers.ViTMAEModel.from_pretrained(tmp_path / "net", mask_ratio=0.0)
    with torch.inference_mode():
        expected = network(pixels, noise=torch.arange(16.0).expand(2, 16)).last_hidden_state
        torch.testing.assert_close(source.network(pixels)["last_hidden_state"], expected)
    contract = build(source, tmp_path / "models").contract
    assert [(one.kind, one.query_axis, one.key_axis) for one in contract.attention] == [("self", 17, 17)]
