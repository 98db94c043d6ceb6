"""Reads and writes checkpoint folders: this repository's own, and Hugging Face's of three families."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model import huggingface
from model.decoder import DecoderConfig
from model.encoder import EncoderConfig
from model.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from model.text import TextConfig, TextNetwork
from model.vit import VisionTransformer, ViTConfig

Network = TextNetwork | VisionTransformer
_ENCODER_DECODER = "regard-encoder-decoder"


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be read; the message says what is wrong with which file."""


def load_network(folder: Path, pooling: huggingface.Pooling | None = None) -> Network:
    """Build the network that config.json describes and fill it from model.safetensors.

    Args:
        folder: The checkpoint's.
        pooling: Of a text network in Hugging Face's layout, which does not say; None for the normalised mean.

    Returns:
        The network, in evaluation mode.

    Raises:
        CheckpointError: A file is absent or not readable, the family is unknown, or tensors are missing, unexpected
            or of another shape; all of them are listed.
    """
    config = read_json(folder / "config.json")
    tensors = _read_tensors(folder)
    try:
        if config.get("model_type") in ("regard-text", "regard-vit"):
            network = _own_network(config)
        else:
            network, tensors = huggingface.translate(config, tensors, pooling or huggingface.Pooling())
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    fill(network, tensors, source=str(folder))
    return network.eval()


def save_network(network: Network, folder: Path, labels: Sequence[str] = ()) -> None:
    """Write config.json and model.safetensors in this repository's own layout; labels are the names of the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "regard-text" if isinstance(network, TextNetwork) else "regard-vit"
    config = {"model_type": kind, **dataclasses.asdict(network.config)}
    if labels:
        config["id2label"] = dict(enumerate(labels))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")


def load_encoder_decoder(folder: Path) -> EncoderDecoder:
    """Build the encoder-decoder that config.json describes and fill it from model.safetensors.

    Returns:
        The network, in evaluation mode.

    Raises:
        CheckpointError: As `load_network`.
    """
    config = read_json(folder / "config.json")
    try:
        if config.get("model_type") != _ENCODER_DECODER:
            raise ValueError(f"model_type: {config.get('model_type')!r}; expected {_ENCODER_DECODER!r}")
        fields = {name: value for name, value in config.items() if name not in ("model_type", "vocabulary")}
        fields["encoder"] = EncoderConfig(**fields.get("encoder", {}))
        fields["decoder"] = DecoderConfig(**fields.get("decoder", {}))
        network = EncoderDecoder(EncoderDecoderConfig(**fields))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    fill(network, _read_tensors(folder), source=str(folder))
    return network.eval()


def save_encoder_decoder(network: EncoderDecoder, folder: Path, vocabulary: Sequence[str]) -> None:
    """Write config.json, with the token of each id, and the weights as float16 in model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": _ENCODER_DECODER, **dataclasses.asdict(network.config), "vocabulary": list(vocabulary)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")


def fill(network: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load tensors by this repository's names, all or nothing.

    Raises:
        CheckpointError: Lists every missing and unexpected tensor and every wrong shape.
    """
    expected = network.state_dict()
    faults = [f"missing {name} {list(expected[name].shape)}" for name in sorted(expected.keys() - tensors.keys())]
    faults += [f"unexpected {name} {list(tensors[name].shape)}" for name in sorted(tensors.keys() - expected.keys())]
    faults += [
        f"{name} has shape {list(tensors[name].shape)}, expected {list(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    if faults:
        raise CheckpointError(f"{source}: the tensors do not fit the configuration:\n  " + "\n  ".join(faults))
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is absent or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: not found; expected a checkpoint folder with config.json") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected an object")
    return content


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: not found; expected the weights as a single safetensors file")
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own untyped SafetensorError
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error


def _own_network(config: dict[str, Any]) -> Network:
    fields = {name: value for name, value in config.items() if name not in ("model_type", "id2label")}
    fields["encoder"] = EncoderConfig(**fields.get("encoder", {}))
    if config["model_type"] == "regard-text":
        return TextNetwork(TextConfig(**fields))
    return VisionTransformer(ViTConfig(**fields))
