"""Folders of T5 and its kin with random weights, settings of generation, and a small Unigram tokenizer."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

PAD, END, UNKNOWN, VOCABULARY = 0, 1, 2, 48
PIECES = ("\u2581the", "\u2581a", "er", "in", "\u2581", *"abcdefghijklmnopqrstuvwxyz")
# Few buckets, the last of which begins within the tokens that are read.
SHAPE = {
    "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2,
    "num_heads": 4, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
    "decoder_start_token_id": PAD,
}  # fmt: skip
# "t5" is of the first release, "t5-1.1" of the second: gated, and its output layer is not its embeddings.
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "t5": (transformers.T5Config, transformers.T5ForConditionalGeneration, {}),
    "t5-1.1": (
        transformers.T5Config,
        transformers.T5ForConditionalGeneration,
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "mt5": (transformers.MT5Config, transformers.MT5ForConditionalGeneration, {}),
    "umt5": (transformers.UMT5Config, transformers.UMT5ForConditionalGeneration, {}),
}


# How large the random weights are, by a part of their names: attention is far from uniform and depends on distances,
# and what is read is not lost behind the last token.
_SIZES = {"relative_attention_bias": 2.0, "shared": 1.5, "lm_head": 0.4, ".q.": 0.2, ".k.": 0.2, "": 0.4}


def make_network(family: str, vocab_size: int = VOCABULARY) -> Any:
    """Make a network with random weights."""
    config, network, further = FAMILIES[family]
    torch.manual_seed(0)
    made = network(config(**{**SHAPE, **further, "vocab_size": vocab_size})).eval()
    if family == "t5-1.1":
        made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.clone())
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=next(size for part, size in _SIZES.items() if part in name))
    return made


def write_t5(folder: Path, family: str, vocab_size: int = VOCABULARY, **settings: Any) -> Path:
    """Save a network, and what it needs; settings are of generation_config.json."""
    made = make_network(family, vocab_size)
    for name, value in settings.items():
        setattr(made.generation_config, name, value)
    made.save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def make_tokenizer() -> Tokenizer:
    """Make what the library makes of T5's model of pieces."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    spelt = [(piece, -float(place)) for place, piece in enumerate(PIECES, 1)]
    tokenizer = Tokenizer(models.Unigram([*special, *spelt], UNKNOWN, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([text for text, _ in special])
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", END)])
    return tokenizer
