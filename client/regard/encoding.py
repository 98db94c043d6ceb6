"""Builds requests from what callers give, without any network; refuses what cannot be sent."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from regard import checks
from regard.answers import TextRole, VectorFormat
from regard.attention import STATISTICS, AttentionRequest, HeadReduction, Measure, Statistic, TextOfPair
from regard.hidden_states import HiddenStatesRequest, Pooling
from regard.inputs import ImageSource, Pair, TextOrImage, write_input, write_tensors
from regard.relevance import RelevanceMethod, RelevanceRequest
from regard.tensors import DTYPES
from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb

_HEAD_REDUCTIONS: dict[HeadReduction | None, pb.HeadReduction] = {
    None: pb.HEAD_REDUCTION_UNSPECIFIED,
    "mean": pb.HEAD_REDUCTION_MEAN,
    "max": pb.HEAD_REDUCTION_MAX,
    "min": pb.HEAD_REDUCTION_MIN,
}
TEXTS_OF_PAIR: dict[TextOfPair | None, pb.TextOfPair] = {
    None: pb.TEXT_OF_PAIR_UNSPECIFIED,
    "first": pb.TEXT_OF_PAIR_FIRST,
    "second": pb.TEXT_OF_PAIR_SECOND,
}
_POOLINGS: dict[Pooling | None, pb.HiddenStatesPooling] = {
    None: pb.HIDDEN_STATES_POOLING_UNSPECIFIED,
    "cls": pb.HIDDEN_STATES_POOLING_CLS,
    "mean": pb.HIDDEN_STATES_POOLING_MEAN,
    "last": pb.HIDDEN_STATES_POOLING_LAST,
}
_ROLES: dict[TextRole, rpc.TextRole] = {"document": rpc.TEXT_ROLE_DOCUMENT, "query": rpc.TEXT_ROLE_QUERY}
_VECTOR_FORMATS: dict[VectorFormat, rpc.VectorFormat] = {
    "float32": rpc.VECTOR_FORMAT_UNSPECIFIED,
    "float16": rpc.VECTOR_FORMAT_FLOAT16,
    "int8": rpc.VECTOR_FORMAT_INT8,
    "binary": rpc.VECTOR_FORMAT_BINARY,
}
RELEVANCE_METHODS: dict[RelevanceMethod, pb.RelevanceMethod] = {
    "libra": pb.RELEVANCE_METHOD_UNSPECIFIED,
    "gradient": pb.RELEVANCE_METHOD_GRADIENT,
    "integrated-gradients": pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS,
    "genatt": pb.RELEVANCE_METHOD_GENATT,
    "legrad": pb.RELEVANCE_METHOD_LEGRAD,
}
MEASURES: dict[Measure, pb.AttentionMeasure] = {
    "weights": pb.ATTENTION_MEASURE_UNSPECIFIED,
    "rollout": pb.ATTENTION_MEASURE_ROLLOUT,
    "entropy": pb.ATTENTION_MEASURE_ENTROPY,
    "distance": pb.ATTENTION_MEASURE_DISTANCE,
    "contribution": pb.ATTENTION_MEASURE_CONTRIBUTION,
    "contribution_rollout": pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT,
}
STATISTIC_NUMBERS: dict[Statistic, Any] = {
    statistic: pb.AttentionStatistic.Value(f"ATTENTION_STATISTIC_{statistic.upper()}") for statistic in STATISTICS
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
        inputs=write_tensors(inputs),
        outputs=wanted,
        hidden_states=_write_hidden_states(hidden_states),
        **_shared(model, version, attention, priority),
    )


def classify_request(
    image: ImageSource | None,
    text: str | None,
    pair: Pair | None,
    model: str,
    version: str,
    top_k: int,
    truncate: bool,
    attention: AttentionRequest | None,
    priority: int,
    hidden_states: HiddenStatesRequest | None = None,
    candidate_labels: Sequence[str] = (),
    label_template: str = "",
    relevance: RelevanceRequest | None = None,
) -> rpc.ClassifyRequest:
    """Build a request from an image, a text or a pair of texts.

    Raises:
        InvalidCall: An argument cannot be sent, or not exactly one of image, text and pair is given.
    """
    return rpc.ClassifyRequest(
        top_k=checks.integer("top_k", top_k, 0, checks.MAX_INT32),
        truncate=checks.flag("truncate", truncate),
        **write_input(image=image, text=text, pair=pair),
        hidden_states=_write_hidden_states(hidden_states),
        relevance=_write_relevance(relevance),
        **_candidates(candidate_labels, label_template),
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
    dimensions: int = 0,
    vector_format: VectorFormat = "float32",
    max_terms: int = 0,
    with_terms: bool = False,
    role: TextRole = "document",
) -> rpc.EmbedRequest:
    """Build a request from an image or a text; raises as `classify_request`."""
    return rpc.EmbedRequest(
        truncate=checks.flag("truncate", truncate),
        prompt=checks.name("prompt", prompt),
        **write_input(image=image, text=text),
        hidden_states=_write_hidden_states(hidden_states),
        **_vector(dimensions, vector_format, max_terms, with_terms, role),
        **_shared(model, version, attention, priority),
    )


def _vector(
    dimensions: int, vector_format: VectorFormat, max_terms: int, with_terms: bool, role: TextRole
) -> dict[str, Any]:
    """Write what is wanted of vectors, as fields of rpc.EmbedRequest."""
    checks.choice("vector_format", vector_format, tuple(_VECTOR_FORMATS))
    checks.choice("role", role, tuple(_ROLES))
    return {
        "dimensions": checks.integer("dimensions", dimensions, 0, checks.MAX_INT32),
        "vector_format": _VECTOR_FORMATS[vector_format],
        "max_terms": checks.integer("max_terms", max_terms, 0, checks.MAX_INT32),
        "with_terms": checks.flag("with_terms", with_terms),
        "role": _ROLES[role],
    }


def classify_many_request(
    images: Sequence[ImageSource] | None = None,
    texts: Sequence[str] | None = None,
    pairs: Sequence[Pair] | None = None,
    *,
    model: str = "",
    version: str = "",
    top_k: int = 5,
    truncate: bool = False,
    attention: AttentionRequest | None = None,
    priority: int = 0,
    hidden_states: HiddenStatesRequest | None = None,
    candidate_labels: Sequence[str] = (),
    label_template: str = "",
    relevance: RelevanceRequest | None = None,
) -> rpc.ClassifyRequest:
    """Build a request from several images, texts or pairs of texts; raises as `classify_request`."""
    return rpc.ClassifyRequest(
        top_k=checks.integer("top_k", top_k, 0, checks.MAX_INT32),
        truncate=checks.flag("truncate", truncate),
        **write_input(images=images, texts=texts, pairs=pairs),
        hidden_states=_write_hidden_states(hidden_states),
        relevance=_write_relevance(relevance),
        **_candidates(candidate_labels, label_template),
        **_shared(model, version, attention, priority),
    )


def embed_many_request(
    images: Sequence[ImageSource] | None = None,
    texts: Sequence[str] | None = None,
    *,
    model: str = "",
    version: str = "",
    truncate: bool = False,
    attention: AttentionRequest | None = None,
    priority: int = 0,
    prompt: str = "",
    hidden_states: HiddenStatesRequest | None = None,
    dimensions: int = 0,
    vector_format: VectorFormat = "float32",
    max_terms: int = 0,
    with_terms: bool = False,
    role: TextRole = "document",
) -> rpc.EmbedRequest:
    """Build a request from several images or texts; raises as `classify_request`."""
    return rpc.EmbedRequest(
        truncate=checks.flag("truncate", truncate),
        prompt=checks.name("prompt", prompt),
        **write_input(images=images, texts=texts),
        hidden_states=_write_hidden_states(hidden_states),
        **_vector(dimensions, vector_format, max_terms, with_terms, role),
        **_shared(model, version, attention, priority),
    )


def rank_request(
    query: str,
    documents: Sequence[str],
    model: str,
    version: str,
    top_k: int,
    raw_scores: bool,
    truncate: bool,
    attention: AttentionRequest | None,
    priority: int,
    *,
    hidden_states: HiddenStatesRequest | None = None,
    token_matches: bool = False,
) -> rpc.RankRequest:
    """Build a request from a query and documents.

    Raises:
        InvalidCall: An argument cannot be sent.
    """
    return rpc.RankRequest(
        query=checks.text("query", query),
        documents=pb.Texts(items=checks.texts("documents", documents)),
        top_k=checks.integer("top_k", top_k, 0, checks.MAX_INT32),
        raw_scores=checks.flag("raw_scores", raw_scores),
        token_matches=checks.flag("token_matches", token_matches),
        truncate=checks.flag("truncate", truncate),
        hidden_states=_write_hidden_states(hidden_states),
        **_shared(model, version, attention, priority),
    )


def align_request(
    image: ImageSource, text: str, model: str, version: str, truncate: bool, priority: int
) -> rpc.AlignRequest:
    """Build a request from an image and a text; raises as `classify_request`."""
    return rpc.AlignRequest(
        **write_input(image=image),
        **write_input(text=text),
        model=checks.name("model", model),
        version=checks.name("version", version),
        truncate=checks.flag("truncate", truncate),
        priority=checks.integer("priority", priority, 0, checks.MAX_UINT32),
    )


def similarity_relevance(*, why: bool, pairs: bool, drop_special: bool) -> pb.SimilarityRelevanceRequest | None:
    """Write which reasons come with a similarity; None for none.

    Raises:
        InvalidCall: An argument cannot be sent.
    """
    given = {"pairs": checks.flag("pairs", pairs), "drop_special": checks.flag("drop_special", drop_special)}
    if not (checks.flag("why", why) or pairs):
        if drop_special:
            raise checks.invalid("drop_special", drop_special, "False without why")
        return None
    return pb.SimilarityRelevanceRequest(**given)


def compare_request(
    first: TextOrImage,
    second: TextOrImage,
    relevance: pb.SimilarityRelevanceRequest | None,
    model: str,
    version: str,
    prompts: tuple[str, str],
    truncate: bool,
    priority: int,
) -> rpc.CompareRequest:
    """Build a request from two inputs; raises as `classify_request`."""
    first_prompt, second_prompt = checks.texts("prompts", prompts)
    return rpc.CompareRequest(
        first=_write_compared(first, first_prompt),
        second=_write_compared(second, second_prompt),
        relevance=relevance,
        model=checks.name("model", model),
        version=checks.name("version", version),
        truncate=checks.flag("truncate", truncate),
        priority=checks.integer("priority", priority, 0, checks.MAX_UINT32),
    )


def _write_compared(one: TextOrImage, prompt: str) -> rpc.CompareInput:
    return rpc.CompareInput(
        **(write_input(text=one) if isinstance(one, str) else write_input(image=one)), prompt=prompt
    )


def attend_request(
    image: ImageSource | None = None,
    text: str | None = None,
    pair: Pair | None = None,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    model: str = "",
    version: str = "",
    truncate: bool = False,
    attention: AttentionRequest | None = None,
    priority: int = 0,
    prompt: str = "",
) -> rpc.AttendRequest:
    """Build a request from an image, a text, a pair of texts or arrays; raises as `classify_request`."""
    return rpc.AttendRequest(
        truncate=checks.flag("truncate", truncate),
        prompt=checks.name("prompt", prompt),
        **write_input(image=image, text=text, pair=pair, inputs=inputs),
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


def _candidates(labels: Sequence[str], template: str) -> dict[str, Any]:
    return {
        "candidate_labels": checks.texts("candidate_labels", () if labels is None else labels),
        "label_template": checks.name("label_template", template),
    }


def _shared(model: str, version: str, attention: AttentionRequest | None, priority: int) -> dict[str, Any]:
    """Return the fields that every request has."""
    return {
        "model": checks.name("model", model),
        "version": checks.name("version", version),
        "attention": write_attention(attention),
        "priority": checks.integer("priority", priority, 0, checks.MAX_UINT32),
    }


def write_attention(attention: AttentionRequest | None, field: str = "attention") -> pb.AttentionRequest | None:
    """Write what is wanted of attention; `field` is what a call names it.

    Raises:
        InvalidCall: It is something else.
    """
    if attention is None:
        return None
    if not isinstance(attention, AttentionRequest):
        raise checks.invalid(field, attention, "an AttentionRequest")
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
        rows_of_text=TEXTS_OF_PAIR[attention.rows_of_text],
        keys_of_text=TEXTS_OF_PAIR[attention.keys_of_text],
        statistics=[STATISTIC_NUMBERS[statistic] for statistic in attention.statistics],
        spans=[pb.TextSpan(start=start, end=end) for start, end in attention.spans],
        boxes=[pb.Box(left=left, top=top, right=right, bottom=low) for left, top, right, low in attention.boxes],
    )


def _write_relevance(relevance: RelevanceRequest | None) -> pb.RelevanceRequest | None:
    if relevance is None:
        return None
    if not isinstance(relevance, RelevanceRequest):
        raise checks.invalid("relevance", relevance, "a RelevanceRequest")
    checks.choice("relevance.method", relevance.method, tuple(RELEVANCE_METHODS))
    return pb.RelevanceRequest(
        label=checks.name("relevance.label", relevance.label),
        against=checks.name("relevance.against", relevance.against),
        drop_special=checks.flag("relevance.drop_special", relevance.drop_special),
        method=RELEVANCE_METHODS[relevance.method],
        steps=checks.integer("relevance.steps", relevance.steps, 0, checks.MAX_INT32),
        labels=checks.texts("relevance.labels", relevance.labels),
        top=checks.integer("relevance.top", relevance.top, 0, checks.MAX_INT32),
        by_layer=checks.flag("relevance.by_layer", relevance.by_layer),
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
