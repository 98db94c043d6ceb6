"""The folder of a small Swin with random weights, as users have it, whose grids fit its windows nowhere."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

NAME = "tiny-swin"
LABELS = ("bad", "fair", "good")

# Grids of 10 and 5 cells and windows of 4, every second layer shifted by 2.
_CONFIG: dict[str, Any] = {
    "image_size": 40,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: number for number, label in enumerate(LABELS)},
}
_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 40, "width": 40},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def write_swin(folder: Path) -> None:
    """Write it with its processor's settings."""
    torch.manual_seed(0)
    factory: Any = transformers.AutoModelForImageClassification
    network = factory.from_config(transformers.AutoConfig.for_model("swin", **_CONFIG)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PROCESSOR))
