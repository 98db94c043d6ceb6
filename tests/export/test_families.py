"""Folders of the transformers library, from what a user has to what a caller gets; bench/families.py has many more."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import regard
from export.__main__ import app
from export.build import Built, build
from export.sources import Source, load_folder
from export.transformers_folder import TransformersNetwork
from model.checkpoint import CheckpointError
from tests.export.families import FAMILIES, shallow, write_folder
from tests.processes import PHOTOS, StartProcess

TOLERANCE = 1e-5
FRAMES = "(samples - 20) // 16"
Builder = Callable[[str], Built]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder for all."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def artifact(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Write a family's folder and export it, each once."""
    made: dict[str, Built] = {}

    def make(name: str) -> Built:
        if name not in made:
            folder = tmp_path_factory.mktemp("folders") / re.sub(r"\W+", "-", name)
            made[name] = build(read(name, folder), models)
        return made[name]

    return make


def read(name: str, folder: Path, image_size: int | None = None) -> Source:
    """Write a family's folder and read it."""
    family = shallow(FAMILIES[name])
    return load_folder(write_folder(family, folder), image_size, part=family.part)


def kinds(built: Built) -> list[tuple[str, int | str | None, int | str | None]]:
    """Who attends to whom, layer by layer."""
    return [(layer.kind, layer.query_axis, layer.key_axis) for layer in built.contract.attention]


def worst(built: Built) -> float:
    """Largest difference of the attention from PyTorch's eager attention."""
    lines = [line for line in built.contract.verification if line.tensor.startswith("attention.")]
    return max(line.max_abs for line in lines if line.check == "against torch")


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("roberta", [("self", "seq_len", "seq_len")]),
        ("blip_vision_model", [("self", 17, 17)]),
        ("llama, text classifier", [("causal", "seq_len", "seq_len")]),
        ("granitemoe", [("causal", "seq_len", "seq_len")]),
        ("clip, vision", [("self", 17, 17)]),
        ("dinov2_with_registers, image classifier", [("self", 21, 21)]),
        (
            "bart",
            [
                ("self", "seq_len", "seq_len"),
                ("causal", "target_len", "target_len"),
                ("cross", "target_len", "seq_len"),
            ],
        ),
        ("wav2vec2", [("self", FRAMES, FRAMES)]),
    ],
)
def test_every_kind_of_family_is_tapped(name: str, attention: list[Any], artifact: Builder) -> None:
    """Fused or eager; of text, images and sound; and its attention is PyTorch's within 1e-5."""
    built = artifact(name)
    assert kinds(built) == attention
    assert worst(built) < TOLERANCE
    assert built.contract.attention[0].num_heads == 4
    assert all(layer.value_norms for layer in built.contract.attention)


def test_a_tokenizer_beside_the_weights_makes_a_text_model(artifact: Builder) -> None:
    """With as many tokens as there are positions: RoBERTa's table has two rows that stand for none."""
    contract = artifact("roberta").contract
    assert contract.text
    assert contract.text.max_tokens == 64
    assert contract.embedding
    assert (contract.embedding.dim, contract.embedding.normalized) == (32, True)
    assert contract.family == "roberta"
    assert "transformers" in contract.made_with


def test_a_family_without_fused_attention_is_exported_with_eager_attention(artifact: Builder) -> None:
    """Its graph has no Attention node, and still gives the weights."""
    contract = artifact("blip_vision_model").contract
    assert "attention.lowered.onnx" not in contract.files
    assert "attention.lowered.onnx" in artifact("roberta").contract.files


def test_a_decoder_that_classifies_reads_the_last_token_however_the_batch_is_padded(artifact: Builder) -> None:
    """With names for the classes; its verification compared rows in a padded batch with the same rows alone."""
    contract = artifact("llama, text classifier").contract
    assert contract.labels == ("bad", "fair", "good")
    checks = {(line.tensor, line.check) for line in contract.verification}
    assert {("logits", "row alone"), ("logits", "against torch")} <= checks


def test_a_tower_gives_the_vector_that_is_compared_with_the_other_towers(artifact: Builder) -> None:
    """CLIP's projects it to 16 numbers; the image has a class token before its patches."""
    contract = artifact("clip, vision").contract
    assert contract.embedding
    assert contract.embedding.dim == 16
    assert contract.patches
    assert (contract.patches.prefix_tokens, contract.patches.rows, contract.patches.patch_size) == (1, 4, 8)
    assert contract.image
    assert contract.image.crop_size == 32


def test_registers_are_prefix_tokens(artifact: Builder) -> None:
    """The class token and four registers."""
    contract = artifact("dinov2_with_registers, image classifier").contract
    assert contract.patches
    assert contract.patches.prefix_tokens == 5
    assert contract.labels == ("bad", "fair", "good")


@pytest.mark.parametrize(
    ("name", "prefix_tokens"), [("deit", 2), ("siglip, vision", 0), ("beit", 1), ("dinov3_vit", 5), ("vit_msn", 1)]
)
def test_patches_are_found_where_their_pixels_lead(name: str, prefix_tokens: int, tmp_path: Path) -> None:
    """Whatever stands before them."""
    patches = read(name, tmp_path / "net").traits.patches
    assert patches
    assert (patches.prefix_tokens, patches.rows, patches.cols) == (prefix_tokens, 4, 4)


def test_a_text_tower_without_a_mask_takes_its_full_length(tmp_path: Path) -> None:
    """SigLIP's vector is that of the last position, and its texts were always padded to it."""
    source = read("siglip, text", tmp_path / "net")
    assert [(spec.name, spec.axes) for spec in source.traits.inputs] == [("input_ids", ("batch", 64))]
    assert source.tokenizer_file
    assert source.pad_token == 0  # as its configuration says, where no file of the tokenizer does


@pytest.mark.parametrize("name", ["vivit", "yolos"])
def test_what_is_no_row_of_patches_takes_tensors_alone(name: str, tmp_path: Path) -> None:
    """Frames of a video; detection tokens behind the patches."""
    source = read(name, tmp_path / "net")
    assert source.image is None
    assert source.traits.patches is None


def test_an_image_of_another_size_has_its_positions_fitted(tmp_path: Path) -> None:
    """64 pixels are 8 x 8 patches to a network that learned 4 x 4."""
    source = read("deit", tmp_path / "net", image_size=64)
    assert source.traits.patches
    assert (source.traits.patches.rows, source.traits.inputs[0].axes[-1]) == (8, 64)


def test_both_ways_of_attention_share_the_weights_memory(tmp_path: Path) -> None:
    """So that a checkpoint is in memory once."""
    for name in ("roberta", "data2vec-vision"):
        network = read(name, tmp_path / name).network
        assert isinstance(network, TransformersNetwork)
        fused, explained = (dict(one.named_parameters()) for one in (network.fused, network.explained))
        assert fused.keys() == explained.keys()
        assert all(fused[key].data_ptr() == explained[key].data_ptr() for key in fused)
        assert network.fused.config._attn_implementation == "sdpa"
        assert network.explained.config._attn_implementation == "eager"


def test_weights_in_a_lower_precision_are_read_as_float32(tmp_path: Path) -> None:
    """As most checkpoints of decoders are kept."""
    folder = write_folder(shallow(FAMILIES["llama"]), tmp_path / "net")
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    network = load_folder(folder).network
    assert network is not None
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_sound_may_be_of_any_length(artifact: Builder) -> None:
    """Frames follow the samples; what is too short for one frame is filled up with silence."""
    built = artifact("wav2vec2")
    session = onnxruntime.InferenceSession(built.folder / "attention.onnx")
    noise = np.random.default_rng(0).standard_normal((1, 1000)).astype(np.float32)
    frames = []
    for samples in (1, 63, 64, 500, 1000):
        (weights,) = session.run(["attention.0"], {"input_values": noise[:, :samples]})
        frames.append(weights.shape[2:])
        sizes = built.contract.axis_sizes({"input_values": noise[:, :samples]})
        assert built.contract.attention[0].shape(sizes, 0) == weights.shape[2:]
    assert (frames[0], *frames[-2:]) == ((3, 3), (30, 30), (61, 61))


def test_the_encoder_of_a_pair_is_a_text_model_of_its_own(tmp_path: Path) -> None:
    """Also from a folder that has no decoder at all."""
    folder = write_folder(shallow(FAMILIES["t5, encoder"]), tmp_path / "net")
    tensors = {
        name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "decoder" not in name
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    source = load_folder(folder, part="encoder")
    assert [spec.name for spec in source.traits.inputs] == ["input_ids", "attention_mask"]
    assert source.tokenizer_file
    assert source.traits.embedding
    with pytest.raises(CheckpointError, match=r"t5 lacks \d+ weights: decoder\."):
        load_folder(folder)


def without_weights(folder: Path) -> None:
    """As a clone without its large files."""
    (folder / "model.safetensors").unlink()


def without_a_layer(folder: Path) -> None:
    """As an interrupted conversion leaves it."""
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: one for name, one in tensors.items() if "encoder.layer.0" not in name}, folder / "model.safetensors"
    )


def with_other_shapes(folder: Path) -> None:
    """As a configuration of another size."""
    change_config(folder, intermediate_size=96)


def with_own_code(folder: Path) -> None:
    """As remote code is marked."""
    change_config(folder, model_type="mine", auto_map={"AutoModel": "modeling.Mine"})
    (folder / "modeling.py").write_text("raise SystemExit('this was run')\n")


def with_an_unknown_family(folder: Path) -> None:
    """Newer than the library, or misspelt."""
    change_config(folder, model_type="nowhere-known")


def with_damaged_weights(folder: Path) -> None:
    """Cut off."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def change_config(folder: Path, **fields: Any) -> None:
    """Change fields of config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good folder, to be spoilt in copies."""
    return write_folder(shallow(FAMILIES["roberta"]), tmp_path_factory.mktemp("good") / "roberta")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_weights, "has no weights; expected model.safetensors"),
        (without_a_layer, "roberta lacks 16 weights: encoder.layer.0."),
        (with_other_shapes, "weights of another shape: encoder.layer.0.intermediate.dense.bias is [48], expected [96]"),
        (with_own_code, "mine brings its own code (auto_map), which is never run"),
        (with_an_unknown_family, "nowhere-known"),
        (with_damaged_weights, "transformers cannot load it"),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_clear_line(
    spoil: Callable[[Path], None], message: str, roberta: Path, tmp_path: Path
) -> None:
    """On the command line, with exit code 1 and no traceback."""
    folder = tmp_path / "roberta"
    shutil.copytree(roberta, folder)
    spoil(folder)
    assert message in refuse(folder)


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("clip, vision", "encoder", "--part: 'encoder'; clip has vision and text"),
        ("roberta", "text", "--part: 'text'; roberta has one part only"),
        ("t5", "vision", "--part: 'vision'; t5 has encoder"),
        ("mamba", None, "transformers returns no attention weights of it"),
        ("timesformer", None, "layer 0 has attention [4, 4, 17, 17] for 2 rows; expected [rows, heads, queries, keys]"),
        ("bros", None, "bros does not run on input_ids alone: You have to specify bbox"),
        ("longformer", None, "torch cannot export it: its code takes another way by the values of what it is given: "),
    ],
)
def test_what_cannot_be_exported_is_one_clear_line(name: str, part: str | None, message: str, tmp_path: Path) -> None:
    """A part that is missing or wrong, and families without attention that could be given."""
    folder = write_folder(shallow(FAMILIES[name]), tmp_path / "net")
    assert message in refuse(folder, *(("--part", part) if part else ()))


def refuse(folder: Path, *options: str) -> str:
    """Export on the command line; returns the one line it says."""
    done = CliRunner().invoke(app, [str(folder), "--out", str(folder.parent / "models"), *options])
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    lines = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_the_librarys_logging_is_as_it_was(tmp_path: Path) -> None:
    """An export is quiet, but does not silence whoever imports it."""
    before = transformers.logging.get_verbosity()
    read("deit", tmp_path / "net")
    assert transformers.logging.get_verbosity() == before


def ask_eager(name: str, folder: Path, **inputs: NDArray[Any]) -> Any:
    """What the library itself answers, with eager attention."""
    write_folder(shallow(FAMILIES[name]), folder)
    network = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        return network(**{key: torch.from_numpy(array) for key, array in inputs.items()}, output_attentions=True)


def test_a_decoder_and_a_pair_are_served_with_their_attention(
    artifact: Builder,
    models: Path,
    tmp_path: Path,
    start_process: StartProcess,
) -> None:
    """Causal, and between two sequences of different lengths; as the library computes it, within 1e-4."""
    llama, bart = (artifact(name).contract.name for name in ("llama, text classifier", "bart"))
    ids = np.random.default_rng(0).integers(3, 160, (2, 7))
    mask, targets = np.ones_like(ids), np.random.default_rng(1).integers(3, 160, (2, 4))
    with start_process("--models", str(models)) as server, regard.Client(server.address) as client:
        causal = client.predict(
            {"input_ids": ids, "attention_mask": mask}, model=llama, attention=regard.AttentionRequest()
        )
        inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": targets}
        pair = client.predict(inputs, model=bart, attention=regard.AttentionRequest())
        assert server.stop() == 0
    assert causal.attention
    assert pair.attention
    assert causal.attention.layer(0).kind == "causal"
    assert not np.triu(causal.attention.layer(0).weights, 1).any()
    assert [layer.kind for layer in pair.attention.layers] == ["self", "causal", "cross"]
    expected = ask_eager("bart", tmp_path / "bart", **inputs)
    arrays = (expected.encoder_attentions[0], expected.decoder_attentions[0], expected.cross_attentions[0])
    for layer, array in zip(pair.attention.layers, arrays, strict=True):
        np.testing.assert_allclose(layer.weights, array.numpy(), atol=1e-4)


def test_an_image_tower_is_asked_with_a_photograph(
    artifact: Builder,
    models: Path,
    start_process: StartProcess,
) -> None:
    """Embedded and shown where it looked."""
    name = artifact("clip, vision").contract.name
    with start_process("--models", str(models)) as server, regard.Client(server.address) as client:
        photo = PHOTOS / "chelsea.jpg"
        answer = client.embed(image=photo, model=name, attention=regard.AttentionRequest(cls_only=True))
        assert server.stop() == 0
    assert answer.vector.shape == (16,)
    assert answer.attention
    assert answer.attention.layer(0).weights.shape == (4, 1, 17)
    assert answer.attention.patches
    assert answer.attention.patches.rows == 4
