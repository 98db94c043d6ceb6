"""Small random networks of the transformers library, written as users' folders."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from tests.export.small.decoders import DECODERS
from tests.export.small.family import Config, Family
from tests.export.small.images import IMAGES
from tests.export.small.pairs import PAIRS, SOUNDS
from tests.export.small.texts import TEXTS
from tests.golden.make import make_tokenizer

_SEED = 0
_SPREAD = 0.2  # of weights: attention is then far from uniform
_COUNTS_LAYERS = ("num_hidden_layers", "n_layers", "num_layers", "encoder_layers", "decoder_layers")

FAMILIES: dict[str, Family] = {**TEXTS, **DECODERS, **IMAGES, **PAIRS, **SOUNDS}


def write_folder(family: Family, folder: Path) -> Path:
    """Make a network with random weights and save it as the library does, with a tokenizer where it takes text."""
    config = transformers.AutoConfig.for_model(family.model_type, **copy.deepcopy(family.config))
    config.architectures = config.architectures or []  # some of the library's own code takes no None
    torch.manual_seed(_SEED)
    network = _make(config, family.task)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(torch.randn_like(parameter) * _SPREAD / 2)
            if parameter.ndim > 1 and "norm" not in name.lower():
                parameter.normal_(std=_SPREAD)
        for module in network.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0  # as training leaves it
    network.save_pretrained(folder)
    if any("vocab_size" in one for one in (family.config, family.config.get("text_config", {}))):
        make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def shallow(family: Family) -> Family:
    """The same with one layer, which is exported in half the time."""
    return replace(family, config=_with_one_layer(family.config))


def _with_one_layer(config: Config) -> Config:
    return {
        name: _with_one_layer(value) if isinstance(value, dict) else 1 if str(name).endswith(_COUNTS_LAYERS) else value
        for name, value in config.items()
    }


def _make(config: Any, task: str) -> Any:
    """Make a network by the library's mapping, or by its configuration's name where it is in none."""
    factory = getattr(transformers, f"AutoModelFor{task}") if task else transformers.AutoModel
    if type(config) in factory._model_mapping:
        return factory.from_config(config)
    return getattr(transformers, type(config).__name__.removesuffix("Config") + "Model")(config)
