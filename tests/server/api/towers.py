"""Models of two towers, and what ONNX Runtime alone gives for a text or a picture of them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from artifact.contract import read_contract
from artifact.images import ImageLimits, read_image
from server.config import EMBEDDED_MODELS
from tests.golden import GOLDEN_MODELS, GOLDEN_TOWERS

TOWERS = ("tiny-clip", "tiny-siglip")
LABELS = ["cat", "very good dog", "mat", "film"]
TEMPLATES = {"tiny-clip": "a photo of a {}.", "tiny-siglip": "This is a photo of {}."}
SCALE, SIGLIP_BIAS = float(np.exp(2.0)), -1.5
FILLED = 32  # tokens of every text of tiny-siglip

Arrays = dict[str, NDArray[Any]]


def link_models(folder: Path) -> Path:
    """Put into a folder both models of two towers, one that reads texts, and one of images."""
    for name in TOWERS:
        (folder / name).symlink_to(GOLDEN_TOWERS / name)
    (folder / "tiny-text").symlink_to(GOLDEN_MODELS / "tiny-text")
    (folder / "fashion").symlink_to(EMBEDDED_MODELS / "fashion")
    return folder


def picture(seed: int = 0) -> bytes:
    """A PNG file of noise, wider than high."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def picture_of_a_point() -> bytes:
    """A small file."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    return file.getvalue()


def feed_text(model: str, text: str) -> Arrays:
    """A text as arrays: SigLIP's is filled up, and has no mask."""
    tokenizer = Tokenizer.from_file(str(GOLDEN_TOWERS / model / "1" / "text" / "tokenizer.json"))
    ids = tokenizer.encode(text).ids
    if model == "tiny-siglip":
        return {"input_ids": np.array([ids + [0] * (FILLED - len(ids))])}
    return {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}


def feed_image(model: str, content: bytes) -> Arrays:
    """An image as arrays."""
    contract = read_contract(GOLDEN_TOWERS / model / "1" / "image" / "contract.json")
    assert contract.image
    return {"pixel_values": read_image(content, contract.image, ImageLimits()).values[None]}


def run_text(model: str, text: str, graph: str = "model.onnx") -> Arrays:
    """Everything that a graph of the tower for texts gives."""
    return _run(GOLDEN_TOWERS / model / "1" / "text" / graph, feed_text(model, text))


def run_image(model: str, content: bytes, graph: str = "model.onnx") -> Arrays:
    """Everything that a graph of the tower for images gives."""
    return _run(GOLDEN_TOWERS / model / "1" / "image" / graph, feed_image(model, content))


def scores(model: str, content: bytes, texts: list[str]) -> NDArray[np.float64]:
    """What an image's labels get."""
    image = run_image(model, content)["embedding"][0].astype(np.float64)
    logits = SCALE * np.array([run_text(model, text)["embedding"][0] @ image for text in texts])
    if model == "tiny-siglip":
        return np.asarray(1 / (1 + np.exp(-(logits + SIGLIP_BIAS))))
    return np.asarray(np.exp(logits) / np.exp(logits).sum())


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Vectors at length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _run(graph: Path, feed: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(graph)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))
