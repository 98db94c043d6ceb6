"""CLIP and SigLIP whole: exported, served, and compared with the transformers library's own answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from typer.testing import CliRunner

import regard
from artifact.contract import read_contract
from artifact.towers import read_towers
from export.__main__ import app
from export.towers_folder import is_two_towers
from tests.export.families import FAMILIES, write_folder
from tests.golden.make import make_tokenizer
from tests.golden.towers_folders import TOWERS, write_towers
from tests.processes import StartProcess

TEXTS = ["a very good dog", "the cat sat on the mat", "a film"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both, as users have them."""
    out = tmp_path_factory.mktemp("folders")
    for name in TOWERS:
        write_towers(name, out / name, make_tokenizer())
    return {name: out / name for name in TOWERS}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, exported by the command line."""
    out = tmp_path_factory.mktemp("models")
    for folder in folders.values():
        assert "published" in run(str(folder), "--out", str(out))
    return out


def run(*arguments: str, code: int = 0) -> str:
    """The command line, and what it says in one line."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.output.replace("\n", " ")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Of the network's own size, so that nothing is resized."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def ask_library(folder: Path, texts: list[str], photo: Path) -> Any:
    """What the library answers, with its own tokenizer and its own processor, in eager attention."""
    network = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    fills = {"padding": "max_length", "max_length": 32} if network.config.model_type == "siglip" else {"padding": True}
    tokens = tokenizer(texts, return_tensors="pt", **fills)
    given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    if network.config.model_type == "siglip":
        del given["attention_mask"]  # as SigLIP was trained; its own tokenizer gives none
    config = json.loads((folder / "preprocessor_config.json").read_text())
    processor = getattr(transformers, f"{config['image_processor_type']}Pil").from_pretrained(folder)
    pixels = torch.from_numpy(np.asarray(processor(Image.open(photo), return_tensors="np")["pixel_values"]))
    with torch.inference_mode():
        return network(**given, pixel_values=pixels, output_attentions=True)


@pytest.mark.parametrize("name", TOWERS)
def test_towers_are_served_as_the_library_computes_them(
    name: str, folders: dict[str, Path], models: Path, photo: Path, start_process: StartProcess
) -> None:
    """Vectors, scores and attention of both, within 1e-4."""
    expected = ask_library(folders[name], TEXTS, photo)
    whole = read_towers(models / name / "1" / "towers.json")
    attention = regard.AttentionRequest()
    with start_process("--models", str(models)) as server, regard.Client(server.address) as client:
        texts = [client.embed(text=text, model=name, attention=attention) for text in TEXTS]
        image = client.embed(image=photo, model=name, attention=attention)
        assert server.stop() == 0
    np.testing.assert_allclose([one.vector for one in texts], expected.text_embeds.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(image.vector, expected.image_embeds[0].numpy(), atol=TOLERANCE)
    logits = whole.logit_scale * np.array([one.vector @ image.vector for one in texts]) + whole.logit_bias
    np.testing.assert_allclose(logits, expected.logits_per_image[0].numpy(), atol=TOLERANCE * whole.logit_scale)
    for row, one in enumerate(texts):
        assert one.attention
        assert one.attention.tokens
        count = len(one.attention.tokens)
        for layer, weights in enumerate(expected.text_model_output.attentions):
            wanted = weights[row, :, :count, :count].numpy()
            np.testing.assert_allclose(one.attention.layer(layer).weights, wanted, atol=TOLERANCE)
    assert image.attention
    for layer, weights in enumerate(expected.vision_model_output.attentions):
        np.testing.assert_allclose(image.attention.layer(layer).weights, weights[0].numpy(), atol=TOLERANCE)


def test_the_contract_says_what_joins_them(models: Path) -> None:
    """CLIP's softmax of scaled cosines, SigLIP's sigmoid with a bias."""
    clip, siglip = (read_towers(models / name / "1" / "towers.json") for name in TOWERS)
    assert (clip.family, clip.activation, clip.logit_bias) == ("clip", "softmax", 0)
    assert (siglip.family, siglip.activation, siglip.logit_bias) == ("siglip", "sigmoid", -1.5)
    assert clip.logit_scale == siglip.logit_scale == pytest.approx(np.exp(2.0), rel=1e-6)
    for whole in (clip, siglip):
        (check,) = whole.verification
        assert check.tensor == "logits_per_image"
        assert check.max_abs <= TOLERANCE
    text = read_contract(models / "tiny-siglip" / "1" / "text" / "contract.json").text
    assert text
    assert (text.pad_token, text.max_tokens) == (0, 32)


@pytest.mark.parametrize("name", TOWERS)
def test_projected_positions_are_those_of_the_vectors(name: str, folders: dict[str, Path]) -> None:
    """The one position that a tower makes its vector of is projected to just that; SigLIP's head gets each alone."""
    from export.transformers_projection import project_positions

    network = transformers.AutoModel.from_pretrained(folders[name]).eval()
    found: Any
    pixels = torch.randn(1, 3, 24, 24)
    ids = torch.tensor([[2, 5, 6, 7, *([3] if name == "tiny-clip" else [0] * 28)]])
    with torch.inference_mode():
        if name == "tiny-clip":
            seeing = transformers.CLIPVisionModelWithProjection.from_pretrained(folders[name])
            reading = transformers.CLIPTextModelWithProjection.from_pretrained(folders[name])
            image, text = seeing(pixels), reading(ids)
            found = (
                project_positions(seeing, image.last_hidden_state),
                project_positions(reading, text.last_hidden_state),
            )
            assert torch.allclose(found[0][:, 0], image.image_embeds, atol=1e-5)
            assert torch.allclose(found[1][:, -1], text.text_embeds, atol=1e-5)
        else:
            image, text = network.vision_model(pixels), network.text_model(ids)
            found = (
                project_positions(network.vision_model, image.last_hidden_state),
                project_positions(network.text_model, text.last_hidden_state),
            )
            alone = [network.vision_model.head(image.last_hidden_state[:, place : place + 1]) for place in range(9)]
            assert torch.allclose(found[0], torch.stack(alone, dim=1), atol=1e-5)
            assert torch.allclose(found[1][:, -1], text.pooler_output, atol=1e-5)
    assert project_positions(torch.nn.Linear(2, 2), image.last_hidden_state) is None


def test_the_same_towers_are_published_once(folders: dict[str, Path], models: Path) -> None:
    """Another name is another model; another scale another version."""
    folder = folders["tiny-clip"]
    assert "unchanged" in run(str(folder), "--out", str(models))
    assert not (models / "tiny-clip" / "2").exists()


def test_what_is_wrong_with_a_folder_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    """And what is not: one tower may still be exported alone."""
    folder = shutil.copytree(folders["tiny-clip"], tmp_path / "odd")
    assert is_two_towers(folder)
    out = ("--out", str(tmp_path / "models"))
    assert "two towers expect fp32, or --part for one of them" in run(str(folder), "--precision", "int8", *out, code=1)
    for option in (("--sparse",), ("--matryoshka-dims", "8")):
        assert f"{option[0]}: of one vector a text; two towers expect none" in run(str(folder), *option, *out, code=1)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"additional_special_tokens": ["cat"]}))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer.json; expected that, or --part vision or text" in run(str(folder), *out, code=1)
    assert not list(tmp_path.glob("models/*/*"))
    assert "published" in run(str(folder), "--part", "vision", *out)
    shutil.rmtree(folder)
    assert not is_two_towers(folder)
    write_folder(FAMILIES["clip, image classifier"], tmp_path / "classifier")
    assert not is_two_towers(tmp_path / "classifier")


def test_texts_that_could_not_be_compared_are_told(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library wants a package for its tokenizer that is not there, say; images of another size are of both."""

    def refuse(*given: Any, **how: Any) -> None:
        raise ImportError("SiglipTokenizer requires the SentencePiece library")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    said = run(str(folders["tiny-clip"]), "--out", str(tmp_path), "--image-size", "48")
    assert "assumed: " in said and "which cannot be made: SiglipTokenizer requires the SentencePiece library" in said
    assert "published" in said


def test_a_tokenizer_that_reads_otherwise_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Than the library's own of the folder."""
    folder = shutil.copytree(folders["tiny-siglip"], tmp_path / "odd")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"padding_side": "left"}))
    refusal = run(str(folder), "--out", str(tmp_path / "models"), code=1)
    assert "expected the same" in refusal
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"pad_token": "<absent>"}))
    assert "pad_token: '<absent>'; expected one that tokenizer.json has" in run(
        str(folder), "--out", str(tmp_path), code=1
    )
