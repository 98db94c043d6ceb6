"""Builds requests and reads answers, without any network; both clients call it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.answers import (
    AttentionLayer,
    Classification,
    Embedding,
    Label,
    Modality,
    Model,
    Prediction,
    TensorSpec,
    Timings,
    VersionState,
)
from regard.attention import (
    Attention,
    AttentionKind,
    AttentionRequest,
    Box,
    HeadReduction,
    LayerAttention,
    Measure,
    PatchGrid,
    Token,
)
from regard.tensors import DTYPE_NAMES, DTYPES, read_tensor, write_tensor
from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb

ImageSource = bytes | str | os.PathLike[str]
"""A JPEG, PNG or WebP file: its bytes, or its path."""

_KINDS: dict[pb.AttentionKind, AttentionKind] = {
    pb.ATTENTION_KIND_SELF: "self",
    pb.ATTENTION_KIND_CROSS: "cross",
    pb.ATTENTION_KIND_CAUSAL: "causal",
}
_HEAD_REDUCTIONS: dict[HeadReduction | None, pb.HeadReduction] = {
    None: pb.HEAD_REDUCTION_UNSPECIFIED,
    "mean": pb.HEAD_REDUCTION_MEAN,
    "max": pb.HEAD_REDUCTION_MAX,
    "min": pb.HEAD_REDUCTION_MIN,
}
_MEASURES: dict[Measure, pb.AttentionMeasure] = {
    "weights": pb.ATTENTION_MEASURE_UNSPECIFIED,
    "rollout": pb.ATTENTION_MEASURE_ROLLOUT,
    "entropy": pb.ATTENTION_MEASURE_ENTROPY,
    "distance": pb.ATTENTION_MEASURE_DISTANCE,
    "contribution": pb.ATTENTION_MEASURE_CONTRIBUTION,
    "contribution_rollout": pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT,
}
_MEASURE_NAMES = {number: name for name, number in _MEASURES.items()}
_MODALITIES: dict[pb.Modality, Modality] = {pb.MODALITY_TEXT: "text", pb.MODALITY_IMAGE: "image"}


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


def read_attended(answer: rpc.AttendResponse, first: Attention | None) -> Attention:
    """Read one layer of a stream; what the positions stand for came with the first."""
    attention = _read_attention(answer.attention, answer.truncated)
    if first is None:
        return attention
    return replace(attention, tokens=first.tokens, patches=first.patches, truncated=first.truncated)


def read_prediction(answer: rpc.PredictResponse) -> Prediction:
    """Read the answer to predict."""
    return Prediction(
        model=answer.model,
        version=answer.version,
        outputs={name: read_tensor(tensor) for name, tensor in answer.outputs.items()},
        attention=_read_attention(answer.attention) if answer.HasField("attention") else None,
        timings=_read_timings(answer.timings),
    )


def read_classification(answer: rpc.ClassifyResponse) -> Classification:
    """Read the answer to classify."""
    return Classification(
        model=answer.model,
        version=answer.version,
        labels=tuple(Label(label.index, label.name, label.probability) for label in answer.labels),
        truncated=answer.truncated,
        attention=_read_attention(answer.attention, answer.truncated) if answer.HasField("attention") else None,
        timings=_read_timings(answer.timings),
    )


def read_embedding(answer: rpc.EmbedResponse) -> Embedding:
    """Read the answer to embed."""
    return Embedding(
        model=answer.model,
        version=answer.version,
        vector=read_tensor(answer.vector),
        truncated=answer.truncated,
        attention=_read_attention(answer.attention, answer.truncated) if answer.HasField("attention") else None,
        timings=_read_timings(answer.timings),
    )


def read_model(model: pb.Model) -> Model:
    """Read a model's description."""
    return Model(
        name=model.name,
        version=model.version,
        family=model.family,
        description=model.description,
        inputs=tuple(_read_spec(spec) for spec in model.inputs),
        outputs=tuple(_read_spec(spec) for spec in model.outputs),
        modality=_MODALITIES.get(model.modality),
        can_classify=model.can_classify,
        labels=tuple(model.labels),
        can_embed=model.can_embed,
        embedding_dim=model.embedding_dim,
        embedding_normalized=model.embedding_normalized,
        attention_layers=tuple(
            AttentionLayer(
                layer.layer, _read_kind(layer.kind), layer.num_heads, layer.has_value_norms, layer.has_contributions
            )
            for layer in model.attention_layers
        ),
        patches=_read_patches(model.patches) if model.HasField("patches") else None,
        max_tokens=model.max_tokens,
        max_batch_size=model.max_batch_size,
        device=model.device,
        precision=model.precision,
    )


def read_version(version: rpc.VersionState) -> VersionState:
    """Read what the server says of a version."""
    return VersionState(version.model, version.version, version.state, version.reason)


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
        measure=_MEASURES[attention.measure],
        residual_share=attention.residual_share,
        value_weighted=attention.value_weighted,
        top_k=attention.top_k,
        drop_special=attention.drop_special,
        renormalize=attention.renormalize,
    )


def _read_attention(attention: pb.Attention, truncated: bool = False) -> Attention:
    positions = attention.WhichOneof("positions")
    return Attention(
        layers=tuple(_read_layer(layer) for layer in attention.layers),
        tokens=tuple(_read_token(token) for token in attention.tokens.tokens) if positions == "tokens" else None,
        patches=_read_patches(attention.patches) if positions == "patches" else None,
        truncated=truncated,
    )


def _read_layer(layer: pb.LayerAttention) -> LayerAttention:
    return LayerAttention(
        layer=layer.layer,
        kind=_read_kind(layer.kind),
        axes=tuple(layer.axes),
        heads=tuple(layer.heads),
        queries=tuple(layer.queries),
        weights=_read_weights(layer),
        keys=tuple(layer.keys),
        measure=_MEASURE_NAMES.get(layer.measure, "weights"),
        indices=read_tensor(layer.indices) if layer.HasField("indices") else None,
        covered_layers=tuple(layer.covered_layers),
    )


def _read_weights(layer: pb.LayerAttention) -> NDArray[np.floating]:
    weights = read_tensor(layer.weights)
    return weights * np.float32(layer.scale) if weights.dtype == np.uint8 else weights


def _read_kind(kind: pb.AttentionKind) -> AttentionKind:
    return _KINDS.get(kind, "unspecified")


def _read_token(token: pb.Token) -> Token:
    return Token(token.id, token.text, token.start, token.end, token.special)


def _read_patches(grid: pb.PatchGrid) -> PatchGrid:
    return PatchGrid(
        prefix_tokens=grid.prefix_tokens,
        rows=grid.rows,
        cols=grid.cols,
        patch_size=grid.patch_size,
        image_width=grid.image_width or None,
        image_height=grid.image_height or None,
        box=Box(grid.box.left, grid.box.top, grid.box.right, grid.box.bottom) if grid.HasField("box") else None,
    )


def _read_timings(timings: pb.Timings) -> Timings:
    return Timings(timings.decode_ns, timings.queue_ns, timings.compute_ns, timings.encode_ns, timings.batch_size)


def _read_spec(spec: pb.TensorSpec) -> TensorSpec:
    return TensorSpec(spec.name, DTYPE_NAMES.get(spec.dtype, "unspecified"), tuple(spec.shape), tuple(spec.axes))
