"""Models that read pairs of texts, and what ONNX Runtime alone gives for a pair."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from server.config import EMBEDDED_MODELS
from tests.golden import CROSS_ENCODERS, GOLDEN_MODELS, GOLDEN_PAIRS

PAIR = ("the dog sat on the mat", "a dog is on a mat")
QUERY = "a very good dog"
DOCUMENTS = ["the cat sat", "one bad film", "the dog ran on and on to see the cat", "a dog", "one bad film"]


def link_models(folder: Path) -> Path:
    """Put into a folder models that read pairs, one that reads single texts, and one of images."""
    for name in CROSS_ENCODERS:
        (folder / name).symlink_to(GOLDEN_PAIRS / name)
    (folder / "tiny-text").symlink_to(GOLDEN_MODELS / "tiny-text")
    (folder / "fashion").symlink_to(EMBEDDED_MODELS / "fashion")
    return folder


def encode(model: str, first: str, second: str) -> Any:
    """Two texts as the tokenizers library joins them."""
    return Tokenizer.from_file(str(GOLDEN_PAIRS / model / "1" / "tokenizer.json")).encode(first, second)


def feed_of(model: str, first: str, second: str) -> dict[str, NDArray[np.int64]]:
    """A pair as arrays."""
    found = encode(model, first, second)
    named = {"input_ids": found.ids, "attention_mask": [1] * len(found.ids), "token_type_ids": found.type_ids}
    return {name: np.array([numbers]) for name, numbers in named.items()}


def run_pair(model: str, first: str, second: str) -> dict[str, NDArray[np.float32]]:
    """Everything that ONNX Runtime alone gives for a pair."""
    session = onnxruntime.InferenceSession(GOLDEN_PAIRS / model / "1" / "attention.onnx")
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed_of(model, first, second)), strict=True))
