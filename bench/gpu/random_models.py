"""Exports networks of standard sizes with random weights, for a machine to which no weights can be brought. A program.

What they answer means nothing; they take as long as with weights that were trained.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from export.build import build
from export.sources import load_folder

_VOCABULARY = 30522  # BERT's
_STD = 0.06  # of weights: with smaller ones all inputs were answered alike


def _bert(hidden: int, layers: int, heads: int) -> Any:
    sizes: dict[str, Any] = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return transformers.BertModel(transformers.BertConfig(**sizes, intermediate_size=4 * hidden))


def _vit(hidden: int, layers: int, heads: int) -> Any:
    sizes: dict[str, Any] = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return transformers.ViTModel(transformers.ViTConfig(**sizes, intermediate_size=4 * hidden), add_pooling_layer=False)


# The small ones first, so that a time that ends too early leaves those.
_NETWORKS: dict[str, Callable[[], Any]] = {
    "random-minilm": lambda: _bert(384, 6, 12),
    "random-vit-s16": lambda: _vit(384, 12, 6),
    "random-bert-base": lambda: _bert(768, 12, 12),
    "random-vit-b16": lambda: _vit(768, 12, 12),
}


def main() -> None:
    """Export all of them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", action="append", choices=_NETWORKS)
    args = parser.parse_args()
    for name in args.network or _NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            build(load_folder(write_folder(Path(scratch), _NETWORKS[name]()), name=name), args.out)
        print(name, flush=True)


def write_folder(folder: Path, network: Any) -> Path:
    """Save a network with random weights, and what preprocesses for it."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=_STD)
    network.save_pretrained(folder)
    if network.config.model_type == "bert":
        spelt = {"[UNK]": 0} | {f"w{token}": token for token in range(1, _VOCABULARY)}
        tokenizer = Tokenizer(models.WordLevel(spelt, unk_token="[UNK]"))  # noqa: S106 -- no secret
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder
    halves = [0.5, 0.5, 0.5]
    size = {"height": network.config.image_size, "width": network.config.image_size}
    told = {"image_processor_type": "ViTImageProcessor", "image_mean": halves, "image_std": halves, "size": size}
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(told | steps))
    return folder


if __name__ == "__main__":
    main()
