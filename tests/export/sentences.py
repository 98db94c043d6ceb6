"""Small sentence-transformers folders with random weights."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from export.sources import Source, load_folder
from export.traits import pad
from tests.export.families import FAMILIES, shallow, write_folder

OLD, NEW = "sentence_transformers.models", "sentence_transformers.sentence_transformer.modules"
WIDTH = 32  # of the small networks
Module = tuple[str, dict[str, Any]]


def pooling(*flags: str, **more: Any) -> Module:
    """A pooling module with these of the older flags set."""
    config = {f"pooling_mode_{flag}": flag in flags for flag in ("cls_token", "mean_tokens", "max_tokens")}
    return "Pooling", {
        "word_embedding_dimension": WIDTH,
        **config,
        **{f"pooling_mode_{flag}": True for flag in flags},
        **more,
    }


def dense(takes: int, gives: int, activation: str, **more: Any) -> Module:
    """A dense layer."""
    config = {"in_features": takes, "out_features": gives, "bias": True, "activation_function": activation}
    return "Dense", config | more


def write_sentence_folder(
    folder: Path,
    *modules: Module,
    family: str = "bert",
    settings: Mapping[str, Any] | None = None,
    package: str = OLD,
    path: str = "",
) -> Path:
    """Write a network and the modules behind it.

    Args:
        folder: Where to.
        modules: Each a kind and its configuration.
        family: Of the network.
        settings: config_sentence_transformers.json.
        package: Where the library has its modules; newer releases have moved them.
        path: Of the network in the folder.
    """
    write_folder(shallow(FAMILIES[family]), folder / path)
    listed = [{"idx": 0, "name": "0", "path": path, "type": f"{package}.Transformer"}]
    torch.manual_seed(1)
    for place, (kind, config) in enumerate(modules, start=1):
        own = folder / f"{place}_{kind}"
        own.mkdir()
        listed.append({"idx": place, "name": str(place), "path": own.name, "type": f"{package}.{kind}"})
        if config:
            (own / "config.json").write_text(json.dumps(config))
        if kind == "Dense":
            save_file(_dense_weights(config), own / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(listed))
    if settings is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def _dense_weights(config: Mapping[str, Any]) -> dict[str, Tensor]:
    takes, gives = config["in_features"], config["out_features"]
    weights = {"linear.weight": torch.randn(gives, takes) / 4}
    if config["bias"]:
        weights["linear.bias"] = torch.randn(gives)
    if config.get("use_residual") and takes != gives:
        weights["residual.weight"] = torch.randn(gives, takes) / 4
    return weights


def run_rows(source: Source, lengths: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
    """Run a padded batch of random texts; returns the outputs, and the mask."""
    longest = max(lengths)
    feed = pad(source.traits.example(len(lengths), {"seq_len": longest}), source.traits, lengths)
    assert source.network is not None
    with torch.inference_mode():
        outputs = source.network(*map(torch.from_numpy, feed.values()))
    return outputs, torch.arange(longest)[None] < torch.tensor(lengths)[:, None]


def read_written(folder: Path, *modules: Module, **how: Any) -> Source:
    """Write a folder and read it."""
    return load_folder(write_sentence_folder(folder, *modules, **how))
