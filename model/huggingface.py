"""Translates Hugging Face configurations and tensor names into this repository's."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from model.encoder import EncoderConfig
from model.text import TextConfig, TextNetwork
from model.vit import VisionTransformer, ViTConfig


@dataclass(frozen=True)
class Pooling:
    """How tokens become one vector, as TextConfig has it."""

    mode: Literal["mean", "cls"] = "mean"
    normalize: bool = True


# Each rule: a pattern that matches a Hugging Face tensor name, and its name here. None drops the tensor: it is a buffer
# or serves training only.
_LAYER = r"encoder\.layer\.(\d+)"
_COMMON = (
    (rf"{_LAYER}\.attention\.output\.dense", r"encoder.layers.\1.attention.out"),
    (rf"{_LAYER}\.intermediate\.dense", r"encoder.layers.\1.mlp.up"),
    (rf"{_LAYER}\.output\.dense", r"encoder.layers.\1.mlp.down"),
    (r"pooler\.dense", "pooler"),
    (r"classifier", "classifier"),
)
_IMAGE = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "positions"),
    (r"embeddings\.patch_embeddings\.projection", "patches"),
    (r"embeddings\.mask_token", None),
    (rf"{_LAYER}\.attention\.attention\.(query|key|value)", r"encoder.layers.\1.attention.\2"),
    (r"layernorm", "encoder.final_norm"),
)
_RULES: dict[str, tuple[tuple[str, str | None], ...]] = {
    "bert": (
        (r"embeddings\.word_embeddings", "tokens"),
        (r"embeddings\.position_embeddings", "encoder.learned_positions"),
        (r"embeddings\.token_type_embeddings", "segments"),
        (r"embeddings\.LayerNorm", "embedding_norm"),
        (r"embeddings\.position_ids", None),
        (rf"{_LAYER}\.attention\.self\.(query|key|value)", r"encoder.layers.\1.attention.\2"),
        (rf"{_LAYER}\.attention\.output\.LayerNorm", r"encoder.layers.\1.attention_norm"),
        (rf"{_LAYER}\.output\.LayerNorm", r"encoder.layers.\1.mlp_norm"),
        *_COMMON,
    ),
    "vit": (
        *_IMAGE,
        (rf"{_LAYER}\.layernorm_before", r"encoder.layers.\1.attention_norm"),
        (rf"{_LAYER}\.layernorm_after", r"encoder.layers.\1.mlp_norm"),
        *_COMMON,
    ),
    "dinov2": (
        *_IMAGE,
        (rf"{_LAYER}\.norm1", r"encoder.layers.\1.attention_norm"),
        (rf"{_LAYER}\.norm2", r"encoder.layers.\1.mlp_norm"),
        (rf"{_LAYER}\.layer_scale1\.lambda1", r"encoder.layers.\1.attention_scale.factors"),
        (rf"{_LAYER}\.layer_scale2\.lambda1", r"encoder.layers.\1.mlp_scale.factors"),
        (rf"{_LAYER}\.mlp\.fc1", r"encoder.layers.\1.mlp.up"),
        (rf"{_LAYER}\.mlp\.fc2", r"encoder.layers.\1.mlp.down"),
        *_COMMON,
    ),
}
FAMILIES = tuple(_RULES)


def translate(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], pooling: Pooling
) -> tuple[TextNetwork | VisionTransformer, dict[str, Tensor]]:
    """Build the empty network for a configuration and rename the tensors for it.

    Args:
        config: The content of config.json.
        tensors: The checkpoint's tensors, with or without the family's prefix ("bert.").
        pooling: For text networks.

    Returns:
        The network, and the tensors by this repository's names; a name that no rule knows stays as it is.

    Raises:
        ValueError: The configuration names another family, or an option that this repository's networks do not have.
    """
    family = config.get("model_type")
    if family not in _RULES:
        raise ValueError(f"model_type: {family!r}; expected one of {', '.join(FAMILIES)}")
    renamed = rename(family, tensors)
    has_pooler = "pooler.weight" in renamed
    num_classes = renamed["classifier.weight"].shape[0] if "classifier.weight" in renamed else 0
    _check_supported(config)
    try:
        if family == "bert":
            return TextNetwork(_text_config(config, pooling, has_pooler, num_classes)), renamed
        return VisionTransformer(_vit_config(config, has_pooler, num_classes)), renamed
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: absent; the {family} family needs it") from error


def rename(family: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors this repository's names; drop those that only training needs."""
    renamed = {}
    for name, tensor in tensors.items():
        own = _own_name(family, name)
        if own is not None:
            renamed[own] = tensor
    return renamed


def _own_name(family: str, name: str) -> str | None:
    bare = name.removeprefix(f"{family}.")
    for pattern, replacement in _RULES[family]:
        match = re.match(rf"{pattern}(?=\.(?:weight|bias)$|$)", bare)
        if match:
            return None if replacement is None else match.expand(replacement) + bare[match.end() :]
    return name


def _check_supported(config: Mapping[str, Any]) -> None:
    expected: dict[str, tuple[object, ...]] = {
        "hidden_act": ("gelu", "relu"),
        "position_embedding_type": ("absolute",),
        "use_swiglu_ffn": (False,),
        "apply_layernorm": (True,),
        "pooler_act": ("tanh",),
        "is_decoder": (False,),
    }
    for name, allowed in expected.items():
        if name in config and config[name] not in allowed:
            raise ValueError(f"{name}: {config[name]!r}; expected {' or '.join(map(repr, allowed))}")


def _encoder_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "embed_dim": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "activation": config.get("hidden_act", "gelu"),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "qkv_bias": config.get("qkv_bias", True),
    }


def _text_config(config: Mapping[str, Any], pooling: Pooling, has_pooler: bool, num_classes: int) -> TextConfig:
    encoder = EncoderConfig(
        **_encoder_config(config),
        mlp_dim=config["intermediate_size"],
        norm="post",
        positions="learned",
        max_positions=config["max_position_embeddings"],
    )
    return TextConfig(
        encoder,
        vocab_size=config["vocab_size"],
        num_segments=config.get("type_vocab_size", 2),
        bert_pooler=has_pooler,
        pooling=pooling.mode,
        normalize=pooling.normalize,
        num_classes=num_classes,
        classify_from="pooler",
    )


def _vit_config(config: Mapping[str, Any], has_pooler: bool, num_classes: int) -> ViTConfig:
    dinov2 = config["model_type"] == "dinov2"
    mlp_dim = int(config["hidden_size"] * config["mlp_ratio"]) if dinov2 else config["intermediate_size"]
    encoder = EncoderConfig(**_encoder_config(config), mlp_dim=mlp_dim, norm="pre", layer_scale=dinov2)
    return ViTConfig(
        encoder,
        image_size=config["image_size"],
        patch_size=config["patch_size"],
        num_channels=config["num_channels"],
        vit_pooler=has_pooler,
        num_classes=num_classes,
        classify_from="cls_and_mean" if dinov2 else "cls",
    )
