"""Small Whisper folders with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

VOCABULARY, END, START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, NO_TIMESTAMPS, TIMESTAMP = 60, *range(50, 58)
LANGUAGES = {"<|en|>": ENGLISH, "<|de|>": GERMAN}
TASKS = {"translate": TRANSLATE, "transcribe": TRANSCRIBE}
SPECIAL = {
    "<|endoftext|>": END, "<|startoftranscript|>": START, **LANGUAGES, "<|translate|>": TRANSLATE,
    "<|transcribe|>": TRANSCRIBE, "<|notimestamps|>": NO_TIMESTAMPS, "<|0.00|>": TIMESTAMP,
}  # fmt: skip
SHAPE: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_source_positions": 50, "max_target_positions": 24,
    "num_mel_bins": 8, "vocab_size": VOCABULARY, "pad_token_id": END, "eos_token_id": END, "bos_token_id": END,
    "decoder_start_token_id": START, "begin_suppress_tokens": [END],
}  # fmt: skip
MULTILINGUAL: dict[str, Any] = {
    "is_multilingual": True,
    "lang_to_id": LANGUAGES,
    "task_to_id": TASKS,
    "no_timestamps_token_id": NO_TIMESTAMPS,
    "begin_suppress_tokens": [END],
    "alignment_heads": [[1, 0], [2, 3]],
}


def write_whisper(folder: Path, **settings: Any) -> Path:
    """Save a network that hears one second at most, its feature extractor, its tokenizer, and its settings."""
    torch.manual_seed(0)
    library: Any = transformers.WhisperForConditionalGeneration
    made = library(transformers.WhisperConfig(**SHAPE)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3 if parameter.ndim > 1 else 0.1)
    library = transformers.WhisperFeatureExtractor
    extractor = library(feature_size=8, chunk_length=1)
    _part_languages(made, extractor)
    for name, value in (MULTILINGUAL | settings).items():
        setattr(made.generation_config, name, value)
    made.generation_config._from_model_config = False
    made.save_pretrained(folder)
    extractor.save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    return folder


def _part_languages(network: Any, extractor: Any) -> None:
    """Let both languages be as likely where noise is heard, so that of other sounds it is now one, now the other."""
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    features = extractor(noise, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        hidden = network.model(features, decoder_input_ids=torch.tensor([[START]])).last_hidden_state[0, 0]
        spelt = network.get_output_embeddings().weight
        spelt[GERMAN] += ((spelt[ENGLISH] - spelt[GERMAN]) @ hidden) / (hidden @ hidden) * hidden


def write_tokenizer(file: Path) -> None:
    """Save one of words, w0 and so on; timestamps are no special tokens, as in Whisper's own."""
    words = {f"w{token}": token for token in range(VOCABULARY) if token not in SPECIAL.values()}
    tokenizer = Tokenizer(models.WordLevel(words | SPECIAL, unk_token="w0"))  # noqa: S106
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.WhitespaceSplit(), decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(text) for text, token in SPECIAL.items() if token != TIMESTAMP])
    tokenizer.add_tokens([AddedToken("<|0.00|>")])
    tokenizer.save(str(file))
