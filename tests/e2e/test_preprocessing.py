"""The server's preprocessing against Hugging Face's own, on real photographs and sentences: equal to the last bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.contract import ImageContract
from artifact.images import ImageLimits, read_image
from artifact.text import TextReader
from tests.golden import GOLDEN_NETWORK
from tests.processes import PHOTOS

transformers = pytest.importorskip("transformers", reason="a development dependency")
PIL_Image = pytest.importorskip("PIL.Image")

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROCESSORS: dict[str, tuple[Callable[[], Any], ImageContract]] = {
    "ViT": (
        lambda: transformers.ViTImageProcessorPil(
            size={"height": 224, "width": 224}, resample=2, image_mean=HALF, image_std=HALF
        ),
        ImageContract(crop_size=224, resample="bilinear", mean=HALF, std=HALF),
    ),
    "DINOv2": (
        lambda: transformers.BitImageProcessorPil(
            size={"shortest_edge": 256},
            crop_size={"height": 224, "width": 224},
            resample=3,
            image_mean=IMAGENET_MEAN,
            image_std=IMAGENET_STD,
        ),
        ImageContract(resize_shorter_edge=256, crop_size=224, resample="bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD),
    ),
}


@pytest.mark.parametrize("family", PROCESSORS)
@pytest.mark.parametrize("photo", sorted(PHOTOS.glob("*.jpg")), ids=lambda path: path.stem)
def test_pixels_equal_hugging_faces_processor(family: str, photo: Path) -> None:
    """Resize, crop, scale and normalise, exactly."""
    make_processor, contract = PROCESSORS[family]
    with PIL_Image.open(photo) as image:
        expected = make_processor()(image, return_tensors="np")["pixel_values"][0]
    got = read_image(photo.read_bytes(), contract, ImageLimits()).values
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


def test_tokens_equal_hugging_faces_tokenizer(tmp_path: Path) -> None:
    """Ids and the characters they came from, truncated or not."""
    file = GOLDEN_NETWORK / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(file.read_bytes())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    reader = TextReader(file, max_tokens=12)
    for text in ("The cat sat on the mat.", "Ünïcödé, 🙂 and\nnew lines", "very " * 20):
        expected = reference(text, truncation=True, max_length=12, return_offsets_mapping=True)
        tokens = reader.read(text, truncate=True, max_bytes=10_000)
        assert tokens.ids.tolist() == expected["input_ids"]
        assert tokens.offsets == expected["offset_mapping"]
