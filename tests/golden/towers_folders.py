"""Folders of a small CLIP and a small SigLIP with random weights, as users have them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

TOWERS = ("tiny-clip", "tiny-siglip")

_END, _PAD = 3, 0  # [SEP] and [PAD] of make_tokenizer
_SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_SPECIAL: dict[str, Any] = {"vocab_size": 160, "pad_token_id": _PAD, "bos_token_id": 2, "eos_token_id": _END}
_TEXT = _SIZES | _SPECIAL | {"max_position_embeddings": 32}
_IMAGE: dict[str, Any] = _SIZES | {"image_size": 24, "patch_size": 8}
_CONFIGS: dict[str, Any] = {
    "tiny-clip": {
        "model_type": "clip",
        "text_config": _TEXT | {"projection_dim": 12},
        "vision_config": _IMAGE | {"projection_dim": 12},
        "projection_dim": 12,
    },
    "tiny-siglip": {"model_type": "siglip", "text_config": _TEXT, "vision_config": _IMAGE},
}
_NORMAL = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": 3}
_PROCESSORS: dict[str, Any] = {
    "tiny-clip": _NORMAL
    | {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 24},
        "do_center_crop": True,
        "crop_size": {"height": 24, "width": 24},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
    "tiny-siglip": _NORMAL
    | {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 24, "width": 24},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
}


def write_towers(name: str, folder: Path, tokenizer: Tokenizer) -> Any:
    """Write one of TOWERS with its processor's settings and its tokenizer; returns the library's network."""
    settings = dict(_CONFIGS[name])
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    factory: Any = transformers.AutoModel
    network = factory.from_config(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
        network.logit_scale.fill_(2.0)
        if hasattr(network, "logit_bias"):
            network.logit_bias.fill_(-1.5)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PROCESSORS[name]))
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return network
