"""What the Open Inference Protocol asks of two towers together: labels beside images, and an image beside a text.

An input `candidate_labels` beside images gives the output `scores`; an `image` beside a `text` gives the map of which
patch answers to which token, as outputs of their own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from artifact.dtypes import Array
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.parameter_values import Parameters, read_flag, read_text, show
from server.errors import InvalidInput
from server.inference.alignment import SimilarityMap, can_align, check_image
from server.inference.request import Images, Tensors, Texts
from server.inference.zero_shot import LABELS, LabelRequest
from server.repository.loading import LoadedModel

SCORES = "scores"
LABEL_TEMPLATE = "label_template"
_NOT_OF_A_MAP = ("attention", "hidden_states", "relevance", "vector_", "prompt")  # parameters that begin so


@dataclass(frozen=True, slots=True)
class MapOutput:
    """One output of a map: how it is made, its datatype, and its axes behind the batch: T tokens, grid of patches."""

    make: Callable[[SimilarityMap], Array]
    datatype: str
    axes: tuple[str | int, ...]


# By name. Patches lie as on the image, [rows, cols]; a token's part of the text is [start, end) in code points.
MAP_OUTPUTS = {
    "map.similarities": MapOutput(lambda found: _on_grid(found, found.similarities), "FP32", ("T", "rows", "cols")),
    "map.text_similarities": MapOutput(
        lambda found: _on_grid(found, found.text_similarities), "FP32", ("rows", "cols")
    ),
    "map.similarity": MapOutput(lambda found: np.array(found.similarity, np.float32), "FP32", ()),
    "map.tokens": MapOutput(lambda found: np.array(found.tokens.texts, object), "BYTES", ("T",)),
    "map.offsets": MapOutput(lambda found: np.array(found.tokens.offsets, np.int32), "INT32", ("T", 2)),
    "map.special": MapOutput(lambda found: np.array(found.tokens.special, bool), "BOOL", ("T",)),
    "map.box": MapOutput(lambda found: np.array(found.pixels.box, np.float64), "FP64", (4,)),
}


def _on_grid(found: SimilarityMap, values: Array) -> Array:
    return values.reshape(*values.shape[:-1], found.patches.rows, found.patches.cols)


def brings_labels(model: LoadedModel, names: Collection[str], parameters: Parameters) -> bool:
    """Whether a request brings labels to compare images with, or says how they are read."""
    return (LABELS in names and not _is_own(model, LABELS)) or LABEL_TEMPLATE in parameters


def brings_both(model: LoadedModel, names: Collection[str]) -> bool:
    """Whether a request brings an image beside a text."""
    return set(names) == {"image", "text"} and not any(_is_own(model, name) for name in names)


def _is_own(model: LoadedModel, name: str) -> bool:
    return any(spec.name == name for spec in model.contract.inputs)


def read_label_request(
    model: LoadedModel, names: Iterable[str], labels: tuple[str, ...], parameters: Parameters
) -> LabelRequest:
    """Read what is wanted with labels.

    Args:
        model: That is asked.
        names: Of the request's inputs.
        labels: The caller's.
        parameters: label_template (string) and truncate (bool).

    Raises:
        InvalidInput: A parameter cannot be read.
    """
    others = [name for name in names if name != LABELS]
    is_image = model.towers is not None and model.of_inputs(others) is model.towers.image and "text" not in others
    brings = "image" if is_image else ", ".join(others)
    return LabelRequest(labels, read_text(parameters, LABEL_TEMPLATE), read_flag(parameters, "truncate"), brings)


def take_both(texts: Texts | Images | Tensors, images: Texts | Images | Tensors) -> tuple[Texts, bytes]:
    """Return the text and the image of a map.

    Raises:
        InvalidInput: They are more than one each, or no BYTES, or the image is empty.
    """
    for name, given in (("text", texts), ("image", images)):
        if isinstance(given, Tensors):
            raise InvalidInput(f"inputs[{name}]", "a tensor", "one element of BYTES")
        if len(given) != 1:
            raise InvalidInput(f"inputs[{name}]", f"{len(given)} elements", "1, to compare with the other input")
    assert isinstance(texts, Texts) and isinstance(images, Images)  # noqa: S101 -- as their names say
    check_image(images.contents[0])
    return texts, images.contents[0]


def check_map(names: Collection[str], parameters: Parameters) -> None:
    """Check what is asked for beside a map, which has outputs of its own and no others.

    Raises:
        InvalidInput: An output is none of them; or a parameter asks for something else.
    """
    for name in names:
        if name not in MAP_OUTPUTS:
            raise InvalidInput("outputs", repr(name), f"{', '.join(MAP_OUTPUTS)}, of an image beside a text")
    for name, parameter in sorted(parameters.items()):
        is_off = name in ("attention", "hidden_states", "relevance") and not read_flag(parameters, name)
        if name.startswith(_NOT_OF_A_MAP) and not is_off:
            raise InvalidInput(f"parameters[{name}]", show(parameter), "none beside a map")


def check_alone(model: LoadedModel, names: Collection[str]) -> None:
    """Say what outputs take that two towers give together, where inputs are of one alone.

    Raises:
        InvalidInput: Such an output is named.
    """
    for name in names if model.towers else ():
        if name == SCORES:
            raise InvalidInput("outputs", repr(name), f"{LABELS} beside image, which it is made of")
        if name in MAP_OUTPUTS:
            raise InvalidInput("outputs", repr(name), "a text beside image, which it is made of")


def name_map(found: SimilarityMap, names: Collection[str]) -> Mapping[str, Array]:
    """Make these outputs of a map, or all where none is named, each [1, ...]."""
    return {name: MAP_OUTPUTS[name].make(found)[np.newaxis] for name in names or MAP_OUTPUTS}


def describe_outputs(model: LoadedModel) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    """Describe what two towers give together, if it is to be listed; nothing of other models."""
    if model.towers is None or not model.usage.settings.list_joint_outputs:
        return []
    scores = pb.ModelMetadataResponse.TensorMetadata(name=SCORES, datatype="FP32", shape=[-1, -1])
    patches = model.contract.patches
    if not can_align(model) or patches is None:
        return [scores]
    sizes = {"T": -1, "rows": patches.rows, "cols": patches.cols}
    return [
        scores,
        *(
            pb.ModelMetadataResponse.TensorMetadata(
                name=name,
                datatype=output.datatype,
                shape=[-1, *(axis if isinstance(axis, int) else sizes[axis] for axis in output.axes)],
            )
            for name, output in MAP_OUTPUTS.items()
        ),
    ]
