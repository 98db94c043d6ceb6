"""The client of regard, which serves transformers over gRPC and shows what they attend to.

What is asked for here is imported then: `regard --help` needs neither gRPC nor numpy, which take most of a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regard.aio import AsyncClient
    from regard.alignment import Alignment
    from regard.answers import (
        Answers,
        AttentionLayer,
        Classification,
        Embedding,
        Generation,
        HiddenStateLayer,
        Label,
        Model,
        Prediction,
        TensorSpec,
        Timings,
        Towers,
        VersionState,
    )
    from regard.attention import Attention, AttentionRequest, AttentionWindow, Box, LayerAttention, PatchGrid, Token
    from regard.client import Client
    from regard.comparison import Comparison, SimilarityRelevance
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
    from regard.generate_calls import AsyncTokenStream, TokenStream
    from regard.generation import (
        Alternative,
        Generated,
        GeneratedText,
        GeneratedToken,
        GenerateOptions,
        GenerationTimings,
        Sampling,
        SoundPositions,
        SourceWord,
        TokenRelevance,
    )
    from regard.hidden_states import HiddenStates, HiddenStatesRequest, LayerHiddenStates
    from regard.options import AttendOptions, ClassifyOptions, EmbedOptions, StudyArguments
    from regard.relevance import LayerRelevance, Relevance, RelevanceRequest, WordRelevance
    from regard.replicas import replica_options
    from regard.scores import RankedDocument, Ranking, TokenMatches
    from regard.timed_words import WordTime, request_word_times, word_times

__all__ = [
    "Alignment",
    "Alternative",
    "Answers",
    "AsyncClient",
    "AsyncTokenStream",
    "AttendOptions",
    "Attention",
    "AttentionLayer",
    "AttentionRequest",
    "AttentionWindow",
    "Box",
    "Classification",
    "ClassifyOptions",
    "Client",
    "Comparison",
    "DeadlineExceeded",
    "EmbedOptions",
    "Embedding",
    "FailedPrecondition",
    "GenerateOptions",
    "Generated",
    "GeneratedText",
    "GeneratedToken",
    "Generation",
    "GenerationTimings",
    "HiddenStateLayer",
    "HiddenStates",
    "HiddenStatesRequest",
    "InvalidArgument",
    "Label",
    "LayerAttention",
    "LayerHiddenStates",
    "LayerRelevance",
    "Model",
    "NotFound",
    "PatchGrid",
    "PermissionDenied",
    "Prediction",
    "RankedDocument",
    "Ranking",
    "RegardError",
    "Relevance",
    "RelevanceRequest",
    "ResourceExhausted",
    "Sampling",
    "SimilarityRelevance",
    "SoundPositions",
    "SourceWord",
    "StudyArguments",
    "TensorSpec",
    "Timings",
    "Token",
    "TokenMatches",
    "TokenRelevance",
    "TokenStream",
    "Towers",
    "Unauthenticated",
    "Unavailable",
    "VersionState",
    "WordRelevance",
    "WordTime",
    "__version__",
    "replica_options",
    "request_word_times",
    "word_times",
]

__version__: str  # as pyproject.toml has it, by what was installed


_MODULES = (
    "aio",
    "alignment",
    "answers",
    "attention",
    "client",
    "comparison",
    "errors",
    "generate_calls",
    "generation",
    "hidden_states",
    "options",
    "relevance",
    "replicas",
    "scores",
    "timed_words",
)


def __getattr__(name: str) -> Any:
    """Import what is asked for; look the version up, since reading the metadata takes long, too."""
    if name == "__version__":
        return _version()
    if name in _MODULES:
        return import_module(f"regard.{name}")
    if name in __all__:
        found = next(one for one in map(_imported, _MODULES) if hasattr(one, name))
        return globals().setdefault(name, getattr(found, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _imported(module: str) -> Any:
    return import_module(f"regard.{module}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("regard")
    except PackageNotFoundError:
        return "unknown: regard is not installed"
