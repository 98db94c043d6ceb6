"""Folders of the transformers library that write text, with random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from artifact.generation import GenerationContract
from export.build import build
from export.encoder_decoder import Writing
from export.sources import load_folder
from model.checkpoint import CheckpointError
from tests.export.test_marian_tokenizer import FOLDER as MARIAN

VOCABULARY, END, PAD, GERMAN, FRENCH = 60, 2, 1, 56, 57
SHAPE = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 24, "vocab_size": VOCABULARY,
    "pad_token_id": PAD, "eos_token_id": END,
}  # fmt: skip
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "marian": (
        transformers.MarianConfig,
        transformers.MarianMTModel,
        {"decoder_start_token_id": PAD, "scale_embedding": True, "activation_function": "swish"},
    ),
    "bart": (transformers.BartConfig, transformers.BartForConditionalGeneration, {"decoder_start_token_id": END}),
    "mbart": (transformers.MBartConfig, transformers.MBartForConditionalGeneration, {"decoder_start_token_id": END}),
}


def write_folder(folder: Path, family: str, **settings: Any) -> Path:
    """Save a network with random weights, a tokenizer, and settings of generation."""
    config, network, further = FAMILIES[family]
    torch.manual_seed(0)
    made = network(config(**SHAPE, **further)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
        made.final_logits_bias.normal_()
    for name, value in settings.items():
        setattr(made.generation_config, name, value)
    made.save_pretrained(folder)
    spelt = {f"w{token}": token for token in range(VOCABULARY)}
    spelt = {text: token for text, token in spelt.items() if token not in (GERMAN, FRENCH)}
    tokenizer = Tokenizer(models.WordLevel(spelt | {"de_DE": GERMAN, "fr_XX": FRENCH}, unk_token="w0"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def read(folder: Path) -> Writing:
    """What is exported of how it writes."""
    writing = load_folder(folder).writing
    assert writing is not None
    return writing


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_becomes_an_artifact(family: str, tmp_path: Path, out: Path) -> None:
    """Verified step by step against the library's whole sequences, every layer's attention of both kinds."""
    contract = build(load_folder(write_folder(tmp_path / "network", family), name=family), out).contract
    assert contract.family == family
    assert contract.generation is not None
    assert (contract.generation.num_layers, contract.generation.num_heads, contract.generation.head_dim) == (3, 4, 8)
    assert [layer.num_heads for layer in contract.attention] == [2, 2]
    assert len(contract.hidden_states) == 3
    told = {line.tensor for line in contract.verification if line.check == "against torch"}
    assert {"decoder.logits", *(f"decoder.{kind}.{layer}" for kind in ("self", "cross") for layer in range(3))} <= told
    assert contract.explains_tokens
    assert {"tokens.relevance.score", "tokens.relevance.source"} <= {line.tensor for line in contract.verification}
    assert set(contract.made_with) == {"regard", "torch", "onnx", "onnxscript", "transformers"}


def test_what_generation_config_says_is_in_the_contract(tmp_path: Path) -> None:
    """Tokens that are forced begin it, others are suppressed; lengths, beams, ends."""
    settings = {
        "forced_bos_token_id": 7, "bad_words_ids": [[PAD], [9]], "suppress_tokens": [9, 11], "max_length": 20,
        "begin_suppress_tokens": [12], "num_beams": 4, "length_penalty": 0.6, "eos_token_id": [END, 3],
        "forced_eos_token_id": [3, END], "early_stopping": True,
    }  # fmt: skip
    writing = read(write_folder(tmp_path / "network", "bart", **settings))
    assert writing.generation == GenerationContract(
        num_layers=3,
        num_heads=4,
        head_dim=8,
        scale=8**-0.5,
        vocab_size=VOCABULARY,
        starts={"default": (END, 7)},
        default_start="default",
        forced_start_tokens=1,
        end_tokens=(END, 3),
        forced_end_token=END,
        pad_token=PAD,
        max_tokens=18,
        tokenizer_file="target_tokenizer.json",
        suppressed_tokens=(PAD, 9, 11),
        first_suppressed_tokens=(12,),
        num_beams=4,
        length_penalty=0.6,
        early_stopping=True,
    )


@pytest.mark.parametrize(
    ("settings", "starts", "default"),
    [
        ({"forced_bos_token_id": FRENCH}, {"de_DE": (END, GERMAN), "fr_XX": (END, FRENCH)}, "fr_XX"),
        ({"decoder_start_token_id": GERMAN}, {"de_DE": (GERMAN,), "fr_XX": (FRENCH,)}, "de_DE"),
        ({}, {"default": (END,)}, "default"),
    ],
)
def test_languages_are_starts(
    settings: dict[str, Any], starts: dict[str, tuple[int, ...]], default: str, tmp_path: Path
) -> None:
    """Of mBART: the one that its settings name is the default."""
    generation = read(write_folder(tmp_path / "network", "mbart", **settings)).generation
    assert (generation.starts, generation.default_start) == (starts, default)


def test_no_more_is_written_than_there_are_positions(tmp_path: Path) -> None:
    """Whatever the settings say; max_new_tokens comes first."""
    folder = write_folder(tmp_path / "network", "marian", max_length=512)
    assert read(folder).generation.max_tokens == 23
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_new_tokens": 5}))
    assert read(folder).generation.max_tokens == 5
    file.write_text(json.dumps(json.loads(file.read_text()) | {"forced_bos_token_id": 7}))
    assert read(folder).generation.max_tokens == 4  # that token is a new one, for the library


def test_settings_that_are_not_followed_are_told(tmp_path: Path) -> None:
    """Each by its name."""
    settings = {"no_repeat_ngram_size": 3, "min_length": 5, "bad_words_ids": [[4, 5]], "repetition_penalty": 1.0}
    source = load_folder(write_folder(tmp_path / "network", "bart", **settings))
    assert source.assumed == (
        "not followed when text is written: no_repeat_ngram_size 3, min_length 5, bad_words_ids [4, 5]"
    )


def remove_start(folder: Path) -> None:
    """From both files."""
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        content.pop("decoder_start_token_id", None)
        (folder / name).write_text(json.dumps(content))


def test_no_end_among_those_that_are_forced_is_none(tmp_path: Path) -> None:
    """An empty list is as good as nothing."""
    assert read(write_folder(tmp_path / "network", "bart", forced_eos_token_id=[])).generation.forced_end_token is None


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: not found; expected a file of the"),
        (lambda folder: (folder / "model.safetensors").unlink(), "transformers cannot load it"),
        (remove_start, "decoder_start_token_id: missing; expected a token"),
    ],
)
def test_a_folder_that_cannot_be_exported_is_refused(
    harm: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    """The error names what is missing."""
    folder = write_folder(tmp_path / "network", "mbart")
    harm(folder)
    with pytest.raises(CheckpointError, match=message):
        load_folder(folder)


def test_marians_own_files_are_read(tmp_path: Path) -> None:
    """SentencePiece's models, where there is no tokenizer.json; with more tokens than the network they do not fit."""
    folder = write_folder(tmp_path / "network", "marian")
    (folder / "tokenizer.json").unlink()
    for name in ("source.spm", "target.spm", "vocab.json"):
        shutil.copy(MARIAN / name, folder / name)
    with pytest.raises(CheckpointError, match=r"source\.spm: has 148 tokens; expected at most the network's 60"):
        load_folder(folder)
    numbers = {text: token for text, token in json.loads((MARIAN / "vocab.json").read_text()).items() if token < 60}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    source = load_folder(folder)
    assert source.writing is not None
    assert source.writing.tokenizer is not None
    assert Tokenizer.from_str(source.writing.tokenizer).encode("a").ids[-1] == numbers["</s>"]
    assert "pieces of source.spm are not in vocab.json" in source.assumed


def test_tokens_that_the_network_has_not_are_refused(tmp_path: Path) -> None:
    """In its settings, and in its tokenizer."""
    with pytest.raises(
        CheckpointError, match=r"what is said of generation: content: suppressed_tokens: 60; expected a token"
    ):
        load_folder(write_folder(tmp_path / "network", "bart", suppress_tokens=[VOCABULARY]))


def test_the_encoder_alone_can_be_exported_still(tmp_path: Path) -> None:
    """With --part."""
    source = load_folder(write_folder(tmp_path / "network", "bart"), part="encoder")
    assert source.writing is None
