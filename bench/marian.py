"""A Marian with random weights, as large as the translators of OPUS-MT: 6 and 6 layers of 512, 32,000 words.

Its words are w0, w1 and so on. What it writes means nothing, and takes as long as with weights that were trained.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from artifact.files import versions
from export.build import build
from export.sources import load_folder

NAME, VOCABULARY, MAX_TOKENS = "marian", 32_000, 48
_STD, _EMBEDDED_STD = 0.06, 0.1  # of weights: with smaller ones all texts were the same
_END, _PAD = 0, VOCABULARY - 1  # the last, as CTranslate2 wants it
_SHAPE: dict[str, Any] = {
    "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
    "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "vocab_size": VOCABULARY,
    "max_position_embeddings": 512, "activation_function": "swish", "scale_embedding": True,
    "decoder_start_token_id": _PAD, "pad_token_id": _PAD, "eos_token_id": _END, "forced_eos_token_id": None,
}  # fmt: skip


def make_marian(folder: Path) -> tuple[Path, Path]:
    """Write it and export it, unless that was done before; returns the folder of the library and that of models."""
    source, out = folder / "library", folder / "models"
    if not versions(out / NAME):
        _write(source)
        build(load_folder(source, name=NAME), out)
    return source, out


def _write(folder: Path) -> None:
    torch.manual_seed(0)
    network: Any = transformers.MarianMTModel(transformers.MarianConfig(**_SHAPE, init_std=_EMBEDDED_STD))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and "embed" not in name and "shared" not in name:
                parameter.normal_(std=_STD)
    network.generation_config.max_new_tokens = MAX_TOKENS
    network.generation_config.num_beams = 1
    network.generation_config.bad_words_ids = None
    network.save_pretrained(folder)
    spelt = {"</s>": _END, "<pad>": _PAD} | {f"w{token}": token for token in range(1, _PAD)}
    tokenizer = Tokenizer(models.WordLevel(spelt, unk_token="<pad>"))  # noqa: S106 -- no secret
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"eos_token": "</s>", "bos_token": "</s>", "unk_token": "<pad>", "pad_token": "<pad>"}
    told = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
