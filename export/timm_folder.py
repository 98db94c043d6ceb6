"""How timm prepares images, as pretrained_cfg in the config.json of its folders says it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.checkpoint import CheckpointError

# timm's own defaults, of its module data.constants.
_MEAN, _STD, _CROP_SHARE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875
_RESAMPLE = {"lanczos": 1, "bilinear": 2, "bicubic": 3}  # Pillow's numbers


def read_timm(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn pretrained_cfg into the settings of a processor, as preprocessor_config.json writes them.

    Raises:
        CheckpointError: It does what the server cannot: fill up borders, images that are no square, another filter.
    """
    shape, share = tuple(given.get("input_size") or ()), float(given.get("crop_pct") or _CROP_SHARE)
    if len(shape) != 3 or shape[1] != shape[2]:
        raise _fault(folder, "input_size", list(shape), "channels, and one edge twice")
    mode, filter_name = given.get("crop_mode") or "center", given.get("interpolation") or "bicubic"
    if mode not in ("center", "squash"):
        raise _fault(folder, "crop_mode", mode, "center or squash")
    if filter_name not in _RESAMPLE:
        raise _fault(folder, "interpolation", filter_name, ", ".join(_RESAMPLE))
    edge = math.floor(shape[1] / share)
    return {
        "size": {"shortest_edge": edge} if mode == "center" else {"height": edge, "width": edge},
        "do_center_crop": True,
        "crop_size": shape[1],
        "resample": _RESAMPLE[filter_name],
        "image_mean": given.get("mean") or _MEAN,
        "image_std": given.get("std") or _STD,
    }


def _fault(folder: Path, name: str, found: object, expected: str) -> CheckpointError:
    return CheckpointError(f"{folder / 'config.json'}: pretrained_cfg.{name}: {found}; expected {expected}")
