"""A classifier of real size: ViT-S/14, whose weights are real, and a head for 1,000 labels, whose weights are random.

What LeGrad and GenAtt cost does not depend on what the weights are; which label is explained means nothing.
"""

import dataclasses
import io
from pathlib import Path

import torch
from PIL import Image

from bench.relevance.loads import Load
from export.build import build
from export.known import KNOWN
from export.traits import own_traits
from model.vit import VisionTransformer

NAME, EDGE, _LABELS, _STD = "vit-s14-random-head", 224, 1000, 0.05
_PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "chelsea.jpg"


def with_random_head(backbone: VisionTransformer) -> VisionTransformer:
    """The same with a classifier that reads the class token."""
    network = VisionTransformer(dataclasses.replace(backbone.config, num_classes=_LABELS, classify_from="cls"))
    network.load_state_dict(backbone.state_dict(), strict=False)
    assert network.classifier is not None  # noqa: S101 -- num_classes is above 0
    torch.nn.init.normal_(network.classifier.weight, std=_STD, generator=torch.Generator().manual_seed(0))
    torch.nn.init.zeros_(network.classifier.bias)
    return network.eval()


def make_load(cache: Path, models: Path) -> tuple[Load, VisionTransformer]:
    """Export it with LeGrad and GenAtt, which takes a minute or two; returns what is sent, and the network.

    Raises:
        FetchError: Its weights cannot be downloaded.
    """
    source = KNOWN["vit-s14"](cache, EDGE)
    assert isinstance(source.network, VisionTransformer)  # noqa: S101 -- DINOv2's
    network = with_random_head(source.network)
    labels = tuple(f"label {number}" for number in range(_LABELS))
    made = dataclasses.replace(
        source, name=NAME, network=network, traits=own_traits(network, EDGE), labels=labels, activation="softmax"
    )
    artifact = build(made, models, relevance=("genatt", "legrad")).folder
    photo = io.BytesIO()
    Image.open(_PHOTO).convert("RGB").crop((0, 0, EDGE, EDGE)).save(photo, "PNG")
    return Load(artifact, {"images": [photo.getvalue()]}, f"1x{EDGE}px"), network
