"""The vision transformer (Dosovitskiy et al. 2021), with what DINOv2 (Oquab et al. 2023) adds."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention import Attend, explained_attention, fused_attention
from model.encoder import Encoder, EncoderConfig


@dataclass(frozen=True)
class ViTConfig:
    """Shape of a vision transformer.

    Attributes:
        encoder: Its encoder; positions are learned here, so `encoder.positions` is "none".
        image_size: Edge in pixels of the square images that the positions were learned for.
        patch_size: Edge in pixels of a patch; divides image_size.
        num_channels: 3 for colour, 1 for grey.
        vit_pooler: Whether there is ViT's pooler, tanh(W cls + b).
        num_classes: Classes of the classifier; 0 for none.
        classify_from: What the classifier reads: the class token, or that and the mean of the patches (DINOv2).
    """

    encoder: EncoderConfig
    image_size: int
    patch_size: int
    num_channels: int = 3
    vit_pooler: bool = False
    num_classes: int = 0
    classify_from: Literal["cls", "cls_and_mean"] = "cls"


class VisionTransformer(nn.Module):
    """Reads pixels as a sequence of patches behind a class token."""

    input_names = ("pixel_values",)

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width, grid = config.encoder.embed_dim, config.image_size // config.patch_size
        self.config = config
        self.patches = nn.Conv2d(config.num_channels, width, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + grid * grid, width) * 0.02)
        self.encoder = Encoder(config.encoder)
        self.pooler = nn.Linear(width, width) if config.vit_pooler else None
        features = 2 * width if config.classify_from == "cls_and_mean" else width
        self.classifier = nn.Linear(features, config.num_classes) if config.num_classes else None

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Run with fused attention.

        Args:
            pixel_values: Float [B, channels, height, width], normalised; height and width multiples of patch_size.

        Returns:
            "last_hidden_state" float [B, 1 + patches, D]; "embedding" float [B, D], the class token's last state;
            with ViT's pooler, "pooler_output" float [B, D]; with a classifier, "logits" float [B, C].
        """
        return self._run(pixel_values, fused_attention)[0]

    def explain(self, pixel_values: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Run with eager attention; return also each layer's weights, float [B, H, 1 + patches, 1 + patches]."""
        outputs, attentions, _ = self._run(pixel_values, explained_attention)
        return outputs, attentions

    def show_states(self, pixel_values: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Run with fused attention; return also the hidden states, each float [B, 1 + patches, D].

        They are what enters the first layer, and what leaves each, before the last norm.
        """
        outputs, _, states = self._run(pixel_values, fused_attention)
        return outputs, states

    def _run(self, pixel_values: Tensor, attend: Attend) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        x = self.patches(pixel_values)  # [B, D, rows, cols]
        positions = interpolate_positions(self.positions, x.shape[-2], x.shape[-1])
        x = x.flatten(2).transpose(1, 2)  # [B, patches, D]
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + positions
        hidden, attentions, states = self.encoder(x, None, attend)
        return self._heads(hidden), attentions, states

    def _heads(self, hidden: Tensor) -> dict[str, Tensor]:
        cls = hidden[:, 0]
        outputs = {"last_hidden_state": hidden, "embedding": cls}
        if self.pooler is not None:
            outputs["pooler_output"] = torch.tanh(self.pooler(cls))
        if self.classifier is not None:
            both = self.config.classify_from == "cls_and_mean"
            outputs["logits"] = self.classifier(torch.cat([cls, hidden[:, 1:].mean(dim=1)], dim=-1) if both else cls)
        return outputs


def interpolate_positions(positions: Tensor, rows: int, cols: int) -> Tensor:
    """Fit a learned position table to another grid, bicubic (Dosovitskiy et al. 2021, section 3.2).

    Args:
        positions: Float [1, 1 + grid * grid, D]; the first belongs to the class token and stays as it is.
        rows: Patches in a column of the new grid.
        cols: Patches in a row of the new grid.

    Returns:
        Float [1, 1 + rows * cols, D]; the same tensor where the grid is the same.
    """
    cls, patches = positions[:, :1], positions[:, 1:]
    grid = round(patches.shape[1] ** 0.5)
    if (rows, cols) == (grid, grid):
        return positions
    square = patches.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)  # [1, D, grid, grid]
    fitted = functional.interpolate(square, size=(rows, cols), mode="bicubic", align_corners=False)
    return torch.cat([cls, fitted.flatten(2).transpose(1, 2)], dim=1)
