"""Reads Fashion-MNIST (Xiao et al. 2017) from its IDX files."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# https://github.com/zalandoresearch/fashion-mnist#labels
LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# Mean and standard deviation of the 60,000 training images' pixels, scaled to [0, 1].
PIXEL_MEAN, PIXEL_STD = 0.2860, 0.3530


@dataclass(frozen=True)
class Split:
    """Images, uint8 [B, 1, 28, 28], and their classes, int64 [B]."""

    images: Tensor
    classes: Tensor


def read_split(folder: Path, name: str) -> Split:
    """Read "train" (60,000 images) or "t10k" (10,000).

    Raises:
        FileNotFoundError: With the way to get the files.
        ValueError: A file is not an IDX file of bytes.
    """
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
    classes = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
    return Split(images[:, None], classes.long())


def read_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of bytes: 0 0 8 ndim, ndim big-endian uint32 sizes, then the elements."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; install the Debian package dataset-fashion-mnist or give --data")
    with gzip.open(path) as file:
        content = file.read()
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: starts with {content[:4].hex()}; expected an IDX file of bytes (000008..)")
    ndim = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim)]
    return torch.frombuffer(bytearray(content[4 + 4 * ndim :]), dtype=torch.uint8).reshape(shape)


def preprocessing(edge: int) -> dict[str, object]:
    """Say in Hugging Face's terms how images become what a network of so many pixels takes; resample 2 is bilinear."""
    return {
        "size": {"height": edge, "width": edge},
        "do_center_crop": False,
        "resample": 2,
        "image_mean": [PIXEL_MEAN],
        "image_std": [PIXEL_STD],
    }


@torch.inference_mode()
def share_right(score: Callable[[Tensor], Tensor], split: Split) -> float:
    """Share of the images whose most probable class is the right one, in [0, 1].

    Args:
        score: Gives logits [B, C] of images as they are read.
        split: The images and their classes.
    """
    batches = zip(split.images.split(500), split.classes.split(500), strict=True)
    right = sum(int((score(images).argmax(-1) == classes).sum()) for images, classes in batches)
    return right / len(split.classes)


def normalize(images: Tensor) -> Tensor:
    """Turn uint8 pixels into float32 with the training images' mean 0 and deviation 1."""
    return (images.float() / 255 - PIXEL_MEAN) / PIXEL_STD
