"""How a network of the transformers library makes one vector of a text or an image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from artifact.contract import PatchContract
from export.transformers_checkpoint import Checkpoint
from model.checkpoint import read_json, read_normalize, read_pooling
from model.text import mean_over_tokens

# What a tower that is trained to be compared with another gives for that.
_PROJECTED = ("text_embeds", "image_embeds")
_TEXT_TOWER = "_text_model"
_POOLING_FILE = Path("1_Pooling", "config.json")


@dataclass(frozen=True)
class Pooling:
    """How the vector is made.

    Attributes:
        vector: Takes the library's answer, the last hidden state [B, N, D] and, of texts, the mask [B, N]; returns
            [B, D], or None where states are no sequence.
        normalized: Whether its length is 1.
    """

    vector: Callable[[Any, Tensor, Tensor | None], Tensor | None]
    normalized: bool


def choose_pooling(checkpoint: Checkpoint, folder: Path, patches: PatchContract | None) -> Pooling:
    """Decide how the vector is made.

    Of a text: as the sentence-transformers files of the folder say (mean, class token or last token), else the
    normalised mean over its tokens. Of an image, and of a text tower trained beside an image tower: what is compared
    with the other tower's vector, else what the network's own pooler gives; without a pooler the class token, and
    without that the mean of the patches.

    Args:
        checkpoint: The network.
        folder: Where it lies.
        patches: How patches lie on images.

    Raises:
        CheckpointError: The folder pools in another way.
    """
    is_text = checkpoint.main_input == "input_ids"
    if is_text and not checkpoint.config.model_type.endswith(_TEXT_TOWER):
        return _pooling_of_texts(folder)
    has_cls = is_text or (patches is not None and patches.prefix_tokens > 0)
    names = (*_PROJECTED, "pooler_output") if checkpoint.has_pooler else _PROJECTED

    def vector(answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor | None:
        found: Iterator[Tensor | None] = (getattr(answer, name, None) for name in names)
        pooled = next((one for one in found if one is not None), None)
        if pooled is not None and pooled.ndim == 2:
            return pooled
        if hidden.ndim != 3:
            return None
        return hidden[:, 0] if has_cls else hidden.mean(dim=1)

    return Pooling(vector, normalized=False)


def _pooling_of_texts(folder: Path) -> Pooling:
    mode, normalize = _read(folder)

    def vector(answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
        pooled = _pool(hidden, torch.ones_like(hidden[:, :, 0]) if mask is None else mask, mode)
        return nn.functional.normalize(pooled, dim=-1) if normalize else pooled

    return Pooling(vector, normalized=normalize)


def _read(folder: Path) -> tuple[Literal["mean", "cls", "last"], bool]:
    """Read the folder's way, and whether it normalises; decoders that embed take the last token."""
    file = folder / _POOLING_FILE
    if file.is_file():
        modes = [name for name, value in read_json(file).items() if name.startswith("pooling_mode_") and value]
        if modes == ["pooling_mode_lasttoken"]:
            return "last", read_normalize(folder)
    pooling = read_pooling(folder)
    return pooling.mode, pooling.normalize


def _pool(hidden: Tensor, mask: Tensor, mode: Literal["mean", "cls", "last"]) -> Tensor:
    if mode == "cls":
        return hidden[:, 0]
    if mode == "mean":
        return mean_over_tokens(hidden, mask)
    last = (mask.sum(dim=1, keepdim=True) - 1).to(torch.int64)[:, :, None]  # [B, 1, 1]
    return hidden.gather(1, last.expand(-1, -1, hidden.shape[2]))[:, 0]
