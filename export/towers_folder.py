"""Reads two towers of the transformers library, CLIP and SigLIP: both networks, and what joins their vectors."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from artifact.contract import EmbeddingContract, Origin
from export.sources import Source, load_folder
from model.checkpoint import CheckpointError, read_json
from server.errors import first_line

_GIVES = ("get_text_features", "get_image_features")


@dataclass(frozen=True, eq=False)
class TwoTowers:
    """A network for texts and one for images that were trained to give near vectors of what belongs together.

    Attributes:
        name: The artifact's.
        text: One network.
        image: The other.
        whole: Both as the library has them: the reference.
        logit_scale: As TowersContract has it.
        logit_bias: Likewise.
        activation: Likewise.
        origin: Where both were downloaded from.
    """

    name: str
    text: Source
    image: Source
    whole: Any
    logit_scale: float
    logit_bias: float
    activation: Literal["softmax", "sigmoid"]
    origin: Origin | None = None


def is_two_towers(folder: Path) -> bool:
    """Whether a folder holds a network of two towers as a whole, as its config.json says."""
    file = folder / "config.json"
    content = read_json(file) if file.is_file() else {}
    if not {"text_config", "vision_config"} <= content.keys():
        return False
    import transformers  # it takes seconds that other folders need not spend

    architecture = (content.get("architectures") or [""])[0]
    family = transformers.models.auto.modeling_auto.MODEL_MAPPING_NAMES.get(str(content.get("model_type")))
    factory = getattr(transformers, family, None) if isinstance(family, str) else None
    return architecture in ("", family) and all(hasattr(factory, method) for method in _GIVES)


def load_towers(
    folder: Path, image_size: int | None = None, name: str = "", description: str = "", origin: Origin | None = None
) -> TwoTowers:
    """Read both towers of a folder.

    Raises:
        CheckpointError: It cannot be read, or is no two towers whose vectors are compared by their cosine.
    """
    name = name or folder.resolve().name
    whole = _load_whole(folder)
    scale, bias = (getattr(whole, name, None) for name in ("logit_scale", "logit_bias"))
    if not isinstance(scale, Tensor) or scale.numel() != 1:
        raise CheckpointError(f"{folder}: {whole.config.model_type} has no logit_scale; expected --part vision or text")
    text, image = (
        _joining(load_folder(folder, size, name, description, part), folder)
        for part, size in (("text", None), ("vision", image_size))
    )
    if text.tokenizer_file is None or image.image is None:
        lacks = "tokenizer.json" if text.tokenizer_file is None else "images that lie on a grid of patches"
        raise CheckpointError(f"{folder}: has no {lacks}; expected that, or --part vision or text")
    dims = [one.traits.embedding.dim for one in (text, image) if one.traits.embedding]
    if len(set(dims)) > 1:
        of = f"{whole.config.model_type}'s parts give vectors of {dims[0]} and {dims[1]} numbers"
        raise CheckpointError(f"{folder}: {of}; expected one number, or --part vision or text")
    from export.tokenizer_check import check_as_library  # see is_two_towers

    assumed = "; ".join(filter(None, (text.assumed, check_as_library(folder, text))))
    return TwoTowers(
        name=name,
        text=replace(text, pairs=False, assumed=assumed),
        image=image,
        whole=whole,
        logit_scale=float(scale.detach().exp()),
        logit_bias=0.0 if bias is None else float(bias.detach()),
        activation="softmax" if bias is None else "sigmoid",
        origin=origin,
    )


def _joining(source: Source, folder: Path) -> Source:
    """Let a tower give vectors of the space of both."""
    from export.transformers_pooling import Joined  # see is_two_towers

    network: Any = source.network
    vector = source.traits.embedding
    if vector is None or getattr(network, "pooling", None) is None:
        raise CheckpointError(f"{folder}: {source.family} gives no vector; expected a network whose parts do")
    network.pooling, network.projects = Joined(network.pooling), True
    embedding = EmbeddingContract(output=vector.output, dim=vector.dim, normalized=True, similarity="cosine")
    return replace(source, traits=replace(source.traits, embedding=embedding))


def _load_whole(folder: Path) -> Any:
    import transformers  # see is_two_towers

    from export.transformers_folder import quietly

    try:
        with quietly():
            whole = transformers.AutoModel.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
    except Exception as error:  # the library raises whatever its parts raise
        raise CheckpointError(f"{folder}: {first_line(error)}") from error
    return whole.eval()
