from regard.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VectorFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VECTOR_FORMAT_UNSPECIFIED: _ClassVar[VectorFormat]
    VECTOR_FORMAT_FLOAT16: _ClassVar[VectorFormat]
    VECTOR_FORMAT_INT8: _ClassVar[VectorFormat]
    VECTOR_FORMAT_BINARY: _ClassVar[VectorFormat]

class TextRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEXT_ROLE_UNSPECIFIED: _ClassVar[TextRole]
    TEXT_ROLE_QUERY: _ClassVar[TextRole]
    TEXT_ROLE_DOCUMENT: _ClassVar[TextRole]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_TARGET: _ClassVar[FinishReason]
VECTOR_FORMAT_UNSPECIFIED: VectorFormat
VECTOR_FORMAT_FLOAT16: VectorFormat
VECTOR_FORMAT_INT8: VectorFormat
VECTOR_FORMAT_BINARY: VectorFormat
TEXT_ROLE_UNSPECIFIED: TextRole
TEXT_ROLE_QUERY: TextRole
TEXT_ROLE_DOCUMENT: TextRole
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_TARGET: FinishReason

class PredictRequest(_message.Message):
    __slots__ = ("model", "version", "inputs", "outputs", "attention", "priority", "timeout_ms", "hidden_states")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    inputs: _containers.MessageMap[str, _types_pb2.Tensor]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    attention: _types_pb2.AttentionRequest
    priority: int
    timeout_ms: int
    hidden_states: _types_pb2.HiddenStatesRequest
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., inputs: _Optional[_Mapping[str, _types_pb2.Tensor]] = ..., outputs: _Optional[_Iterable[str]] = ..., attention: _Optional[_Union[_types_pb2.AttentionRequest, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStatesRequest, _Mapping]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("model", "version", "outputs", "attention", "timings", "hidden_states")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    outputs: _containers.MessageMap[str, _types_pb2.Tensor]
    attention: _types_pb2.Attention
    timings: _types_pb2.Timings
    hidden_states: _types_pb2.HiddenStates
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., outputs: _Optional[_Mapping[str, _types_pb2.Tensor]] = ..., attention: _Optional[_Union[_types_pb2.Attention, _Mapping]] = ..., timings: _Optional[_Union[_types_pb2.Timings, _Mapping]] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStates, _Mapping]] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "version", "image", "text", "texts", "images", "pair", "pairs", "top_k", "truncate", "attention", "priority", "timeout_ms", "hidden_states", "candidate_labels", "label_template", "relevance")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PAIR_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_LABELS_FIELD_NUMBER: _ClassVar[int]
    LABEL_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    image: bytes
    text: str
    texts: _types_pb2.Texts
    images: _types_pb2.Images
    pair: _types_pb2.TextPair
    pairs: _types_pb2.TextPairs
    top_k: int
    truncate: bool
    attention: _types_pb2.AttentionRequest
    priority: int
    timeout_ms: int
    hidden_states: _types_pb2.HiddenStatesRequest
    candidate_labels: _containers.RepeatedScalarFieldContainer[str]
    label_template: str
    relevance: _types_pb2.RelevanceRequest
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., image: _Optional[bytes] = ..., text: _Optional[str] = ..., texts: _Optional[_Union[_types_pb2.Texts, _Mapping]] = ..., images: _Optional[_Union[_types_pb2.Images, _Mapping]] = ..., pair: _Optional[_Union[_types_pb2.TextPair, _Mapping]] = ..., pairs: _Optional[_Union[_types_pb2.TextPairs, _Mapping]] = ..., top_k: _Optional[int] = ..., truncate: bool = ..., attention: _Optional[_Union[_types_pb2.AttentionRequest, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStatesRequest, _Mapping]] = ..., candidate_labels: _Optional[_Iterable[str]] = ..., label_template: _Optional[str] = ..., relevance: _Optional[_Union[_types_pb2.RelevanceRequest, _Mapping]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("model", "version", "labels", "truncated", "attention", "timings", "results", "hidden_states", "relevance", "relevances")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    RELEVANCES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    truncated: bool
    attention: _types_pb2.Attention
    timings: _types_pb2.Timings
    results: _containers.RepeatedCompositeFieldContainer[ClassifyResult]
    hidden_states: _types_pb2.HiddenStates
    relevance: _types_pb2.Relevance
    relevances: _containers.RepeatedCompositeFieldContainer[_types_pb2.Relevance]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., truncated: bool = ..., attention: _Optional[_Union[_types_pb2.Attention, _Mapping]] = ..., timings: _Optional[_Union[_types_pb2.Timings, _Mapping]] = ..., results: _Optional[_Iterable[_Union[ClassifyResult, _Mapping]]] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStates, _Mapping]] = ..., relevance: _Optional[_Union[_types_pb2.Relevance, _Mapping]] = ..., relevances: _Optional[_Iterable[_Union[_types_pb2.Relevance, _Mapping]]] = ...) -> None: ...

class ClassifyResult(_message.Message):
    __slots__ = ("labels", "truncated", "attention", "error", "hidden_states", "relevance", "relevances")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    RELEVANCES_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    truncated: bool
    attention: _types_pb2.Attention
    error: _types_pb2.InputError
    hidden_states: _types_pb2.HiddenStates
    relevance: _types_pb2.Relevance
    relevances: _containers.RepeatedCompositeFieldContainer[_types_pb2.Relevance]
    def __init__(self, labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., truncated: bool = ..., attention: _Optional[_Union[_types_pb2.Attention, _Mapping]] = ..., error: _Optional[_Union[_types_pb2.InputError, _Mapping]] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStates, _Mapping]] = ..., relevance: _Optional[_Union[_types_pb2.Relevance, _Mapping]] = ..., relevances: _Optional[_Iterable[_Union[_types_pb2.Relevance, _Mapping]]] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("index", "name", "probability")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    probability: float
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "version", "image", "text", "texts", "images", "token_ids", "truncate", "attention", "priority", "timeout_ms", "prompt", "hidden_states", "dimensions", "vector_format", "max_terms", "with_terms", "role")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FORMAT_FIELD_NUMBER: _ClassVar[int]
    MAX_TERMS_FIELD_NUMBER: _ClassVar[int]
    WITH_TERMS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    image: bytes
    text: str
    texts: _types_pb2.Texts
    images: _types_pb2.Images
    token_ids: _types_pb2.TokenIdLists
    truncate: bool
    attention: _types_pb2.AttentionRequest
    priority: int
    timeout_ms: int
    prompt: str
    hidden_states: _types_pb2.HiddenStatesRequest
    dimensions: int
    vector_format: VectorFormat
    max_terms: int
    with_terms: bool
    role: TextRole
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., image: _Optional[bytes] = ..., text: _Optional[str] = ..., texts: _Optional[_Union[_types_pb2.Texts, _Mapping]] = ..., images: _Optional[_Union[_types_pb2.Images, _Mapping]] = ..., token_ids: _Optional[_Union[_types_pb2.TokenIdLists, _Mapping]] = ..., truncate: bool = ..., attention: _Optional[_Union[_types_pb2.AttentionRequest, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., prompt: _Optional[str] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStatesRequest, _Mapping]] = ..., dimensions: _Optional[int] = ..., vector_format: _Optional[_Union[VectorFormat, str]] = ..., max_terms: _Optional[int] = ..., with_terms: bool = ..., role: _Optional[_Union[TextRole, str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("model", "version", "vector", "truncated", "attention", "timings", "results", "hidden_states", "vector_scale", "sparse", "token_vectors", "num_tokens")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_SCALE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_VECTORS_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    vector: _types_pb2.Tensor
    truncated: bool
    attention: _types_pb2.Attention
    timings: _types_pb2.Timings
    results: _containers.RepeatedCompositeFieldContainer[EmbedResult]
    hidden_states: _types_pb2.HiddenStates
    vector_scale: float
    sparse: SparseVector
    token_vectors: TokenVectors
    num_tokens: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., vector: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ..., truncated: bool = ..., attention: _Optional[_Union[_types_pb2.Attention, _Mapping]] = ..., timings: _Optional[_Union[_types_pb2.Timings, _Mapping]] = ..., results: _Optional[_Iterable[_Union[EmbedResult, _Mapping]]] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStates, _Mapping]] = ..., vector_scale: _Optional[float] = ..., sparse: _Optional[_Union[SparseVector, _Mapping]] = ..., token_vectors: _Optional[_Union[TokenVectors, _Mapping]] = ..., num_tokens: _Optional[int] = ...) -> None: ...

class SparseVector(_message.Message):
    __slots__ = ("dim", "indices", "values", "terms")
    DIM_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    dim: int
    indices: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    terms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dim: _Optional[int] = ..., indices: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., terms: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedResult(_message.Message):
    __slots__ = ("vector", "truncated", "attention", "error", "hidden_states", "vector_scale", "sparse", "token_vectors", "num_tokens")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_SCALE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_VECTORS_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    vector: _types_pb2.Tensor
    truncated: bool
    attention: _types_pb2.Attention
    error: _types_pb2.InputError
    hidden_states: _types_pb2.HiddenStates
    vector_scale: float
    sparse: SparseVector
    token_vectors: TokenVectors
    num_tokens: int
    def __init__(self, vector: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ..., truncated: bool = ..., attention: _Optional[_Union[_types_pb2.Attention, _Mapping]] = ..., error: _Optional[_Union[_types_pb2.InputError, _Mapping]] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStates, _Mapping]] = ..., vector_scale: _Optional[float] = ..., sparse: _Optional[_Union[SparseVector, _Mapping]] = ..., token_vectors: _Optional[_Union[TokenVectors, _Mapping]] = ..., num_tokens: _Optional[int] = ...) -> None: ...

class TokenVectors(_message.Message):
    __slots__ = ("vectors", "tokens")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    vectors: _types_pb2.Tensor
    tokens: _types_pb2.TokenSequence
    def __init__(self, vectors: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ..., tokens: _Optional[_Union[_types_pb2.TokenSequence, _Mapping]] = ...) -> None: ...

class TokenMatches(_message.Message):
    __slots__ = ("found", "similarities", "document_tokens")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    SIMILARITIES_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    found: _containers.RepeatedScalarFieldContainer[int]
    similarities: _containers.RepeatedScalarFieldContainer[float]
    document_tokens: _types_pb2.TokenSequence
    def __init__(self, found: _Optional[_Iterable[int]] = ..., similarities: _Optional[_Iterable[float]] = ..., document_tokens: _Optional[_Union[_types_pb2.TokenSequence, _Mapping]] = ...) -> None: ...

class AlignRequest(_message.Message):
    __slots__ = ("model", "version", "image", "text", "truncate", "priority", "timeout_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    image: bytes
    text: str
    truncate: bool
    priority: int
    timeout_ms: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., image: _Optional[bytes] = ..., text: _Optional[str] = ..., truncate: bool = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class AlignResponse(_message.Message):
    __slots__ = ("model", "version", "map", "truncated", "timings")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    map: _types_pb2.SimilarityMap
    truncated: bool
    timings: _types_pb2.Timings
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., map: _Optional[_Union[_types_pb2.SimilarityMap, _Mapping]] = ..., truncated: bool = ..., timings: _Optional[_Union[_types_pb2.Timings, _Mapping]] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("model", "version", "first", "second", "truncate", "priority", "timeout_ms", "relevance")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    first: CompareInput
    second: CompareInput
    truncate: bool
    priority: int
    timeout_ms: int
    relevance: _types_pb2.SimilarityRelevanceRequest
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., first: _Optional[_Union[CompareInput, _Mapping]] = ..., second: _Optional[_Union[CompareInput, _Mapping]] = ..., truncate: bool = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., relevance: _Optional[_Union[_types_pb2.SimilarityRelevanceRequest, _Mapping]] = ...) -> None: ...

class CompareInput(_message.Message):
    __slots__ = ("image", "text", "prompt")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    text: str
    prompt: str
    def __init__(self, image: _Optional[bytes] = ..., text: _Optional[str] = ..., prompt: _Optional[str] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("model", "version", "similarity", "first_truncated", "second_truncated", "relevance", "timings")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    FIRST_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    SECOND_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    similarity: float
    first_truncated: bool
    second_truncated: bool
    relevance: _types_pb2.SimilarityRelevance
    timings: _types_pb2.Timings
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., similarity: _Optional[float] = ..., first_truncated: bool = ..., second_truncated: bool = ..., relevance: _Optional[_Union[_types_pb2.SimilarityRelevance, _Mapping]] = ..., timings: _Optional[_Union[_types_pb2.Timings, _Mapping]] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("model", "version", "query", "documents", "truncate", "top_k", "raw_scores", "attention", "priority", "timeout_ms", "hidden_states", "token_matches")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_MATCHES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    query: str
    documents: _types_pb2.Texts
    truncate: bool
    top_k: int
    raw_scores: bool
    attention: _types_pb2.AttentionRequest
    priority: int
    timeout_ms: int
    hidden_states: _types_pb2.HiddenStatesRequest
    token_matches: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., query: _Optional[str] = ..., documents: _Optional[_Union[_types_pb2.Texts, _Mapping]] = ..., truncate: bool = ..., top_k: _Optional[int] = ..., raw_scores: bool = ..., attention: _Optional[_Union[_types_pb2.AttentionRequest, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStatesRequest, _Mapping]] = ..., token_matches: bool = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("model", "version", "documents", "timings", "query_tokens", "num_tokens")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    QUERY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    documents: _containers.RepeatedCompositeFieldContainer[RankedDocument]
    timings: _types_pb2.Timings
    query_tokens: _types_pb2.TokenSequence
    num_tokens: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., documents: _Optional[_Iterable[_Union[RankedDocument, _Mapping]]] = ..., timings: _Optional[_Union[_types_pb2.Timings, _Mapping]] = ..., query_tokens: _Optional[_Union[_types_pb2.TokenSequence, _Mapping]] = ..., num_tokens: _Optional[int] = ...) -> None: ...

class RankedDocument(_message.Message):
    __slots__ = ("index", "score", "truncated", "attention", "error", "hidden_states", "token_matches")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_MATCHES_FIELD_NUMBER: _ClassVar[int]
    index: int
    score: float
    truncated: bool
    attention: _types_pb2.Attention
    error: _types_pb2.InputError
    hidden_states: _types_pb2.HiddenStates
    token_matches: TokenMatches
    def __init__(self, index: _Optional[int] = ..., score: _Optional[float] = ..., truncated: bool = ..., attention: _Optional[_Union[_types_pb2.Attention, _Mapping]] = ..., error: _Optional[_Union[_types_pb2.InputError, _Mapping]] = ..., hidden_states: _Optional[_Union[_types_pb2.HiddenStates, _Mapping]] = ..., token_matches: _Optional[_Union[TokenMatches, _Mapping]] = ...) -> None: ...

class AttendRequest(_message.Message):
    __slots__ = ("model", "version", "image", "text", "tensors", "pair", "truncate", "attention", "priority", "timeout_ms", "prompt")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    PAIR_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    image: bytes
    text: str
    tensors: _types_pb2.TensorMap
    pair: _types_pb2.TextPair
    truncate: bool
    attention: _types_pb2.AttentionRequest
    priority: int
    timeout_ms: int
    prompt: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., image: _Optional[bytes] = ..., text: _Optional[str] = ..., tensors: _Optional[_Union[_types_pb2.TensorMap, _Mapping]] = ..., pair: _Optional[_Union[_types_pb2.TextPair, _Mapping]] = ..., truncate: bool = ..., attention: _Optional[_Union[_types_pb2.AttentionRequest, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., prompt: _Optional[str] = ...) -> None: ...

class AttendResponse(_message.Message):
    __slots__ = ("model", "version", "attention", "truncated", "timings")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    attention: _types_pb2.Attention
    truncated: bool
    timings: _types_pb2.Timings
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., attention: _Optional[_Union[_types_pb2.Attention, _Mapping]] = ..., truncated: bool = ..., timings: _Optional[_Union[_types_pb2.Timings, _Mapping]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("model", "version", "text", "truncate", "start", "max_tokens", "num_beams", "num_results", "length_penalty", "sampling", "stop", "target", "alternatives", "cross_attention", "self_attention", "priority", "timeout_ms", "audio", "relevance")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_BEAMS_FIELD_NUMBER: _ClassVar[int]
    NUM_RESULTS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    CROSS_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    SELF_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    text: str
    truncate: bool
    start: str
    max_tokens: int
    num_beams: int
    num_results: int
    length_penalty: float
    sampling: Sampling
    stop: _containers.RepeatedScalarFieldContainer[str]
    target: str
    alternatives: int
    cross_attention: _types_pb2.AttentionRequest
    self_attention: _types_pb2.AttentionRequest
    priority: int
    timeout_ms: int
    audio: bytes
    relevance: GenerationRelevanceRequest
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., text: _Optional[str] = ..., truncate: bool = ..., start: _Optional[str] = ..., max_tokens: _Optional[int] = ..., num_beams: _Optional[int] = ..., num_results: _Optional[int] = ..., length_penalty: _Optional[float] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., stop: _Optional[_Iterable[str]] = ..., target: _Optional[str] = ..., alternatives: _Optional[int] = ..., cross_attention: _Optional[_Union[_types_pb2.AttentionRequest, _Mapping]] = ..., self_attention: _Optional[_Union[_types_pb2.AttentionRequest, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., audio: _Optional[bytes] = ..., relevance: _Optional[_Union[GenerationRelevanceRequest, _Mapping]] = ...) -> None: ...

class GenerationRelevanceRequest(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class GenerationRelevance(_message.Message):
    __slots__ = ("tokens", "source", "target", "target_tokens", "num_start_tokens", "rest", "score", "error", "relative_error", "labels", "source_words")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_START_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WORDS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    source: _types_pb2.Tensor
    target: _types_pb2.Tensor
    target_tokens: _containers.RepeatedScalarFieldContainer[str]
    num_start_tokens: int
    rest: _containers.RepeatedScalarFieldContainer[float]
    score: _containers.RepeatedScalarFieldContainer[float]
    error: _containers.RepeatedScalarFieldContainer[float]
    relative_error: _containers.RepeatedScalarFieldContainer[float]
    labels: _containers.RepeatedScalarFieldContainer[str]
    source_words: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., source: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ..., target: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ..., target_tokens: _Optional[_Iterable[str]] = ..., num_start_tokens: _Optional[int] = ..., rest: _Optional[_Iterable[float]] = ..., score: _Optional[_Iterable[float]] = ..., error: _Optional[_Iterable[float]] = ..., relative_error: _Optional[_Iterable[float]] = ..., labels: _Optional[_Iterable[str]] = ..., source_words: _Optional[_Iterable[int]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "seed")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("start", "token", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: GenerationStart
    token: GeneratedToken
    end: GenerationEnd
    def __init__(self, start: _Optional[_Union[GenerationStart, _Mapping]] = ..., token: _Optional[_Union[GeneratedToken, _Mapping]] = ..., end: _Optional[_Union[GenerationEnd, _Mapping]] = ...) -> None: ...

class GenerationStart(_message.Message):
    __slots__ = ("model", "version", "source", "truncated", "sound")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    SOUND_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    source: _types_pb2.TokenSequence
    truncated: bool
    sound: _types_pb2.SoundPositions
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., source: _Optional[_Union[_types_pb2.TokenSequence, _Mapping]] = ..., truncated: bool = ..., sound: _Optional[_Union[_types_pb2.SoundPositions, _Mapping]] = ...) -> None: ...

class GeneratedToken(_message.Message):
    __slots__ = ("token", "text", "log_probability", "alternatives", "attention")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    token: int
    text: str
    log_probability: float
    alternatives: _containers.RepeatedCompositeFieldContainer[Alternative]
    attention: _containers.RepeatedCompositeFieldContainer[_types_pb2.LayerAttention]
    def __init__(self, token: _Optional[int] = ..., text: _Optional[str] = ..., log_probability: _Optional[float] = ..., alternatives: _Optional[_Iterable[_Union[Alternative, _Mapping]]] = ..., attention: _Optional[_Iterable[_Union[_types_pb2.LayerAttention, _Mapping]]] = ...) -> None: ...

class Alternative(_message.Message):
    __slots__ = ("token", "text", "log_probability")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    token: int
    text: str
    log_probability: float
    def __init__(self, token: _Optional[int] = ..., text: _Optional[str] = ..., log_probability: _Optional[float] = ...) -> None: ...

class GeneratedText(_message.Message):
    __slots__ = ("text", "log_probability", "finish_reason", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    log_probability: float
    finish_reason: FinishReason
    tokens: _containers.RepeatedCompositeFieldContainer[GeneratedToken]
    def __init__(self, text: _Optional[str] = ..., log_probability: _Optional[float] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., tokens: _Optional[_Iterable[_Union[GeneratedToken, _Mapping]]] = ...) -> None: ...

class GenerationEnd(_message.Message):
    __slots__ = ("results", "timings", "start", "relevance")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[GeneratedText]
    timings: GenerationTimings
    start: str
    relevance: GenerationRelevance
    def __init__(self, results: _Optional[_Iterable[_Union[GeneratedText, _Mapping]]] = ..., timings: _Optional[_Union[GenerationTimings, _Mapping]] = ..., start: _Optional[str] = ..., relevance: _Optional[_Union[GenerationRelevance, _Mapping]] = ...) -> None: ...

class GenerationTimings(_message.Message):
    __slots__ = ("decode_ns", "encode_ns", "first_token_ns", "total_ns", "steps", "explain_ns")
    DECODE_NS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_NS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_NS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_NS_FIELD_NUMBER: _ClassVar[int]
    decode_ns: int
    encode_ns: int
    first_token_ns: int
    total_ns: int
    steps: int
    explain_ns: int
    def __init__(self, decode_ns: _Optional[int] = ..., encode_ns: _Optional[int] = ..., first_token_ns: _Optional[int] = ..., total_ns: _Optional[int] = ..., steps: _Optional[int] = ..., explain_ns: _Optional[int] = ...) -> None: ...

class GenerateTextResponse(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: GenerationStart
    end: GenerationEnd
    def __init__(self, start: _Optional[_Union[GenerationStart, _Mapping]] = ..., end: _Optional[_Union[GenerationEnd, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "versions")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_types_pb2.Model]
    versions: _containers.RepeatedCompositeFieldContainer[VersionState]
    def __init__(self, models: _Optional[_Iterable[_Union[_types_pb2.Model, _Mapping]]] = ..., versions: _Optional[_Iterable[_Union[VersionState, _Mapping]]] = ...) -> None: ...

class VersionState(_message.Message):
    __slots__ = ("model", "version", "state", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    state: str
    reason: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.Model
    def __init__(self, model: _Optional[_Union[_types_pb2.Model, _Mapping]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.Model
    def __init__(self, model: _Optional[_Union[_types_pb2.Model, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
