"""What the transformers library's own processor of a folder makes of images, on Pillow: its settings and its pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifact.contract import ImageContract
from artifact.images import ImageLimits, read_image
from model.checkpoint import CheckpointError

_SHAPES = ((320, 213), (167, 251), (96, 96))  # width and height of images that are tried
_TOLERANCE = 1e-2
_WARPS_FROM = 384  # pixels; ConvNext's processor cuts nothing off larger images
_LEVIT_MARGIN = 256 / 224


def find_processor(folder: Path, given: dict[str, Any], model_type: str) -> Any | None:
    """Make the library's processor for a folder.

    Args:
        folder: With preprocessor_config.json.
        given: The content of that.
        model_type: Of the network, whose own processor is taken where the file names none.

    Returns:
        None where the library has none that works without torchvision.
    """
    from transformers.models.auto import image_processing_auto  # takes seconds

    auto: Any = image_processing_auto
    own = auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    named = given.get("image_processor_type") or given.get("feature_extractor_type") or own.get("pil") or ""
    name = str(named).removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    kind = auto.get_image_processor_class_from_name(f"{name}Pil") if name else None
    try:
        return kind and kind.from_pretrained(folder, local_files_only=True)
    except ImportError:
        return None
    except Exception as error:  # the library raises whatever its parts raise
        raise CheckpointError(f"{folder}: {name} cannot be made: {' '.join(str(error).split())}") from error


def settings_of(processor: Any) -> dict[str, Any]:
    """Return a processor's settings as preprocessor_config.json writes them, none of them left out."""
    names = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_pad")
    settings: dict[str, Any] = {name: bool(getattr(processor, name, False)) for name in names}
    settings |= {name: dict(getattr(processor, name, None) or {}) for name in ("size", "crop_size", "pad_size")}
    for name in ("resample", "rescale_factor", "image_mean", "image_std"):
        if (value := getattr(processor, name, None)) is not None:
            settings[name] = value
    kind, edge = type(processor).__name__, settings["size"].get("shortest_edge")
    if kind.startswith("ConvNext") and edge:
        cut = {"size": {"shortest_edge": int(edge / processor.crop_pct)}, "do_center_crop": True, "crop_size": edge}
        settings |= cut if edge < _WARPS_FROM else {"size": {"height": edge, "width": edge}}
    if kind.startswith("Levit") and edge:
        settings["size"] = {"shortest_edge": int(_LEVIT_MARGIN * edge)}
    return settings


def check_pixels(processor: Any, contract: ImageContract, folder: Path) -> None:
    """Compare what the server will make of images with what the processor makes of them.

    Raises:
        CheckpointError: They differ.
    """
    random, kind = np.random.default_rng(0), type(processor).__name__.removesuffix("Pil")
    for width, height in _SHAPES if contract.mode == "RGB" else ():
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        file = io.BytesIO()
        image.save(file, "PNG")
        got = read_image(file.getvalue(), contract, ImageLimits()).values
        try:
            wanted = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
        except Exception as error:  # the library raises whatever its parts raise
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{folder}: {kind} does not take an image alone: {reason}") from error
        of = f"{kind} makes of {width} x {height} pixels"
        if wanted.shape != got.shape:
            shape = list(got.shape)
            raise CheckpointError(f"{folder}: {of} {list(wanted.shape)}; expected {shape}, all the server can make")
        if (worst := float(np.abs(wanted - got).max())) > _TOLERANCE:
            raise CheckpointError(f"{folder}: {of} others than the server would: up to {worst:.2g} apart")
