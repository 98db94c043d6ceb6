"""How images are prepared, beside the processors of the transformers library on Pillow, and beside timm's steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from numpy.typing import NDArray
from PIL import Image

from artifact.contract import ImageContract
from artifact.images import ImageLimits, read_image
from export.preprocessing import image_contract, image_edge
from model.checkpoint import CheckpointError
from tests.processes import PHOTOS

PHOTO = PHOTOS / "chelsea.jpg"
CONFIG = {"num_channels": 3, "image_size": 64, "patch_size": 8, "model_type": ""}
HALF = {"image_mean": [0.5, 0.25, 0.5], "image_std": [0.5, 0.4, 0.25]}
SQUARE = {"height": 64, "width": 64}
# By what is special of each: what its class makes where the file leaves it out, and how the file writes sizes.
FILES: dict[str, dict[str, Any]] = {
    "vit, fast": {"image_processor_type": "ViTImageProcessorFast", "size": SQUARE},
    "vit, all left out": {"image_processor_type": "ViTImageProcessor"},
    "vit, old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 64, "resample": 3},
    "vit, not normalised": {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "do_normalize": False},
    "vit, not rescaled": {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "do_rescale": False, **HALF},
    "clip": {"image_processor_type": "CLIPImageProcessor"},
    "clip, old": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 72, "crop_size": 64},
    "clip, cut from more": {
        "image_processor_type": "CLIPImageProcessorFast",
        "size": {"shortest_edge": 80},
        "crop_size": 64,
    },
    "bit, as dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, **HALF},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
    "convnext, crop_pct": {
        "image_processor_type": "ConvNextImageProcessorFast",
        "size": {"shortest_edge": 64},
        "crop_pct": 0.9,
    },
    "convnext, large": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
    "levit": {"image_processor_type": "LevitImageProcessor"},
    "siglip": {"image_processor_type": "SiglipImageProcessor"},
    "deit": {"image_processor_type": "DeiTImageProcessor"},
    "deit, old": {
        "feature_extractor_type": "DeiTFeatureExtractor",
        "size": 80,
        "crop_size": 64,
        "do_center_crop": True,
    },
    "beit": {"image_processor_type": "BeitImageProcessor", "size": SQUARE},
    "beit, old": {
        "feature_extractor_type": "BeitFeatureExtractor",
        "size": 80,
        "crop_size": 64,
        "do_center_crop": True,
    },
    "pvt": {"image_processor_type": "PvtImageProcessor", "size": SQUARE},
    "blip": {"image_processor_type": "BlipImageProcessor", "size": SQUARE},
    "sam": {"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 64}, "pad_size": SQUARE},
    "sam, all left out": {"image_processor_type": "SamImageProcessor"},
}


def write(folder: Path, given: dict[str, Any]) -> Path:
    """Write preprocessor_config.json."""
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    return folder


def pixels(contract: ImageContract, photo: Path = PHOTO) -> NDArray[np.float32]:
    """What the server makes of a photograph."""
    return read_image(photo.read_bytes(), contract, ImageLimits()).values


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_the_librarys_own_processor(name: str, tmp_path: Path) -> None:
    """Of a photograph, whose shape is none of those that the export tries; within 1e-6."""
    folder = write(tmp_path, FILES[name])
    kind = FILES[name].get("image_processor_type") or FILES[name]["feature_extractor_type"]
    pil = kind.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor") + "Pil"
    processor = getattr(transformers, pil).from_pretrained(folder)
    with Image.open(PHOTO) as image:
        wanted = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
    contract = image_contract(folder, CONFIG, None)
    got = pixels(contract)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * max(1.0, float(np.abs(wanted).max())))
    assert image_edge(folder, CONFIG) == contract.crop_size


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [("deit", (None, 256, 224)), ("clip", (224, None, 224)), ("swin", (None, None, 224)), ("dinov2", (224, None, 224))],
)
def test_a_file_without_a_name_means_the_networks_own_processor(
    model_type: str, expected: tuple[int | None, int | None, int], tmp_path: Path
) -> None:
    """As the library takes it."""
    folder = write(tmp_path, {"do_normalize": True})
    contract = image_contract(folder, CONFIG | {"model_type": model_type}, None)
    assert (contract.resize_shorter_edge, contract.resize_edges, contract.crop_size) == expected


def test_another_size_scales_what_is_cut_off(tmp_path: Path) -> None:
    """Both ways to resize."""
    folder = write(tmp_path, FILES["deit"])
    contract = image_contract(folder, CONFIG, 448)
    assert (contract.resize_shorter_edge, contract.resize_edges, contract.crop_size) == (None, 512, 448)
    contract = image_contract(write(tmp_path, FILES["convnext"]), CONFIG, 448)
    assert (contract.resize_shorter_edge, contract.resize_edges, contract.crop_size) == (512, None, 448)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False, "size": {"shortest_edge": 64}},
            r"CLIPImageProcessor makes of 320 x 213 pixels \[3, 64, 96\]; expected \[3, 64, 64\], all the server can",
        ),
        (
            {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 64}, "crop_size": SQUARE},
            "MobileViTImageProcessor makes of 320 x 213 pixels others than the server would: up to 0.36 apart",
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "resample": 0},
            r"preprocessor_config.json: resample: 0; expected 1 \(lanczos\), 2 \(bilinear\), 3 \(bicubic\)",
        ),
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "do_resize: False; expected True"),
        ({"image_processor_type": "ViTImageProcessor", "size": "big"}, "ViTImageProcessor cannot be made: "),
    ],
)
def test_what_the_server_cannot_do_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    """By comparing pixels: whatever a processor does besides, such as turning RGB into BGR, shows there."""
    with pytest.raises(CheckpointError, match=message):
        image_contract(write(tmp_path, given), CONFIG, None)


def by_timm(share: float, *, squash: bool, resample: Image.Resampling) -> NDArray[np.float32]:
    """What timm does to evaluate: resize, cut from the centre, scale, normalise."""
    edge = int(64 / share)
    with Image.open(PHOTO) as image:
        size = (edge, edge) if squash else (edge * image.width // image.height, edge)  # it is wider than high
        resized = image.convert("RGB").resize(size, resample)
    left, top = round((resized.width - 64) / 2), round((resized.height - 64) / 2)
    values = np.asarray(resized.crop((left, top, left + 64, top + 64)), dtype=np.float32) / 255
    return np.asarray((values.transpose(2, 0, 1) - 0.5) / 0.25, dtype=np.float32)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"crop_pct": 0.8}, by_timm(0.8, squash=False, resample=Image.Resampling.BICUBIC)),
        ({"interpolation": "bilinear"}, by_timm(0.875, squash=False, resample=Image.Resampling.BILINEAR)),
        (
            {"crop_pct": 0.8, "crop_mode": "squash", "interpolation": "bicubic"},
            by_timm(0.8, squash=True, resample=Image.Resampling.BICUBIC),
        ),
        ({"crop_pct": 1.0, "crop_mode": "center"}, by_timm(1.0, squash=False, resample=Image.Resampling.BICUBIC)),
    ],
)
def test_a_timm_folder_prepares_images_as_timm_does(
    given: dict[str, Any], expected: NDArray[np.float32], tmp_path: Path
) -> None:
    """By pretrained_cfg in config.json; within 1e-6."""
    shared = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.25] * 3}
    contract = image_contract(tmp_path, CONFIG | {"pretrained_cfg": shared | given}, None)
    np.testing.assert_allclose(pixels(contract), expected, rtol=0, atol=1e-6)
    assert image_edge(tmp_path, CONFIG | {"pretrained_cfg": shared | given}) == 64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_size": [3, 64, 48]}, r"pretrained_cfg\.input_size: \[3, 64, 48\]; expected channels, and one edge"),
        ({"crop_mode": "border"}, r"pretrained_cfg\.crop_mode: border; expected center or squash"),
        ({"interpolation": "random"}, r"pretrained_cfg\.interpolation: random; expected lanczos, bilinear, bicubic"),
    ],
)
def test_what_timm_does_and_the_server_cannot_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    """By name, value and what is possible."""
    with pytest.raises(CheckpointError, match=rf"config\.json: {message}"):
        image_contract(tmp_path, CONFIG | {"pretrained_cfg": {"input_size": [3, 64, 64]} | given}, None)


def test_settings_that_lie_in_another_file_are_not_passed_over(tmp_path: Path) -> None:
    """Newer releases of the library may keep them with the whole processor; the message says how to write them out."""
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"image_mean": [0.5] * 3}}))
    with pytest.raises(CheckpointError, match=r"processor_config\.json: image_processor: is read from preprocessor_co"):
        image_contract(tmp_path, {"image_size": 32, "patch_size": 8, "model_type": "siglip"}, None)
