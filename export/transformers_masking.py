"""Lets networks that mask patches at random see them all (ViT-MAE): an answer must not depend on chance."""

from typing import Any

import torch
from torch import Tensor, nn

_SAID = "all patches are seen: none is masked at random, as in training"


def see_all_patches(*networks: nn.Module) -> str:
    """Change networks that mask at random so that they do not; returns a sentence on it, or nothing."""
    masking: list[Any] = [one for network in networks for one in network.modules() if hasattr(one, "random_masking")]
    for module in masking:
        module.random_masking = _mask_nothing
    return _SAID if masking else ""


def _mask_nothing(patches: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return patches [B, N, D] as they are, the mask, which has 1 at what is removed, and the places to restore."""
    del noise
    rows, count = patches.shape[:2]
    return patches, torch.zeros(rows, count), torch.arange(count).expand(rows, count)
