"""Trains a very small Swin on Fashion-MNIST, for pictures of attention in windows: `python -m training.swin`.

The transformers library's network and folder layout: 8 x 8 cells of 4 pixels in windows of 4 x 4, the second layer
shifted by 2; then 4 x 4 cells, all in one window. A few minutes on two cores.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional
from transformers import SwinConfig, SwinForImageClassification

from training.fashion_mnist import LABELS, Split, normalize, preprocessing, read_split, share_right

_EDGE = 32  # pixels; the images' 28 do not divide into windows
PREPROCESSING = {"image_processor_type": "ViTImageProcessor", **preprocessing(_EDGE)}


@dataclass(frozen=True)
class Recipe:
    """How to train; everything that changes the result."""

    images: int = 60_000
    batch_size: int = 128
    peak_learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0


def make_network(seed: int) -> SwinForImageClassification:
    """Make it with weights from a seed."""
    torch.manual_seed(seed)
    config = SwinConfig(
        image_size=_EDGE,
        patch_size=4,
        num_channels=1,
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        mlp_ratio=2.0,
        id2label=dict(enumerate(LABELS)),
        label2id={name: place for place, name in enumerate(LABELS)},
    )
    return SwinForImageClassification(config)


def enlarge(images: Tensor) -> Tensor:
    """Bring images, uint8 [B, 1, 28, 28], to what the network takes, float32 [B, 1, 32, 32]."""
    return functional.interpolate(normalize(images), (_EDGE, _EDGE), mode="bilinear", align_corners=False)


def fit(recipe: Recipe, train: Split, console: Console) -> SwinForImageClassification:
    """Go once through so many images, in an order from the seed."""
    network = make_network(recipe.seed)
    network.train()
    order = torch.randperm(len(train.classes))[: recipe.images].split(recipe.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_learning_rate, total_steps=len(order))
    for step, places in enumerate(order):
        logits = network(enlarge(train.images[places])).logits
        loss = functional.cross_entropy(logits, train.classes[places], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            console.print(f"batch {step} of {len(order)}: loss {loss.item():.3f}")
    network.eval()  # type: ignore[no-untyped-call]
    return network


def accuracy(network: SwinForImageClassification, split: Split) -> float:
    """Return the share of images that are named right."""
    return share_right(lambda images: network(enlarge(images)).logits, split)


def save(network: SwinForImageClassification, folder: Path) -> None:
    """Write a folder that the exporter reads."""
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING, indent=2) + "\n")


def main() -> None:
    """Train, print the accuracy, write a folder that the exporter reads."""
    parser = argparse.ArgumentParser(prog="python -m training.swin", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="folder of IDX files"
    )
    parser.add_argument("--out", type=Path, default=Path("downloads/swin-fashion"), help="where the weights go")
    parser.add_argument("--images", type=int, default=Recipe.images, help="how many are learned from")
    args = parser.parse_args()
    console, recipe = Console(), Recipe(images=args.images)
    try:
        train, test = read_split(args.data, "train"), read_split(args.data, "t10k")
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    network = fit(recipe, train, console)
    console.print(f"accuracy on the {len(test.classes):,} test images: {accuracy(network, test):.2%}")
    save(network, args.out)
    console.print(f"written to {args.out}")


if __name__ == "__main__":
    main()
