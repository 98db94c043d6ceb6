"""Trains the embedded default, a small vision transformer on Fashion-MNIST: `python -m training.fashion`.

The recipe: AdamW with a one-cycle learning rate, shifted and mirrored images, label smoothing. After each epoch the
run's state lies under --runs, and the same command goes on from there.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from model.checkpoint import save_network
from model.encoder import EncoderConfig
from model.vit import VisionTransformer, ViTConfig
from training.fashion_mnist import LABELS, Split, normalize, preprocessing, read_split, share_right

CONFIG = ViTConfig(
    EncoderConfig(embed_dim=64, num_layers=4, num_heads=4, mlp_dim=256, dropout=0.05),
    image_size=28,
    patch_size=4,
    num_channels=1,
    num_classes=len(LABELS),
)

PREPROCESSING = preprocessing(CONFIG.image_size)


@dataclass(frozen=True)
class Recipe:
    """How to train; everything that changes the result."""

    epochs: int = 24
    batch_size: int = 256
    peak_learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    max_shift_pixels: int = 2
    seed: int = 0


def main() -> None:
    """Train, print the accuracy, write weights and recipe."""
    parser = argparse.ArgumentParser(prog="python -m training.fashion", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="folder of IDX files"
    )
    parser.add_argument("--out", type=Path, default=Path("model/weights/fashion"), help="where the weights go")
    parser.add_argument("--runs", type=Path, default=Path("runs/fashion"), help="where an unfinished run is kept")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    args = parser.parse_args()
    recipe = Recipe(epochs=args.epochs, seed=args.seed)
    console = Console()
    try:
        train, test = read_split(args.data, "train"), read_split(args.data, "t10k")
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    network = fit(recipe, train, test, args.runs, console)
    share = accuracy(network, test)
    console.print(f"accuracy on the {len(test.classes):,} test images: {share:.2%}")
    save_network(network, args.out, LABELS)
    (args.out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING, indent=2) + "\n")
    report = {"accuracy": share, "test_images": len(test.classes), "recipe": vars(recipe)}
    (args.out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written to {args.out}")


def fit(recipe: Recipe, train: Split, test: Split, runs: Path, console: Console) -> VisionTransformer:
    """Train a network, starting from the state under runs where there is one."""
    torch.manual_seed(recipe.seed)
    network = VisionTransformer(CONFIG)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay)
    steps_per_epoch = -(-len(train.classes) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_learning_rate, epochs=recipe.epochs, steps_per_epoch=steps_per_epoch
    )
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    state_file = runs / f"{recipe.epochs}-epochs-seed-{recipe.seed}.pt"
    first_epoch = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])  # type: ignore[attr-defined]
        first_epoch = state["epochs_done"]
        console.print(f"going on after epoch {first_epoch} from {state_file}")
    with Progress(console=console) as progress:
        for epoch in range(first_epoch, recipe.epochs):
            run_epoch(network, optimizer, schedule, train, recipe, epoch, progress)
            progress.console.print(f"epoch {epoch + 1}/{recipe.epochs}: test accuracy {accuracy(network, test):.2%}")
            runs.mkdir(parents=True, exist_ok=True)
            state = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
            torch.save(state | {"epochs_done": epoch + 1}, state_file)
    return network


def run_epoch(
    network: VisionTransformer,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
    train: Split,
    recipe: Recipe,
    epoch: int,
    progress: Progress,
) -> None:
    """Go once through the training images in an order that follows from seed and epoch alone."""
    torch.manual_seed(recipe.seed * 10_000 + epoch)
    network.train()
    batches = torch.randperm(len(train.classes)).split(recipe.batch_size)
    for batch in progress.track(batches, description=f"epoch {epoch + 1}/{recipe.epochs}"):
        images = augment(normalize(train.images[batch]), recipe.max_shift_pixels)
        loss = functional.cross_entropy(
            network(images)["logits"], train.classes[batch], label_smoothing=recipe.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def augment(images: Tensor, max_shift_pixels: int) -> Tensor:
    """Mirror each image with probability 1/2 and shift it by up to max_shift_pixels; float [B, 1, H, W]."""
    batch, _, height, width = images.shape
    mirrored = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, images.flip(-1), images)
    padded = functional.pad(mirrored, [max_shift_pixels] * 4, value=float(images.min()))
    rows = torch.randint(2 * max_shift_pixels + 1, (batch, 1)) + torch.arange(height)  # [B, H]
    cols = torch.randint(2 * max_shift_pixels + 1, (batch, 1)) + torch.arange(width)  # [B, W]
    return padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def accuracy(network: VisionTransformer, split: Split) -> float:
    """Share of the images whose most probable class is the right one, in [0, 1]."""
    network.eval()
    return share_right(lambda images: network(normalize(images))["logits"], split)


if __name__ == "__main__":
    main()
