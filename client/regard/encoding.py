"""Builds requests from what callers give, without any network; refuses what cannot be sent."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from regard.attention import AttentionRequest, HeadReduction, Measure
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
) -> rpc.PredictRequest:
    """Build a request from arrays by input name; TypeError names an input of a type that cannot travel."""
    return rpc.PredictRequest(
        model=model,
        version=version,
        inputs={name: write_tensor(name, array) for name, array in inputs.items()},
        outputs=outputs,
        attention=_write_attention(attention),
        priority=priority,
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
) -> rpc.ClassifyRequest:
    """Build a request from an image or a text; ValueError unless it is exactly one of them, OSError on a lost file."""
    return rpc.ClassifyRequest(
        model=model,
        version=version,
        image=_image_bytes(image, text),
        text=text,
        top_k=top_k,
        truncate=truncate,
        attention=_write_attention(attention),
        priority=priority,
    )


def embed_request(
    image: ImageSource | None,
    text: str | None,
    model: str,
    version: str,
    truncate: bool,
    attention: AttentionRequest | None,
    priority: int,
) -> rpc.EmbedRequest:
    """Build a request from an image or a text; ValueError unless it is exactly one of them, OSError on a lost file."""
    return rpc.EmbedRequest(
        model=model,
        version=version,
        image=_image_bytes(image, text),
        text=text,
        truncate=truncate,
        attention=_write_attention(attention),
        priority=priority,
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
) -> rpc.AttendRequest:
    """Build a request from an image, a text or arrays; ValueError unless it is exactly one of them."""
    request = rpc.AttendRequest(
        model=model, version=version, truncate=truncate, attention=_write_attention(attention), priority=priority
    )
    if inputs is None:
        image_bytes = _image_bytes(image, text)
        if image_bytes is None:
            request.text = text or ""
        else:
            request.image = image_bytes
        return request
    if image is not None or text is not None:
        raise ValueError("give an image, a text or inputs, exactly one of them")
    for name, array in inputs.items():
        request.tensors.tensors[name].CopyFrom(write_tensor(name, array))
    return request


def _image_bytes(image: ImageSource | None, text: str | None) -> bytes | None:
    if (image is None) == (text is None):
        raise ValueError(f"give an image or a text, exactly one of them; got {'neither' if text is None else 'both'}")
    return image if image is None or isinstance(image, bytes) else Path(image).read_bytes()


def _write_attention(attention: AttentionRequest | None) -> pb.AttentionRequest | None:
    if attention is None:
        return None
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
