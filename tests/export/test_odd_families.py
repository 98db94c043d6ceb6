"""Networks of the library whose inputs or answers are unlike others': served, or refused with what is so."""

from pathlib import Path

import pytest
import torch
import transformers

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
