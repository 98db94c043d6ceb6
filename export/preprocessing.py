"""How the server must preprocess images for a network, as preprocessor_config.json or timm's config.json says it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from artifact.contract import ImageContract
from export.image_processor import check_pixels, find_processor, settings_of
from export.timm_folder import read_timm
from model.checkpoint import CheckpointError, read_json

# The statistics of ImageNet that DINOv2 and most vision transformers were trained with.
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_GREY = {"image_mean": (0.5,), "image_std": (0.5,)}
PREPROCESSOR_FILE = "preprocessor_config.json"
_WHOLE_PROCESSOR_FILE = "processor_config.json"
_RESCALE_FACTOR = 1 / 255
# Pillow's numbers for resampling filters, as preprocessor_config.json writes them.
_RESAMPLE: dict[int, Literal["lanczos", "bilinear", "bicubic"]] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


def image_contract(folder: Path, config: dict[str, Any], image_size: int | None) -> ImageContract:
    """Read how images are prepared.

    Of a folder of the transformers library as its own processor does it, with which the result is compared; of one of
    timm as pretrained_cfg says; where nothing says anything, cut to the network's size with ImageNet's statistics.

    Args:
        folder: With preprocessor_config.json, or without.
        config: The content of config.json, with image_size, patch_size and model_type.
        image_size: Edge in pixels, where it is to be another than the folder's own.

    Raises:
        CheckpointError: It cannot be done so by the server.
    """
    own, processor = _read_own(folder, config)
    if processor is not None:
        check_pixels(processor, own, folder)
    wanted = image_size or own.crop_size
    if wanted % int(config["patch_size"]):
        raise CheckpointError(f"image size: {wanted}; expected a multiple of the patch size {config['patch_size']}")
    edges = {"resize_shorter_edge": own.resize_shorter_edge, "resize_edges": own.resize_edges}
    scaled = {name: edge and round(edge * wanted / own.crop_size) for name, edge in edges.items()}
    return own.model_copy(update={"crop_size": wanted, **scaled})


def image_edge(folder: Path, config: dict[str, Any]) -> int:
    """Edge in pixels of the images that a folder's preprocessing gives."""
    return _read_own(folder, config)[0].crop_size


def _read_own(folder: Path, config: dict[str, Any]) -> tuple[ImageContract, Any | None]:
    """Read how images are prepared, at the size that the folder says; and the library's processor, if there is one."""
    file, whole = folder / PREPROCESSOR_FILE, folder / _WHOLE_PROCESSOR_FILE
    given = read_json(file) if file.is_file() else {}
    if not given and whole.is_file() and "image_processor" in read_json(whole):
        save = "AutoImageProcessor.from_pretrained(DIR).save_pretrained(DIR) of transformers writes that"
        raise CheckpointError(f"{whole}: image_processor: is read from {PREPROCESSOR_FILE} alone; {save}")
    processor = find_processor(folder, given, str(config["model_type"])) if given else None
    if processor is not None:
        return _contract(file, _complete(file, settings_of(processor), config), config), processor
    if not given and config.get("pretrained_cfg"):
        return _contract(folder / "config.json", read_timm(folder, config["pretrained_cfg"]), config), None
    return _contract(file, _complete(file, given, config), config), None


def _contract(file: Path, given: dict[str, Any], config: dict[str, Any]) -> ImageContract:
    pads = _pads(given)
    crops, size = bool(given["do_center_crop"]), given["pad_size"] if pads else given["size"]
    crop = _edge(file, given["crop_size"] if crops else size)
    if int(given["resample"]) not in _RESAMPLE:
        known = ", ".join(f"{number} ({name})" for number, name in _RESAMPLE.items())
        raise CheckpointError(f"{file}: resample: {given['resample']}; expected {known}")
    is_square = isinstance(size, dict) and "shortest_edge" not in size
    edges = _edge(file, size) if is_square else crop
    return ImageContract(
        mode="RGB" if int(config.get("num_channels", 3)) == 3 else "L",
        resize_shorter_edge=_shorter_edge(file, size, crops=crops),
        resize_edges=edges if edges != crop else None,
        crop_size=crop,
        resample=_RESAMPLE[int(given["resample"])],
        mean=_in_shares(given["image_mean"], given),
        std=_in_shares(given["image_std"], given),
        pad=pads,
    )


def _pads(given: dict[str, Any]) -> bool:
    """Whether the longer edge is resized to that of a square, which is then filled up."""
    size, square = given["size"], given.get("pad_size")
    if not given.get("do_pad") or not isinstance(size, dict) or "longest_edge" not in size or not square:
        return False
    return bool({size["longest_edge"]} == {square["height"], square["width"]})


def _complete(file: Path, given: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Complete what preprocessor_config.json leaves out as the family's own processor does."""
    colours = _IMAGENET if int(config.get("num_channels", 3)) == 3 else _GREY
    edge = int(config["image_size"])
    if not file.is_file():
        return {"size": {"shortest_edge": edge}, "do_center_crop": True, "crop_size": edge, "resample": 3, **colours}
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


def _shorter_edge(file: Path, size: object, *, crops: bool) -> int | None:
    """Return the shorter edge that images are resized to, or None where both edges are resized to one size."""
    if isinstance(size, dict):
        return int(size["shortest_edge"]) if "shortest_edge" in size else None
    return _edge(file, size) if crops else None


def _edge(file: Path, size: object) -> int:
    """Read a size as Hugging Face writes it: a number, or an object with equal height and width."""
    if isinstance(size, dict):
        edges = {int(size[name]) for name in ("height", "width", "shortest_edge") if name in size}
        if len(edges) == 1:
            return edges.pop()
    elif isinstance(size, int):
        return size
    raise CheckpointError(f"{file}: size {size!r}; expected a number, or equal height and width")
