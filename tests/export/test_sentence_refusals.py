"""What is refused of sentence-transformers folders: whatever the exporter does not know, by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from export.sources import load_folder
from model.checkpoint import CheckpointError
from tests.export.sentences import OLD, WIDTH, dense, pooling, read_written, write_sentence_folder

TANH = "torch.nn.modules.activation.Tanh"


def rewrite(file: Path, **changes: Any) -> None:
    """Change a file's object."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode_median": True},
            "pooling_mode_median; expected pooling_mode_cls_token",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "pooling_mode 'median'; expected cls, max, mean,"),
        ("1_Pooling/config.json", {"window": 4}, "window 4; expected no such setting"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt false; expected true: the tokens of a"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.RReLU"}, "activation_function torch.nn.RReLU; exp"),
        (
            "2_Dense/config.json",
            {"activation_function": "mine.Tanh"},
            "activation_function mine.Tanh; expected torch's",
        ),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name 'token_embeddings'; exp"),
        ("2_Dense/config.json", {"in_features": None}, "in_features None; expected a number"),
        ("2_Dense/config.json", {"out_features": 7}, "does not fit the dense layer: .*size mismatch for linear.weight"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, "'maxsim'; expected cosine, dot, eucl"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "default_prompt_name 'q'; expected one of"),
    ],
)
def test_settings_that_are_not_known_are_refused_by_name(
    file: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """With what is known; nothing is left out in silence."""
    settings = {"prompts": {"query": "the cat: "}}
    write_sentence_folder(tmp_path, pooling("mean_tokens"), dense(WIDTH, 6, TANH), settings=settings)
    rewrite(tmp_path / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (
            ["Transformer", "Pooling", "LSTM"],
            r".*LSTM; expected Transformer, Pooling, Dense, Normalize, Dropout, MLMTransformer, Splade",
        ),
        (["CLIPModel"], r".*CLIPModel; expected Transformer,"),
        (["Transformer"], "Transformer; expected one Transformer, then one Pooling, then others"),
        (["Transformer", "Normalize", "Pooling"], "Transformer, Normalize, Pooling; expected one Transformer, then"),
        (["Transformer", "Pooling", "Pooling"], "Transformer, Pooling, Pooling; expected one Transformer, then one"),
        ([], "no modules; expected one Transformer"),
        ([None], "a module without a type; expected Transformer"),
        (["Transformer", "mine.Pooling"], r"mine\.Pooling; expected .* of sentence_transformers alone"),
    ],
)
def test_modules_that_are_not_known_are_refused_by_name(kinds: list[str], message: str, tmp_path: Path) -> None:
    """As are those that stand where they mean nothing."""
    write_sentence_folder(tmp_path, pooling("mean_tokens"))
    listed = [{"path": "", "type": kind if "." in kind else f"{OLD}.{kind}"} if kind else {} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match=rf"modules\.json: {message}"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "content", ["[", "{}", "[1]", '[{"type": "sentence_transformers.Transformer", "path": "../.."}]']
)
def test_a_damaged_list_of_modules_is_named(content: str, tmp_path: Path) -> None:
    """Also one that leads out of the folder."""
    write_sentence_folder(tmp_path, pooling("mean_tokens"))
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"modules\.json: .*(not JSON|expected a)"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config_sentence_transformers.json", {"prompts": ["query"]}, "cannot be understood"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"q": "a" * 5000}},
            "texts up to 5000; expected at most 64, 64 and",
        ),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "cannot be understood"),
        ("sentence_bert_config.json", {"max_seq_length": "512"}, "the most tokens of a text: '512'; expected a number"),
    ],
)
def test_values_of_another_type_are_refused_in_a_line(
    file: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Not by a traceback."""
    write_sentence_folder(tmp_path, pooling("mean_tokens"), settings={"prompts": {}})
    if not (tmp_path / file).is_file():
        (tmp_path / file).write_text("{}")
    rewrite(tmp_path / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_folder(tmp_path)


def test_dense_layers_come_as_safetensors_alone(tmp_path: Path) -> None:
    """A pickle is never opened."""
    write_sentence_folder(tmp_path, pooling("mean_tokens"), dense(WIDTH, 6, TANH))
    (tmp_path / "2_Dense" / "model.safetensors").rename(tmp_path / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"2_Dense/model\.safetensors: not found; expected the weights of the d"):
        load_folder(tmp_path)


def test_pooling_behind_an_image_network_is_refused(tmp_path: Path) -> None:
    """It would be left out."""
    with pytest.raises(CheckpointError, match=r"modules\.json: Pooling behind vit; expected a network for texts"):
        read_written(tmp_path, pooling("mean_tokens"), family="vit")
