"""Reads networks from folders and ONNX files, and says how the server must preprocess for each."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto
from tokenizers import Tokenizer

from artifact.contract import BATCH_AXIS, ImageContract, Origin
from export.classes import count_classes, name_classes
from export.onnx_file import fix_image_size, read_graph, read_traits
from export.preprocessing import PREPROCESSOR_FILE, image_contract, image_edge
from export.traits import TEXT_AXES, Traits, own_traits
from model.checkpoint import CheckpointError, Network, load_network, read_json
from model.text import TextNetwork

if TYPE_CHECKING:
    from export.transformers_folder import TransformersNetwork

OWN_FAMILIES = ("bert", "vit", "dinov2", "regard-text", "regard-vit")
_SENTENCE_FILE = "sentence_bert_config.json"
GRAPH_FAMILY = "graph"  # of an ONNX file whose folder does not say what it is


@dataclass(frozen=True)
class Source:
    """A network or a graph, and what its artifact says beside the graphs.

    Attributes:
        name: The artifact's.
        family: "bert", "vit", "dinov2" and so on as the transformers library names it, the model_type of an own
            network, or "graph".
        network: In evaluation mode; None where there is only a graph.
        traits: Of either.
        description: One line for people.
        labels: Class names in the order of the logits.
        tokenizer_file: A tokenizers file, for text.
        max_tokens: For text; 0 means as many as the network has positions.
        image: Preprocessing for images.
        graph: The plain graph, where that is the source.
        made_with: Libraries that make the artifact.
        assumed: What nothing told and was assumed, or is not used, for people; empty where there is nothing.
        origin: Where it was downloaded from by its id.
    """

    name: str
    family: str
    network: "Network | TransformersNetwork | None"
    traits: Traits
    description: str
    labels: tuple[str, ...] = ()
    tokenizer_file: Path | None = None
    max_tokens: int = 0
    image: ImageContract | None = None
    graph: ModelProto | None = None
    made_with: tuple[str, ...] = ("regard", "torch", "onnx", "onnxscript")
    assumed: str = ""
    origin: Origin | None = None

    @property
    def token_limit(self) -> int:
        """The most tokens a text may have."""
        return min(self.max_tokens or self.traits.longest, self.traits.longest)


def load_folder(
    folder: Path, image_size: int | None = None, name: str = "", description: str = "", part: str | None = None
) -> Source:
    """Read a checkpoint folder of this repository's layout, or of any family of the transformers library.

    What model/ has itself is read by it; other families, and variants of these that it has not (a head for masked
    words, another activation), by the library.

    Raises:
        CheckpointError: The folder cannot be read.
    """
    config = read_json(folder / "config.json")
    family = str(config.get("model_type"))
    name = name or folder.resolve().name
    description = description or f"exported from the folder {folder.resolve().name}"
    network = _load_own(folder, family)
    if network is None:
        return _load_with_library(folder, name, description, image_size, part)
    if part:
        raise CheckpointError(f"--part: {part!r}; {family} has one part only")
    labels = name_classes(config, network.config.num_classes)
    if isinstance(network, TextNetwork):
        tokenizer = folder / "tokenizer.json"
        _check_tokenizer(tokenizer, network.config.vocab_size)
        max_tokens = _max_tokens(folder)
        traits = own_traits(network, None)
        return Source(name, family, network, traits, description, labels, tokenizer, max_tokens)
    image = image_contract(folder, config, image_size)
    traits = own_traits(network, image.crop_size)
    return Source(
        name, family, network, traits, description, labels, image=image, assumed=_untold(folder / PREPROCESSOR_FILE)
    )


def _load_own(folder: Path, family: str) -> Network | None:
    """Read a folder with model/; None where that is the transformers library's to do."""
    if family not in OWN_FAMILIES:
        return None
    try:
        return load_network(folder)
    except CheckpointError:
        if family.startswith("regard-"):
            raise
        return None


def _load_with_library(folder: Path, name: str, description: str, image_size: int | None, part: str | None) -> Source:
    """Read a folder with the transformers library; without a tokenizer a text network takes tensors only."""
    from export.transformers_folder import load_transformers  # it takes seconds that own networks need not spend

    loaded = load_transformers(folder, part, image_size)
    config, traits = loaded.config, loaded.traits
    classes = int(config.num_labels) if getattr(loaded.network, "classifies", False) else 0
    tokenizer = folder / "tokenizer.json" if traits.is_text and (folder / "tokenizer.json").is_file() else None
    if tokenizer:
        _check_tokenizer(tokenizer, traits.inputs[0].bound)
    image = None
    if traits.patches:
        described = config.to_dict() | {"patch_size": traits.patches.patch_size, "model_type": config.model_type}
        edge = int(traits.inputs[0].axes[-1])
        image = image_contract(folder, described | {"image_size": edge}, edge)
    return Source(
        name=name,
        family=config.model_type,
        network=loaded.network,
        traits=traits,
        description=description,
        labels=name_classes(config.to_dict(), classes),
        tokenizer_file=tokenizer if len(traits.inputs) == 2 else None,
        max_tokens=_max_tokens(folder) if tokenizer else 0,
        image=image,
        made_with=("regard", "torch", "onnx", "onnxscript", "transformers"),
        assumed=_untold(folder / PREPROCESSOR_FILE) if image else "",
    )


def _untold(preprocessor: Path | None) -> str:
    """What is assumed of images where no file tells how they are prepared."""
    if preprocessor and preprocessor.is_file():
        return ""
    return "no preprocessor_config.json: images are cut to the network's size and get ImageNet's mean and deviation"


def load_graph(path: Path, name: str = "") -> Source:
    """Read an ONNX file, and what lies beside it: tokenizer, preprocessing, names of classes."""
    graph = read_graph(path)
    config_file = _beside(path, "config.json")
    config = read_json(config_file) if config_file else {}
    if edge := _image_edge(path, config):
        fix_image_size(graph, edge)
    traits = read_traits(graph)
    tokenizer, image = _text_file(path, traits), _image_of_graph(path, traits, config)
    return Source(
        name=name or path.stem,
        family=str(config.get("model_type") or GRAPH_FAMILY),
        network=None,
        traits=traits,
        description=f"exported from the ONNX file {path.name}",
        labels=name_classes(config, count_classes(graph) if config.get("id2label") else 0),
        tokenizer_file=tokenizer,
        max_tokens=_max_tokens(tokenizer.parent) if tokenizer else 0,
        graph=graph,
        image=image,
        made_with=("regard", "onnx"),
        assumed=_untold(_beside(path, PREPROCESSOR_FILE)) if image else _unread(path, traits, tokenizer),
    )


def _unread(path: Path, traits: Traits, tokenizer: Path | None) -> str:
    """Say why the tokenizer beside a graph is not used, so that nobody waits for texts to be taken."""
    if tokenizer is not None or _beside(path, "tokenizer.json") is None:
        return ""
    found = ", ".join(f"{spec.name} {spec.dtype} {list(spec.axes)}" for spec in traits.inputs)
    return (
        f"it takes tensors alone; its tokenizer.json is not used: the graph takes {found}; expected input_ids and "
        "attention_mask, int64, of any length (exported with dynamic_axes)"
    )


def _beside(path: Path, name: str) -> Path | None:
    """Find a file in a graph's folder, or in the one above it where that is the folder "onnx" of a checkpoint."""
    folder = path.resolve().parent
    folders = (folder, folder.parent) if folder.name == "onnx" else (folder,)
    return next((one / name for one in folders if (one / name).is_file()), None)


def _text_file(path: Path, traits: Traits) -> Path | None:
    """Return the tokenizer beside a graph that takes token ids and a mask as the server makes them of texts."""
    inputs, tokenizer = {spec.name: spec for spec in traits.inputs}, _beside(path, "tokenizer.json")
    as_made = all(spec.axes in TEXT_AXES and spec.dtype == "int64" for spec in traits.inputs)
    if tokenizer is None or inputs.keys() != {"input_ids", "attention_mask"} or not as_made:
        return None
    if bound := inputs["input_ids"].bound:
        _check_tokenizer(tokenizer, bound)
    return tokenizer


def _image_edge(path: Path, config: dict[str, Any]) -> int | None:
    """Return the edge of images in pixels that the files beside a graph tell."""
    file, edge = _beside(path, PREPROCESSOR_FILE), config.get("image_size")
    if file is None:
        return edge if isinstance(edge, int) else None
    known = {"image_size": edge if isinstance(edge, int) else 224, "model_type": config.get("model_type", "")}
    return image_edge(file.parent, known)


def _image_of_graph(path: Path, traits: Traits, config: dict[str, Any]) -> ImageContract | None:
    """Take one square input of one or three channels for an image; its patches are told from the attention later."""
    axes = traits.inputs[0].axes
    is_image = len(traits.inputs) == 1 and len(axes) == 4 and axes[1] in (1, 3) and axes[2] == axes[3]
    is_image = is_image and axes[0] in (BATCH_AXIS, 1)
    if not is_image or not isinstance(axes[3], int):
        return None
    file = _beside(path, PREPROCESSOR_FILE)
    known = {
        "num_channels": axes[1],
        "image_size": axes[3],
        "patch_size": 1,
        "model_type": config.get("model_type", ""),
    }
    return image_contract(file.parent if file else path.parent, known, axes[3])


def _check_tokenizer(file: Path, vocab_size: int) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file}: not found; expected a file of the tokenizers library")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{file}: the tokenizers library cannot read it: {error}") from error
    if (found := tokenizer.get_vocab_size()) > vocab_size:
        raise CheckpointError(f"{file}: has {found} tokens; expected at most the network's {vocab_size}")
    settings = _sentence_settings(file.parent)
    if settings.get("do_lower_case") and not (tokenizer.normalizer and tokenizer.normalizer.normalize_str("A") == "a"):
        raise CheckpointError(
            f"{file}: keeps capitals; expected one that does what {_SENTENCE_FILE} says: do_lower_case"
        )


def _max_tokens(folder: Path) -> int:
    return int(_sentence_settings(folder).get("max_seq_length") or 0)


def _sentence_settings(folder: Path) -> dict[str, Any]:
    """What sentence-transformers says of how texts are read."""
    file = folder / _SENTENCE_FILE
    return read_json(file) if file.is_file() else {}
