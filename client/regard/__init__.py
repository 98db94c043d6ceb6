"""The client of regard, which serves transformers over gRPC and shows what they attend to."""

from regard.aio import AsyncClient
from regard.answers import (
    AttentionLayer,
    Classification,
    Embedding,
    Label,
    Model,
    Prediction,
    TensorSpec,
    Timings,
    VersionState,
)
from regard.attention import Attention, AttentionRequest, Box, LayerAttention, PatchGrid, Token
from regard.client import Client
from regard.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RegardError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

__all__ = [
    "AsyncClient",
    "Attention",
    "AttentionLayer",
    "AttentionRequest",
    "Box",
    "Classification",
    "Client",
    "DeadlineExceeded",
    "Embedding",
    "FailedPrecondition",
    "InvalidArgument",
    "Label",
    "LayerAttention",
    "Model",
    "NotFound",
    "PatchGrid",
    "PermissionDenied",
    "Prediction",
    "RegardError",
    "ResourceExhausted",
    "TensorSpec",
    "Timings",
    "Token",
    "Unauthenticated",
    "Unavailable",
    "VersionState",
]
