"""How the server must preprocess images for a network, as preprocessor_config.json says it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from artifact.contract import ImageContract
from model.checkpoint import CheckpointError, read_json

# The statistics of ImageNet that DINOv2 and most vision transformers were trained with.
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_GREY = {"image_mean": (0.5,), "image_std": (0.5,)}
PREPROCESSOR_FILE = "preprocessor_config.json"
_RESCALE_FACTOR = 1 / 255
# Pillow's numbers for resampling filters, as preprocessor_config.json writes them.
_RESAMPLE: dict[int, Literal["lanczos", "bilinear", "bicubic"]] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


def image_contract(folder: Path, config: dict[str, Any], image_size: int | None) -> ImageContract:
    """Read preprocessor_config.json; without one, crop to the network's size with ImageNet's statistics."""
    given = _preprocessor(folder, config)
    crops = bool(given["do_center_crop"])
    shorter = _shorter_edge(given["size"], crops=crops)
    crop = _edge(given["crop_size"] if crops else given["size"])
    wanted = image_size or crop
    if wanted % int(config["patch_size"]):
        raise CheckpointError(f"image size: {wanted}; expected a multiple of the patch size {config['patch_size']}")
    return ImageContract(
        mode="RGB" if int(config.get("num_channels", 3)) == 3 else "L",
        resize_shorter_edge=shorter and round(shorter * wanted / crop),
        crop_size=wanted,
        resample=_RESAMPLE.get(int(given["resample"]), "bicubic"),
        mean=_in_shares(given["image_mean"], given),
        std=_in_shares(given["image_std"], given),
    )


def image_edge(folder: Path, config: dict[str, Any]) -> int:
    """Edge in pixels of the images that a folder's preprocessing gives."""
    given = _preprocessor(folder, config)
    return _edge(given["crop_size"] if given["do_center_crop"] else given["size"])


def _preprocessor(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Complete what preprocessor_config.json leaves out as the family's own processor does."""
    file = folder / PREPROCESSOR_FILE
    colours = _IMAGENET if int(config.get("num_channels", 3)) == 3 else _GREY
    edge = int(config["image_size"])
    if not file.is_file():
        return {"size": {"shortest_edge": edge}, "do_center_crop": True, "crop_size": edge, "resample": 3, **colours}
    given = read_json(file)
    for step, expected in (("do_resize", True), ("rescale_offset", False)):
        if bool(given.get(step, expected)) is not expected:
            raise CheckpointError(f"{file}: {step}: {given[step]}; expected {expected}")
    if not given.get("do_normalize", True):
        given |= {"image_mean": [0.0] * len(colours["image_mean"]), "image_std": [1.0] * len(colours["image_std"])}
    given["rescale_factor"] = given.get("rescale_factor", _RESCALE_FACTOR) if given.get("do_rescale", True) else 1
    processor = given.get("image_processor_type") or given.get("feature_extractor_type") or config["model_type"]
    is_vit = str(processor).lower().startswith("vit")  # ViT's own resizes bilinearly and does not crop
    defaults = {"size": edge, "crop_size": edge, "resample": 2 if is_vit else 3, **(_HALF if is_vit else colours)}
    return defaults | {"do_center_crop": "crop_size" in given and not is_vit} | given


def _in_shares(values: Sequence[float], given: dict[str, Any]) -> tuple[float, ...]:
    """Turn statistics of pixels times rescale_factor into those of pixels from 0 to 1, as the server has them."""
    share = _RESCALE_FACTOR / given.get("rescale_factor", _RESCALE_FACTOR)
    return tuple(float(value) * share for value in values)


def _shorter_edge(size: object, *, crops: bool) -> int | None:
    """Return the shorter edge that images are resized to, or None where both edges are resized to one size."""
    if isinstance(size, dict):
        return int(size["shortest_edge"]) if "shortest_edge" in size else None
    return _edge(size) if crops else None


def _edge(size: object) -> int:
    """Read a size as Hugging Face writes it: a number, or an object with equal height and width."""
    if isinstance(size, dict):
        edges = {int(size[name]) for name in ("height", "width", "shortest_edge") if name in size}
        if len(edges) == 1:
            return edges.pop()
    elif isinstance(size, int):
        return size
    raise CheckpointError(f"preprocessor_config.json: size {size!r}; expected a number, or equal height and width")
