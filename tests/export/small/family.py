"""What the configurations of small networks share: sizes, special tokens, and how a row of a table is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]

# Two layers of four heads; special tokens within the small vocabulary, which is that of tests/golden.
SPECIAL: Config = {"vocab_size": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES: Config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT: Config = SIZES | SPECIAL | {"max_position_embeddings": 64}
ROBERTA: Config = TEXT | {"pad_token_id": 1, "bos_token_id": 0, "max_position_embeddings": 66}
DISTILBERT: Config = SPECIAL | {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
GROUPED: Config = TEXT | {"num_key_value_heads": 2, "head_dim": 8}  # each key and value head for two query heads
GPT2: Config = SPECIAL | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
IMAGE: Config = SIZES | {"image_size": 32, "patch_size": 8}
CLIP: Config = {
    "text_config": TEXT | {"projection_dim": 16},
    "vision_config": IMAGE | {"projection_dim": 16},
    "projection_dim": 16,
}
_STACKS: Config = {
    f"{stack}_{what}": size
    for stack in ("encoder", "decoder")
    for what, size in {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()
}
PAIR: Config = _STACKS | SPECIAL | {"d_model": 32, "max_position_embeddings": 64, "decoder_start_token_id": 1}
SPEECH: Config = PAIR | {"num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 20}
LABELS: Config = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}

_TASKS = {"text classifier": "SequenceClassification", "image classifier": "ImageClassification"}
_PARTS = ("vision", "text", "encoder")


@dataclass(frozen=True)
class Family:
    """One folder to write, and how to export it.

    Attributes:
        model_type: As the library names it.
        config: Of the small network.
        part: For --part.
        task: What stands on the network: "SequenceClassification", "ImageClassification"; empty for nothing.
    """

    model_type: str
    config: Config = field(default_factory=dict)
    part: str | None = None
    task: str = ""


def families(base: Config, more: Mapping[str, Config]) -> dict[str, Family]:
    """Make families whose small networks differ little.

    Args:
        base: What their configurations share.
        more: What each has besides, by model type; ", " and a part, or a kind of classifier, may follow.
    """
    made = {}
    for name, own in more.items():
        model_type, _, variant = name.partition(", ")
        labels = LABELS if variant in _TASKS else {}
        part = variant if variant in _PARTS else None
        made[name] = Family(model_type, base | labels | own, part, _TASKS.get(variant, ""))
    return made
