"""An ONNX file as a source, with what lies beside it: tokenizer, preprocessing, names of classes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifact.contract import BATCH_AXIS, ImageContract
from export.classes import count_classes, name_classes, read_activation
from export.onnx_file import fix_image_size, read_graph, read_traits
from export.preprocessing import PREPROCESSOR_FILE, image_contract, image_edge
from export.sentence_transformers import MODULES_FILE, is_cross_encoder, read_prompts, read_similarity
from export.sources import Source, untold, with_dims
from export.tokenizer_files import check_tokenizer, count_pair_types, joins_pairs, read_max_tokens
from export.traits import TEXT_AXES, TOKEN_TYPES, Traits
from model.checkpoint import read_json

GRAPH_FAMILY = "graph"  # of a file whose folder does not say what it is


def load_graph(path: Path, name: str = "") -> Source:
    """Read an ONNX file, and what lies beside it: tokenizer, preprocessing, names of classes."""
    tokenizer = _beside(path, "tokenizer.json")
    modules = _beside(path, MODULES_FILE)
    embeds = modules is not None and not is_cross_encoder(modules.parent)  # texts alone, as the library does
    types = count_pair_types(tokenizer) if tokenizer and not embeds else 0
    graph = read_graph(path, types)
    config_file = _beside(path, "config.json")
    config = read_json(config_file) if config_file else {}
    if edge := _image_edge(path, config):
        fix_image_size(graph, edge)
    traits = read_traits(graph)
    tokenizer, image = _text_file(path, traits), _image_of_graph(path, traits, config)
    classes = count_classes(graph) if config_file else 0
    prompts, default_prompt = read_prompts(tokenizer.parent) if tokenizer else ({}, "")
    if tokenizer and traits.embedding and traits.embedding.output == "sentence_embedding":
        similarity = read_similarity(tokenizer.parent)
        traits = replace(traits, embedding=traits.embedding.model_copy(update={"similarity": similarity}))
    source = Source(
        name=name or path.stem,
        family=str(config.get("model_type") or GRAPH_FAMILY),
        network=None,
        traits=traits,
        description=f"exported from the ONNX file {path.name}",
        labels=name_classes(config, classes if config.get("id2label") else 0),
        activation=read_activation(config_file.parent, config, classes) if config_file else None,
        tokenizer_file=tokenizer,
        max_tokens=read_max_tokens(tokenizer.parent) if tokenizer else 0,
        prompts=prompts,
        default_prompt=default_prompt,
        pairs=joins_pairs(types, _types_of_graph(traits, config)),
        graph=graph,
        image=image,
        made_with=("regard", "onnx"),
        assumed=untold(_beside(path, PREPROCESSOR_FILE), config) if image else _unread(path, traits, tokenizer),
    )
    return with_dims(source, config)


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


def _types_of_graph(traits: Traits, config: Mapping[str, Any]) -> int | None:
    """Token types that a graph tells apart: those of its input; 0 where its network has none; None where unknown."""
    told = [spec.bound for spec in traits.inputs if spec.token_types]
    if told or not config:
        return told[0] if told else None
    return None if config.get("type_vocab_size") else 0


def _text_file(path: Path, traits: Traits) -> Path | None:
    """Return the tokenizer beside a graph that takes token ids and a mask as the server makes them of texts."""
    inputs, tokenizer = {spec.name: spec for spec in traits.inputs}, _beside(path, "tokenizer.json")
    as_made = all(spec.axes in TEXT_AXES and spec.dtype == "int64" for spec in traits.inputs)
    if tokenizer is None or inputs.keys() - {TOKEN_TYPES} != {"input_ids", "attention_mask"} or not as_made:
        return None
    if bound := inputs["input_ids"].bound:
        check_tokenizer(tokenizer, bound)
    return tokenizer


def _image_edge(path: Path, config: dict[str, Any]) -> int | None:
    """Return the edge of images in pixels that the files beside a graph tell."""
    file, edge = _beside(path, PREPROCESSOR_FILE), config.get("image_size")
    if file is None and not config.get("pretrained_cfg"):
        return edge if isinstance(edge, int) else None
    known = {"image_size": edge if isinstance(edge, int) else 224, **_of_images(config)}
    return image_edge(file.parent if file else path.parent, known)


def _of_images(config: dict[str, Any]) -> dict[str, Any]:
    """What a graph's config.json tells of images."""
    return {"model_type": config.get("model_type", ""), "pretrained_cfg": config.get("pretrained_cfg")}


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
        **_of_images(config),
    }
    return image_contract(file.parent if file else path.parent, known, axes[3])
