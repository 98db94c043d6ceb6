"""The inputs that are explained: what is sent, as tensors too, and which parts of it may be masked."""

import csv
import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.contract import Contract
from artifact.images import ImageLimits, read_image
from export.known import SENTIMENT_LABELS
from regard import AttentionRequest, Classification, Client, PatchGrid, RegardError
from regard.options import ClassifyOptions
from training.fashion_mnist import LABELS, read_split
from training.sentiment import HELD_OUT_EVERY, read_reviews

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True, eq=False)
class Given:
    """An input as it comes.

    Attributes:
        source: A text, or an image file's bytes.
        truth: Its label.
        mask: Of an image: where the object is, uint8 [height, width], above 0; None where nothing says it.
    """

    source: str | bytes
    truth: str
    mask: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """An input that the server has answered.

    Attributes:
        given: As it came.
        label: What is explained: the index of the most probable label.
        truth: Index of the right one.
        tensor: What the network gets: pixels float32 [C, H, W], normalised, or tokens int64 [N].
        parts: Positions that may be masked: patches, or tokens that are not special.
        inside: Of each part, which share belongs to the object, in [0, 1]; None where nothing says it.
    """

    given: Given
    label: int
    truth: int
    tensor: NDArray[np.float32] | NDArray[np.int64]
    parts: NDArray[np.intp]
    inside: NDArray[np.float64] | None


def read_fashion(folder: Path, count: int) -> list[Given]:
    """The first test images of Fashion-MNIST (Xiao et al. 2017) as PNG; clothes lie on a black ground: their mask.

    Raises:
        FileNotFoundError: With the way to get the files.
    """
    split = read_split(folder, "t10k")
    images, classes = split.images[:count, 0].numpy(), split.classes[:count].tolist()
    return [Given(_png(image), LABELS[label], image) for image, label in zip(images, classes, strict=True)]


def read_texts(archive: Path, count: int) -> list[Given]:
    """The first of the snippets that training.sentiment holds out.

    Raises:
        OSError: There is no such archive.
        tarfile.TarError: It is none.
    """
    try:
        texts, classes = read_reviews(archive)
    except KeyError as error:
        raise tarfile.TarError(f"{archive}: {error}; expected that of vaderSentiment") from error
    held_out = list(zip(texts, classes, strict=True))[::HELD_OUT_EVERY]
    return [Given(text, SENTIMENT_LABELS[label]) for text, label in held_out[:count]]


def read_images(
    folder: Path, labels: Path | None, masks: Path | None, count: int, boxes: Path | None = None
) -> list[Given]:
    """Images in a folder for each class, as ImageNet's; as many of each class as it takes.

    Args:
        folder: Has a folder for each class.
        labels: A line for each class: its folder's name, a blank, the model's label; None where they are the same.
        masks: Has PNG files under the same names; above 0 is the object.
        count: How many images.
        boxes: In place of masks a CSV file: read_boxes.

    Raises:
        ValueError: There is none, a folder has no label, or a line of boxes is none.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    named = dict(line.split(None, 1) for line in labels.read_text().splitlines() if line.strip()) if labels else {}
    if unknown := [one.name for one in folders if named and one.name not in named]:
        raise ValueError(f"--labels: no line begins with {unknown[0]!r}; expected one for each folder of {folder}")
    files = list(
        _in_turn([sorted(path for path in one.iterdir() if path.suffix.lower() in _SUFFIXES) for one in folders])
    )
    if not files:
        raise ValueError(f"--images: {folder}: expected a folder for each class, with images in it")
    known = read_boxes(boxes) if boxes else {}
    found = []
    for file in files[:count]:
        mask = masks / file.parent.name / f"{file.stem}.png" if masks else None
        shown = np.asarray(Image.open(mask).convert("L")) if mask and mask.is_file() else None
        if inside := known.get(f"{file.parent.name}/{file.name}"):
            with Image.open(file) as image:
                width, height = image.size
            shown = np.zeros((height, width), dtype=np.uint8)
            for left, top, right, bottom in inside:
                shown[top:bottom, left:right] = 1
        found.append(Given(file.read_bytes(), named.get(file.parent.name, file.parent.name).strip(), shown))
    return found


def read_boxes(file: Path) -> dict[str, list[tuple[int, int, int, int]]]:
    """Boxes around objects: by image, as folder/name, the left, top, right and bottom edge in pixels.

    Args:
        file: CSV with the columns file, left, top, right, bottom; a line for each box.

    Raises:
        ValueError: A line has no such box.
    """
    found: dict[str, list[tuple[int, int, int, int]]] = {}
    with file.open(newline="") as lines:
        reader = csv.DictReader(lines)
        for line in reader:
            try:
                left, top, right, bottom = (int(line[side]) for side in ("left", "top", "right", "bottom"))
                if not (0 <= left < right and 0 <= top < bottom):
                    raise ValueError(line)
                found.setdefault(line["file"], []).append((left, top, right, bottom))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"--boxes: line {reader.line_num} of {file}: {list(line.values())}; expected "
                    "file,left,top,right,bottom in the heading and pixels here, left < right and top < bottom"
                ) from error
    return found


def prepare(client: Client, contract: Contract, given: Sequence[Given]) -> list[Row]:
    """Ask for each input's label, and read it as the server does.

    Raises:
        ValueError: An input's label is none of the model's.
        RegardError: The server refuses an input.
    """
    if unknown := sorted({one.truth for one in given} - set(contract.labels)):
        raise ValueError(
            f"--labels: {unknown[0]!r}; expected one of the {len(contract.labels)} labels of {contract.name}"
        )
    sources = [one.source for one in given]
    answers = classify(
        client, sources, model=contract.name, top_k=1, attention=AttentionRequest(layers=(-1,), heads=(0,))
    )
    return [_row(contract, one, answer) for one, answer in zip(given, answers, strict=True)]


def classify(
    client: Client, sources: Sequence[str | bytes], **options: Unpack[ClassifyOptions]
) -> list[Classification]:
    """Answer texts or images, all of one kind, in calls of as many as suit the server."""
    if all(isinstance(one, bytes) for one in sources):
        answers = client.classify_many(images=(one for one in sources if isinstance(one, bytes)), **options)
    else:
        answers = client.classify_many(texts=(one for one in sources if isinstance(one, str)), **options)
    return [answer if isinstance(answer, Classification) else _raise(answer) for answer in answers]


def _raise(error: RegardError) -> Classification:
    raise error


def _row(contract: Contract, given: Given, answer: Classification) -> Row:
    label, truth = contract.labels.index(answer.labels[0].name), contract.labels.index(given.truth)
    attention = answer.attention
    assert attention is not None  # noqa: S101 -- asked for
    if attention.tokens is not None:
        ids = np.array([token.id for token in attention.tokens], dtype=np.int64)
        parts = np.array([place for place, token in enumerate(attention.tokens) if not token.special])
        return Row(given, label, truth, ids, parts, None)
    assert contract.image and attention.patches and isinstance(given.source, bytes)  # noqa: S101 -- not a text
    grid = attention.patches
    parts = grid.prefix_tokens + np.arange(grid.rows * grid.cols)
    pixels = read_image(given.source, contract.image, ImageLimits()).values
    return Row(given, label, truth, pixels, parts, None if given.mask is None else _inside(given.mask, grid))


def _inside(mask: NDArray[np.uint8], grid: PatchGrid) -> NDArray[np.float64]:
    """Which share of each patch lies on the object; a mask of another size than the image is stretched to it."""
    assert grid.box and grid.image_width and grid.image_height  # noqa: S101 -- of an answer
    whole = Image.fromarray((mask > 0).astype(np.float32)).resize((grid.image_width, grid.image_height))
    seen = whole.crop((round(grid.box.left), round(grid.box.top), round(grid.box.right), round(grid.box.bottom)))
    size = (grid.cols, grid.rows)
    return np.asarray(seen.resize(size, Image.Resampling.BOX), dtype=np.float64).ravel()


def _png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _in_turn(lists: Sequence[Sequence[Path]]) -> Iterator[Path]:
    """The first of each, then the second of each, and so on."""
    for place in range(max(map(len, lists), default=0)):
        yield from (files[place] for files in lists if place < len(files))
