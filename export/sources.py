"""Reads networks from folders, and says how the server must preprocess for each."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from artifact.contract import Activation, ImageContract, LateContract, Origin
from export import matryoshka
from export.classes import name_classes, read_activation
from export.encoder_decoder import OWN_ENCODER_DECODER, Reader, Writing, load_own
from export.late_interaction import read_colbert, read_late
from export.preprocessing import PREPROCESSOR_FILE, image_contract
from export.sentence_transformers import (
    MODULES_FILE,
    Dense,
    SentenceFolder,
    Splade,
    as_sparse,
    is_colbert,
    read_sentence_folder,
)
from export.tokenizer_files import check_tokenizer, joins_pairs, pair_types, read_max_tokens, read_pad_token
from export.traits import Traits, own_traits
from model.checkpoint import CheckpointError, Network, load_network, read_json
from model.huggingface import Pooling
from model.text import TextNetwork

if TYPE_CHECKING:
    from export.transformers_folder import TransformersNetwork
    from export.transformers_writing import LibraryReader

# Of the library, those that write text.
WRITERS = (
    "MarianMTModel",
    *(f"{name}ForConditionalGeneration" for name in ("Bart", "MBart", "T5", "MT5", "UMT5")),
)
SPEECH_WRITERS = ("WhisperForConditionalGeneration",)
OWN_FAMILIES = ("bert", "vit", "dinov2", "regard-text", "regard-vit")


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
        activation: What makes scores of the logits.
        tokenizer_file: A tokenizers file, for text.
        max_tokens: For text; 0 means as many as the network has positions.
        prompts: For text, as TextContract has them.
        default_prompt: Likewise.
        pairs: For text, likewise.
        pad_token: For text, likewise.
        image: Preprocessing for images.
        graph: The plain graph, where that is the source.
        made_with: Libraries that make the artifact.
        assumed: What nothing told and was assumed, or is not used, for people; empty where there is nothing.
        origin: Where it was downloaded from by its id.
        late: How queries and documents are marked, of which each token has a vector; None for others.
        writing: How it writes, of an encoder-decoder, whose half that reads is then the network; None for others.
    """

    name: str
    family: str
    network: "Network | TransformersNetwork | Reader | LibraryReader | None"
    traits: Traits
    description: str
    labels: tuple[str, ...] = ()
    activation: Activation | None = None
    tokenizer_file: Path | None = None
    max_tokens: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    pairs: bool = False
    pad_token: int | None = None
    image: ImageContract | None = None
    graph: ModelProto | None = None
    made_with: tuple[str, ...] = ("regard", "torch", "onnx", "onnxscript")
    assumed: str = ""
    origin: Origin | None = None
    late: LateContract | None = None
    writing: Writing | None = None

    @property
    def token_limit(self) -> int:
        """The most tokens a text may have."""
        if self.late:
            return max(self.late.query_tokens, self.late.document_tokens)
        limit = 0 if self.pad_token is not None else self.max_tokens  # all that are filled up are of one length
        return min(limit or self.traits.longest, self.traits.longest)


def load_folder(
    folder: Path,
    image_size: int | None = None,
    name: str = "",
    description: str = "",
    part: str | None = None,
    *,
    sparse: bool = False,
) -> Source:
    """Read a checkpoint folder of this repository's layout, or of any family of the transformers library.

    What model/ has itself is read by it; other families, and variants of these that it has not (a head for masked
    words, another activation), by the library. With `sparse` its vectors are SPLADE's, whatever its files say.

    Raises:
        CheckpointError: The folder cannot be read.
    """
    sentence = read_sentence_folder(folder)
    if sparse and sentence.splade is None:
        sentence = as_sparse(sentence, Splade())
    name = name or folder.resolve().name
    description = description or f"exported from the folder {folder.resolve().name}"
    source = _load_network(sentence, name, description, image_size, part)
    if sentence.similarity and source.traits.inputs[0].name != "input_ids":
        raise CheckpointError(f"{folder / MODULES_FILE}: Pooling behind {source.family}; expected a network for texts")
    source = with_dims(source, read_json(sentence.network / "config.json"))
    if sentence.late is not None:
        source = _as_late(source, sentence, folder)
    return replace(source, prompts=sentence.prompts, default_prompt=sentence.default_prompt)


def with_dims(source: Source, config: dict[str, Any]) -> Source:
    """Add the sizes that vectors may be cut to, as config.json tells them.

    Raises:
        CheckpointError: They are no sizes of these vectors.
    """
    traits = replace(source.traits, embedding=matryoshka.told_by_config(source.traits.embedding, config))
    missing = matryoshka.untold(config) if traits.embedding else ""
    return replace(source, traits=traits, assumed="; ".join(filter(None, (source.assumed, missing))))


def _as_late(source: Source, sentence: SentenceFolder, folder: Path) -> Source:
    """Say how queries and documents are marked."""
    dim = next((step.out_features for step in reversed(sentence.steps) if isinstance(step, Dense)), 0)
    read = read_colbert if is_colbert(folder) else read_late
    late = read(sentence.late or {}, folder, source.tokenizer_file, dim, source.traits.longest)
    return replace(source, late=late, pairs=False)


def _load_network(
    sentence: SentenceFolder, name: str, description: str, image_size: int | None, part: str | None
) -> Source:
    folder = sentence.network
    config = read_json(folder / "config.json")
    family = str(config.get("model_type"))
    architecture = (config.get("architectures") or [""])[0]
    if architecture in (*WRITERS, *SPEECH_WRITERS) and part is None and not sentence.similarity:
        return _load_writer(sentence, name, description, hears=architecture in SPEECH_WRITERS)
    if family == OWN_ENCODER_DECODER:
        return _load_encoder_decoder(sentence, name, description, part)
    network = _load_own(sentence, family)
    if sentence.similarity and config.get("is_encoder_decoder"):
        part = part or "encoder"  # which alone makes vectors of texts
    if network is None:
        return _load_with_library(sentence, name, description, image_size, part)
    if part:
        raise CheckpointError(f"--part: {part!r}; {family} has one part only")
    classes = network.config.num_classes
    labels, activation = name_classes(config, classes), read_activation(folder, config, classes)
    if isinstance(network, TextNetwork):
        tokenizer = folder / "tokenizer.json"
        check_tokenizer(tokenizer, network.config.vocab_size)
        types, segments = pair_types(sentence), network.config.num_segments
        network.config = replace(network.config, token_types=1 < types <= segments)
        limit, traits = read_max_tokens(folder), own_traits(network, None, sentence.similarity)
        source = Source(name, family, network, traits, description, labels, activation, tokenizer, limit)
        return replace(source, pairs=joins_pairs(types, segments))
    image = image_contract(folder, config, image_size)
    traits, assumed = own_traits(network, image.crop_size), untold(folder / PREPROCESSOR_FILE, config)
    return Source(name, family, network, traits, description, labels, activation, image=image, assumed=assumed)


def _load_encoder_decoder(sentence: SentenceFolder, name: str, description: str, part: str | None) -> Source:
    if part or sentence.splade:
        given = f"--part: {part!r}" if part else "--sparse"
        raise CheckpointError(f"{given}; {OWN_ENCODER_DECODER} is exported as it is, expected none")
    reader, traits, writing = load_own(sentence.network)
    return Source(name, OWN_ENCODER_DECODER, reader, traits, description, writing=writing)


def _load_writer(sentence: SentenceFolder, name: str, description: str, *, hears: bool) -> Source:
    """Read what writes text with the transformers library, of a text or of what it hears."""
    from export.transformers_folder import quietly  # see _load_with_library
    from export.transformers_whisper import load_whisper
    from export.transformers_writing import load_writer

    with quietly():
        reader, traits, writing, assumed = (load_whisper if hears else load_writer)(sentence.network)
    family = str(reader.fused.config.model_type)
    made_with = ("regard", "torch", "onnx", "onnxscript", "transformers")
    return Source(name, family, reader, traits, description, writing=writing, made_with=made_with, assumed=assumed)


def _load_own(sentence: SentenceFolder, family: str) -> Network | None:
    """Read a folder with model/; None where that is the transformers library's to do."""
    pooling = _own_pooling(sentence)
    if family not in OWN_FAMILIES or pooling is None:
        return None
    try:
        return load_network(sentence.network, pooling)
    except CheckpointError:
        if family.startswith("regard-"):
            raise
        return None


def _own_pooling(sentence: SentenceFolder) -> Pooling | None:
    """What model/ calls a folder's way to make vectors; None where it has no such way."""
    match sentence.modes, sentence.steps:
        case (("mean" | "cls") as mode,), () | ("normalize",):
            return Pooling(mode, sentence.normalized)
    return None


def _load_with_library(
    sentence: SentenceFolder, name: str, description: str, image_size: int | None, part: str | None
) -> Source:
    """Read a folder with the transformers library; without a tokenizer a text network takes tensors only."""
    from export.transformers_folder import load_transformers  # it takes seconds that own networks need not spend

    folder = sentence.network
    loaded = load_transformers(sentence, part, image_size)
    config, traits = loaded.config, loaded.traits
    classes = int(config.num_labels) if getattr(loaded.network, "classifies", False) else 0
    reads_text = traits.is_text or traits.is_full_length
    tokenizer = folder / "tokenizer.json" if reads_text and (folder / "tokenizer.json").is_file() else None
    if tokenizer:
        check_tokenizer(tokenizer, traits.inputs[0].bound)
    image = None
    if traits.patches:
        described = config.to_dict() | {"patch_size": traits.patches.patch_size, "model_type": config.model_type}
        edge = int(traits.inputs[0].axes[-1])
        image = image_contract(folder, described | {"image_size": edge}, edge)
    assumed = untold(folder / PREPROCESSOR_FILE, config.to_dict()) if image else _no_texts(traits, tokenizer)
    assumed = assumed or no_images(traits)
    return Source(
        name=name,
        family=config.model_type,
        network=loaded.network,
        traits=traits,
        description=description,
        labels=name_classes(config.to_dict(), classes),
        activation=read_activation(folder, config.to_dict(), classes),
        tokenizer_file=tokenizer if _is_text_alone(traits) else None,
        max_tokens=read_max_tokens(folder) if tokenizer else 0,
        pairs=loaded.pairs,
        pad_token=read_pad_token(folder, config) if tokenizer and traits.is_full_length else None,
        image=image,
        made_with=("regard", "torch", "onnx", "onnxscript", "transformers"),
        assumed="; ".join(filter(None, (loaded.held, assumed))),
    )


def _no_texts(traits: Traits, tokenizer: Path | None) -> str:
    """Say that a network of texts will take none, so that nobody waits for it."""
    if not (traits.is_text or traits.is_full_length) or (tokenizer and _is_text_alone(traits)):
        return ""
    return (
        "it takes tensors alone: texts are taken where the folder has a tokenizer.json, and the network takes token "
        "ids and their mask alone"
    )


def no_images(traits: Traits) -> str:
    """Say why a network of images will take none; empty where it does, or takes something else."""
    first, edges = next(filter(None, traits.windows), None), traits.inputs[0].axes[2:]
    if traits.inputs[0].name != "pixel_values" or len(edges) != 2 or traits.patches:
        return ""
    if first and edges[0] == edges[1] and isinstance(edges[0], int):
        reason = f"patches of {first.cell_size} pixels do not fill images of {edges[0]}; "
        reason += f"expected --image-size with a multiple of {first.cell_size}"
    else:
        reason = "its positions are no patches that fill a square"
    return f"it takes tensors alone, no images: {reason}"


def _is_text_alone(traits: Traits) -> bool:
    """Whether all that a network takes can be made of texts: ids, mask, and which of two texts tokens are of."""
    return traits.is_full_length or sum(not spec.token_types for spec in traits.inputs) == 2


def untold(preprocessor: Path | None, config: dict[str, Any]) -> str:
    """Say what is assumed of images where no file tells how they are prepared."""
    if (preprocessor and preprocessor.is_file()) or config.get("pretrained_cfg"):
        return ""
    return "no preprocessor_config.json: images are cut to the network's size and get ImageNet's mean and deviation"
