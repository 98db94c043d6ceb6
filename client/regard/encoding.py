"""Builds requests from what callers give, without any network; refuses what cannot be sent."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from regard import checks
from regard.attention import AttentionRequest, HeadReduction, Measure
from regard.errors import InvalidCall, UnreadableFile
from regard.hidden_states import HiddenStatesRequest, Pooling
from regard.tensors import DTYPES, write_tensor
from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb

ImageSource = bytes | str | os.PathLike[str]
"""A JPEG, PNG or WebP file: its bytes, or its path."""

_HEAD_REDUCTIONS: dict[HeadReduction | None, pb.HeadReduction] = {
    None: pb.HEAD_REDUCTION_UNSPECIFIED,
    "mean": pb.HEAD_REDUCTION_MEAN,
    "max": pb.HEAD_REDUCTION_MAX,
    "min": pb.HEAD_REDUCTION_MIN,
}
_POOLINGS: dict[Pooling | None, pb.HiddenStatesPooling] = {
    None: pb.HIDDEN_STATES_POOLING_UNSPECIFIED,
    "cls": pb.HIDDEN_STATES_POOLING_CLS,
    "mean": pb.HIDDEN_STATES_POOLING_MEAN,
    "last": pb.HIDDEN_STATES_POOLING_LAST,
}
MEASURES: dict[Measure, pb.AttentionMeasure] = {
    "weights": pb.ATTENTION_MEASURE_UNSPECIFIED,
    "rollout": pb.ATTENTION_MEASURE_ROLLOUT,
    "entropy": pb.ATTENTION_MEASURE_ENTROPY,
    "distance": pb.ATTENTION_MEASURE_DISTANCE,
    "contribution": pb.ATTENTION_MEASURE_CONTRIBUTION,
    "contribution_rollout": pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT,
}


def predict_request(
    inputs: Mapping[str, NDArray[Any]],
    model: str,
    version: str,
    outputs: Sequence[str],
    attention: AttentionRequest | None,
    priority: int,
    hidden_states: HiddenStatesRequest | None = None,
) -> rpc.PredictRequest:
    """Build a request from arrays by input name.

    Raises:
        InvalidCall: An argument cannot be sent.
    """
    wanted = checks.names("outputs", outputs)
    return rpc.PredictRequest(
        inputs=_tensors(inputs),
        outputs=wanted,
        hidden_states=_write_hidden_states(hidden_states),
        **_shared(model, version, attention, priority),
    )


def classify_request(
    image: ImageSource | None,
    text: str | None,
    model: str,
    version: str,
    top_k: int,
    truncate: bool,
    attention: AttentionRequest | None,
    priority: int,
    hidden_states: HiddenStatesRequest | None = None,
) -> rpc.ClassifyRequest:
    """Build a request from an image or a text.

    Raises:
        InvalidCall: An argument cannot be sent, or not exactly one of image and text is given.
    """
    return rpc.ClassifyRequest(
        top_k=checks.integer("top_k", top_k, 0, checks.MAX_INT32),
        truncate=checks.flag("truncate", truncate),
        **_input(image, text),
        hidden_states=_write_hidden_states(hidden_states),
        **_shared(model, version, attention, priority),
    )


def embed_request(
    image: ImageSource | None,
    text: str | None,
    model: str,
    version: str,
    truncate: bool,
    attention: AttentionRequest | None,
    priority: int,
    prompt: str = "",
    hidden_states: HiddenStatesRequest | None = None,
) -> rpc.EmbedRequest:
    """Build a request from an image or a text; raises as `classify_request`."""
    return rpc.EmbedRequest(
        truncate=checks.flag("truncate", truncate),
        prompt=checks.name("prompt", prompt),
        **_input(image, text),
        hidden_states=_write_hidden_states(hidden_states),
        **_shared(model, version, attention, priority),
    )


def classify_many_request(
    images: Sequence[ImageSource] | None,
    texts: Sequence[str] | None,
    model: str,
    version: str,
    top_k: int,
    truncate: bool,
    attention: AttentionRequest | None,
    priority: int,
    hidden_states: HiddenStatesRequest | None = None,
) -> rpc.ClassifyRequest:
    """Build a request from several images or texts; raises as `classify_request`."""
    return rpc.ClassifyRequest(
        top_k=checks.integer("top_k", top_k, 0, checks.MAX_INT32),
        truncate=checks.flag("truncate", truncate),
        **_inputs(images, texts),
        hidden_states=_write_hidden_states(hidden_states),
        **_shared(model, version, attention, priority),
    )


def embed_many_request(
    images: Sequence[ImageSource] | None,
    texts: Sequence[str] | None,
    model: str,
    version: str,
    truncate: bool,
    attention: AttentionRequest | None,
    priority: int,
    prompt: str = "",
    hidden_states: HiddenStatesRequest | None = None,
) -> rpc.EmbedRequest:
    """Build a request from several images or texts; raises as `classify_request`."""
    return rpc.EmbedRequest(
        truncate=checks.flag("truncate", truncate),
        prompt=checks.name("prompt", prompt),
        **_inputs(images, texts),
        hidden_states=_write_hidden_states(hidden_states),
        **_shared(model, version, attention, priority),
    )


def attend_request(
    image: ImageSource | None,
    text: str | None,
    inputs: Mapping[str, NDArray[Any]] | None,
    model: str,
    version: str,
    truncate: bool,
    attention: AttentionRequest | None,
    priority: int,
    prompt: str = "",
) -> rpc.AttendRequest:
    """Build a request from an image, a text or arrays; raises as `classify_request`."""
    if inputs is not None and (image is not None or text is not None):
        raise InvalidCall.of("image, text, inputs: give exactly one of them; got several")
    given = _input(image, text) if inputs is None else {"tensors": pb.TensorMap(tensors=_tensors(inputs))}
    return rpc.AttendRequest(
        truncate=checks.flag("truncate", truncate),
        prompt=checks.name("prompt", prompt),
        **given,
        **_shared(model, version, attention, priority),
    )


def get_model_request(name: str, version: str) -> rpc.GetModelRequest:
    """Build a request from a name and a version; raises as `load_request`."""
    return rpc.GetModelRequest(model=checks.name("name", name), version=checks.name("version", version))


def load_request(name: str) -> rpc.LoadModelRequest:
    """Build a request from a name.

    Raises:
        InvalidCall: It cannot be sent.
    """
    return rpc.LoadModelRequest(model=checks.text("name", name))


def unload_request(name: str) -> rpc.UnloadModelRequest:
    """Build a request from a name; raises as `load_request`."""
    return rpc.UnloadModelRequest(model=checks.text("name", name))


def _shared(model: str, version: str, attention: AttentionRequest | None, priority: int) -> dict[str, Any]:
    """Return the fields that every request has."""
    return {
        "model": checks.name("model", model),
        "version": checks.name("version", version),
        "attention": _write_attention(attention),
        "priority": checks.integer("priority", priority, 0, checks.MAX_UINT32),
    }


def _input(image: ImageSource | None, text: str | None) -> dict[str, Any]:
    if (image is None) == (text is None):
        got = "neither" if text is None else "both"
        raise InvalidCall.of(f"image, text: give exactly one of them; got {got}")
    if isinstance(text, list | tuple):
        raise checks.invalid("text", text, "a str; embed_many and classify_many take several, as texts")
    return {"text": checks.text("text", text)} if image is None else {"image": _image_bytes("image", image)}


def _inputs(images: Sequence[ImageSource] | None, texts: Sequence[str] | None) -> dict[str, Any]:
    if (images is None) == (texts is None):
        got = "neither" if texts is None else "both"
        raise InvalidCall.of(f"images, texts: give exactly one of them; got {got}")
    if images is None:
        return {"texts": pb.Texts(items=checks.texts("texts", texts))}
    if isinstance(images, str | bytes | os.PathLike):
        raise checks.invalid("images", images, "a list of files, each as bytes or as a path")
    items = checks.items("images", images, "a list of files, each as bytes or as a path")
    return {"images": pb.Images(items=[_image_bytes(f"images[{i}]", image) for i, image in enumerate(items)])}


def _image_bytes(field: str, image: ImageSource) -> bytes:
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str | os.PathLike):
        raise checks.invalid(field, image, "the bytes of a file, or its path")
    try:
        return Path(image).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte or half of a surrogate pair
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnreadableFile.of(f"{field}: {checks.describe(str(image))}: {reason}; expected a file's path") from error


def _tensors(inputs: Mapping[str, NDArray[Any]]) -> dict[str, pb.Tensor]:
    if not isinstance(inputs, Mapping):
        raise checks.invalid("inputs", inputs, "a dict of arrays by input name")
    return {name: write_tensor(name, array) for name, array in inputs.items()}


def _write_attention(attention: AttentionRequest | None) -> pb.AttentionRequest | None:
    if attention is None:
        return None
    if not isinstance(attention, AttentionRequest):
        raise checks.invalid("attention", attention, "an AttentionRequest")
    return pb.AttentionRequest(
        layers=attention.layers,
        heads=attention.heads,
        head_reduction=_HEAD_REDUCTIONS[attention.reduce_heads],
        rows=attention.rows,
        cls_only=attention.cls_only,
        dtype=DTYPES[attention.dtype],
        keys=attention.keys,
        measure=MEASURES[attention.measure],
        residual_share=attention.residual_share,
        value_weighted=attention.value_weighted,
        top_k=attention.top_k,
        drop_special=attention.drop_special,
        renormalize=attention.renormalize,
    )


def _write_hidden_states(hidden_states: HiddenStatesRequest | None) -> pb.HiddenStatesRequest | None:
    if hidden_states is None:
        return None
    if not isinstance(hidden_states, HiddenStatesRequest):
        raise checks.invalid("hidden_states", hidden_states, "a HiddenStatesRequest")
    return pb.HiddenStatesRequest(
        layers=hidden_states.layers,
        positions=hidden_states.positions,
        drop_special=hidden_states.drop_special,
        pooling=_POOLINGS[hidden_states.pooling],
        normalize=hidden_states.normalize,
        dtype=DTYPES[hidden_states.dtype],
    )
