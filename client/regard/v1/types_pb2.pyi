from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_INT64: _ClassVar[DataType]
    DATA_TYPE_INT32: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_BOOL: _ClassVar[DataType]
    DATA_TYPE_FLOAT64: _ClassVar[DataType]
    DATA_TYPE_INT8: _ClassVar[DataType]
    DATA_TYPE_INT16: _ClassVar[DataType]
    DATA_TYPE_UINT16: _ClassVar[DataType]
    DATA_TYPE_UINT32: _ClassVar[DataType]
    DATA_TYPE_UINT64: _ClassVar[DataType]

class AttentionStatistic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTENTION_STATISTIC_UNSPECIFIED: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_ENTROPY: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_DISTANCE: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_FIRST: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_SEPARATOR: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_REGISTERS: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_SPECIAL: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_SINK: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_PREVIOUS: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_NEXT: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_CURRENT: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_DUPLICATE: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_INDUCTION: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_REGION: _ClassVar[AttentionStatistic]
    ATTENTION_STATISTIC_NORM: _ClassVar[AttentionStatistic]

class TextOfPair(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEXT_OF_PAIR_UNSPECIFIED: _ClassVar[TextOfPair]
    TEXT_OF_PAIR_FIRST: _ClassVar[TextOfPair]
    TEXT_OF_PAIR_SECOND: _ClassVar[TextOfPair]

class HiddenStatesPooling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HIDDEN_STATES_POOLING_UNSPECIFIED: _ClassVar[HiddenStatesPooling]
    HIDDEN_STATES_POOLING_CLS: _ClassVar[HiddenStatesPooling]
    HIDDEN_STATES_POOLING_MEAN: _ClassVar[HiddenStatesPooling]
    HIDDEN_STATES_POOLING_LAST: _ClassVar[HiddenStatesPooling]

class RelevanceMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELEVANCE_METHOD_UNSPECIFIED: _ClassVar[RelevanceMethod]
    RELEVANCE_METHOD_GRADIENT: _ClassVar[RelevanceMethod]
    RELEVANCE_METHOD_INTEGRATED_GRADIENTS: _ClassVar[RelevanceMethod]
    RELEVANCE_METHOD_GENATT: _ClassVar[RelevanceMethod]
    RELEVANCE_METHOD_LEGRAD: _ClassVar[RelevanceMethod]

class HeadReduction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_REDUCTION_UNSPECIFIED: _ClassVar[HeadReduction]
    HEAD_REDUCTION_MEAN: _ClassVar[HeadReduction]
    HEAD_REDUCTION_MAX: _ClassVar[HeadReduction]
    HEAD_REDUCTION_MIN: _ClassVar[HeadReduction]

class AttentionMeasure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTENTION_MEASURE_UNSPECIFIED: _ClassVar[AttentionMeasure]
    ATTENTION_MEASURE_ROLLOUT: _ClassVar[AttentionMeasure]
    ATTENTION_MEASURE_ENTROPY: _ClassVar[AttentionMeasure]
    ATTENTION_MEASURE_DISTANCE: _ClassVar[AttentionMeasure]
    ATTENTION_MEASURE_CONTRIBUTION: _ClassVar[AttentionMeasure]
    ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT: _ClassVar[AttentionMeasure]

class AttentionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTENTION_KIND_UNSPECIFIED: _ClassVar[AttentionKind]
    ATTENTION_KIND_SELF: _ClassVar[AttentionKind]
    ATTENTION_KIND_CROSS: _ClassVar[AttentionKind]
    ATTENTION_KIND_CAUSAL: _ClassVar[AttentionKind]

class Modality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODALITY_UNSPECIFIED: _ClassVar[Modality]
    MODALITY_TEXT: _ClassVar[Modality]
    MODALITY_IMAGE: _ClassVar[Modality]
    MODALITY_TEXT_OR_IMAGE: _ClassVar[Modality]
    MODALITY_AUDIO: _ClassVar[Modality]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_INT64: DataType
DATA_TYPE_INT32: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_BOOL: DataType
DATA_TYPE_FLOAT64: DataType
DATA_TYPE_INT8: DataType
DATA_TYPE_INT16: DataType
DATA_TYPE_UINT16: DataType
DATA_TYPE_UINT32: DataType
DATA_TYPE_UINT64: DataType
ATTENTION_STATISTIC_UNSPECIFIED: AttentionStatistic
ATTENTION_STATISTIC_ENTROPY: AttentionStatistic
ATTENTION_STATISTIC_DISTANCE: AttentionStatistic
ATTENTION_STATISTIC_FIRST: AttentionStatistic
ATTENTION_STATISTIC_SEPARATOR: AttentionStatistic
ATTENTION_STATISTIC_REGISTERS: AttentionStatistic
ATTENTION_STATISTIC_SPECIAL: AttentionStatistic
ATTENTION_STATISTIC_SINK: AttentionStatistic
ATTENTION_STATISTIC_PREVIOUS: AttentionStatistic
ATTENTION_STATISTIC_NEXT: AttentionStatistic
ATTENTION_STATISTIC_CURRENT: AttentionStatistic
ATTENTION_STATISTIC_DUPLICATE: AttentionStatistic
ATTENTION_STATISTIC_INDUCTION: AttentionStatistic
ATTENTION_STATISTIC_REGION: AttentionStatistic
ATTENTION_STATISTIC_NORM: AttentionStatistic
TEXT_OF_PAIR_UNSPECIFIED: TextOfPair
TEXT_OF_PAIR_FIRST: TextOfPair
TEXT_OF_PAIR_SECOND: TextOfPair
HIDDEN_STATES_POOLING_UNSPECIFIED: HiddenStatesPooling
HIDDEN_STATES_POOLING_CLS: HiddenStatesPooling
HIDDEN_STATES_POOLING_MEAN: HiddenStatesPooling
HIDDEN_STATES_POOLING_LAST: HiddenStatesPooling
RELEVANCE_METHOD_UNSPECIFIED: RelevanceMethod
RELEVANCE_METHOD_GRADIENT: RelevanceMethod
RELEVANCE_METHOD_INTEGRATED_GRADIENTS: RelevanceMethod
RELEVANCE_METHOD_GENATT: RelevanceMethod
RELEVANCE_METHOD_LEGRAD: RelevanceMethod
HEAD_REDUCTION_UNSPECIFIED: HeadReduction
HEAD_REDUCTION_MEAN: HeadReduction
HEAD_REDUCTION_MAX: HeadReduction
HEAD_REDUCTION_MIN: HeadReduction
ATTENTION_MEASURE_UNSPECIFIED: AttentionMeasure
ATTENTION_MEASURE_ROLLOUT: AttentionMeasure
ATTENTION_MEASURE_ENTROPY: AttentionMeasure
ATTENTION_MEASURE_DISTANCE: AttentionMeasure
ATTENTION_MEASURE_CONTRIBUTION: AttentionMeasure
ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT: AttentionMeasure
ATTENTION_KIND_UNSPECIFIED: AttentionKind
ATTENTION_KIND_SELF: AttentionKind
ATTENTION_KIND_CROSS: AttentionKind
ATTENTION_KIND_CAUSAL: AttentionKind
MODALITY_UNSPECIFIED: Modality
MODALITY_TEXT: Modality
MODALITY_IMAGE: Modality
MODALITY_TEXT_OR_IMAGE: Modality
MODALITY_AUDIO: Modality

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class TensorMap(_message.Message):
    __slots__ = ("tensors",)
    class TensorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.MessageMap[str, Tensor]
    def __init__(self, tensors: _Optional[_Mapping[str, Tensor]] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, items: _Optional[_Iterable[int]] = ...) -> None: ...

class TokenIdLists(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TokenIds]
    def __init__(self, items: _Optional[_Iterable[_Union[TokenIds, _Mapping]]] = ...) -> None: ...

class TextPair(_message.Message):
    __slots__ = ("first", "second")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    first: str
    second: str
    def __init__(self, first: _Optional[str] = ..., second: _Optional[str] = ...) -> None: ...

class TextPairs(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TextPair]
    def __init__(self, items: _Optional[_Iterable[_Union[TextPair, _Mapping]]] = ...) -> None: ...

class Images(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, items: _Optional[_Iterable[bytes]] = ...) -> None: ...

class InputError(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class AttentionRequest(_message.Message):
    __slots__ = ("layers", "heads", "head_reduction", "rows", "cls_only", "dtype", "keys", "measure", "residual_share", "value_weighted", "top_k", "drop_special", "renormalize", "rows_of_text", "keys_of_text", "statistics", "spans", "boxes")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    HEAD_REDUCTION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CLS_ONLY_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_SHARE_FIELD_NUMBER: _ClassVar[int]
    VALUE_WEIGHTED_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    DROP_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    RENORMALIZE_FIELD_NUMBER: _ClassVar[int]
    ROWS_OF_TEXT_FIELD_NUMBER: _ClassVar[int]
    KEYS_OF_TEXT_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedScalarFieldContainer[int]
    heads: _containers.RepeatedScalarFieldContainer[int]
    head_reduction: HeadReduction
    rows: _containers.RepeatedScalarFieldContainer[int]
    cls_only: bool
    dtype: DataType
    keys: _containers.RepeatedScalarFieldContainer[int]
    measure: AttentionMeasure
    residual_share: float
    value_weighted: bool
    top_k: int
    drop_special: bool
    renormalize: bool
    rows_of_text: TextOfPair
    keys_of_text: TextOfPair
    statistics: _containers.RepeatedScalarFieldContainer[AttentionStatistic]
    spans: _containers.RepeatedCompositeFieldContainer[TextSpan]
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    def __init__(self, layers: _Optional[_Iterable[int]] = ..., heads: _Optional[_Iterable[int]] = ..., head_reduction: _Optional[_Union[HeadReduction, str]] = ..., rows: _Optional[_Iterable[int]] = ..., cls_only: bool = ..., dtype: _Optional[_Union[DataType, str]] = ..., keys: _Optional[_Iterable[int]] = ..., measure: _Optional[_Union[AttentionMeasure, str]] = ..., residual_share: _Optional[float] = ..., value_weighted: bool = ..., top_k: _Optional[int] = ..., drop_special: bool = ..., renormalize: bool = ..., rows_of_text: _Optional[_Union[TextOfPair, str]] = ..., keys_of_text: _Optional[_Union[TextOfPair, str]] = ..., statistics: _Optional[_Iterable[_Union[AttentionStatistic, str]]] = ..., spans: _Optional[_Iterable[_Union[TextSpan, _Mapping]]] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ...) -> None: ...

class TextSpan(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class HiddenStatesRequest(_message.Message):
    __slots__ = ("layers", "positions", "drop_special", "pooling", "normalize", "dtype")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    DROP_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedScalarFieldContainer[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    drop_special: bool
    pooling: HiddenStatesPooling
    normalize: bool
    dtype: DataType
    def __init__(self, layers: _Optional[_Iterable[int]] = ..., positions: _Optional[_Iterable[int]] = ..., drop_special: bool = ..., pooling: _Optional[_Union[HiddenStatesPooling, str]] = ..., normalize: bool = ..., dtype: _Optional[_Union[DataType, str]] = ...) -> None: ...

class HiddenStates(_message.Message):
    __slots__ = ("layers", "tokens", "patches")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[LayerHiddenStates]
    tokens: TokenSequence
    patches: PatchGrid
    def __init__(self, layers: _Optional[_Iterable[_Union[LayerHiddenStates, _Mapping]]] = ..., tokens: _Optional[_Union[TokenSequence, _Mapping]] = ..., patches: _Optional[_Union[PatchGrid, _Mapping]] = ...) -> None: ...

class LayerHiddenStates(_message.Message):
    __slots__ = ("layer", "axes", "positions", "values", "scales", "offsets")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    layer: int
    axes: _containers.RepeatedScalarFieldContainer[str]
    positions: _containers.RepeatedScalarFieldContainer[int]
    values: Tensor
    scales: Tensor
    offsets: Tensor
    def __init__(self, layer: _Optional[int] = ..., axes: _Optional[_Iterable[str]] = ..., positions: _Optional[_Iterable[int]] = ..., values: _Optional[_Union[Tensor, _Mapping]] = ..., scales: _Optional[_Union[Tensor, _Mapping]] = ..., offsets: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class RelevanceRequest(_message.Message):
    __slots__ = ("label", "against", "drop_special", "method", "steps", "labels", "top", "by_layer")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    AGAINST_FIELD_NUMBER: _ClassVar[int]
    DROP_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    BY_LAYER_FIELD_NUMBER: _ClassVar[int]
    label: str
    against: str
    drop_special: bool
    method: RelevanceMethod
    steps: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    top: int
    by_layer: bool
    def __init__(self, label: _Optional[str] = ..., against: _Optional[str] = ..., drop_special: bool = ..., method: _Optional[_Union[RelevanceMethod, str]] = ..., steps: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., top: _Optional[int] = ..., by_layer: bool = ...) -> None: ...

class Relevance(_message.Message):
    __slots__ = ("index", "label", "against", "score", "values", "positions", "unsent", "rest", "error", "relative_error", "tokens", "patches", "method", "baseline", "words", "by_layer")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    AGAINST_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    UNSENT_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    BY_LAYER_FIELD_NUMBER: _ClassVar[int]
    index: int
    label: str
    against: str
    score: float
    values: Tensor
    positions: _containers.RepeatedScalarFieldContainer[int]
    unsent: float
    rest: float
    error: float
    relative_error: float
    tokens: TokenSequence
    patches: PatchGrid
    method: RelevanceMethod
    baseline: float
    words: _containers.RepeatedScalarFieldContainer[int]
    by_layer: LayerRelevance
    def __init__(self, index: _Optional[int] = ..., label: _Optional[str] = ..., against: _Optional[str] = ..., score: _Optional[float] = ..., values: _Optional[_Union[Tensor, _Mapping]] = ..., positions: _Optional[_Iterable[int]] = ..., unsent: _Optional[float] = ..., rest: _Optional[float] = ..., error: _Optional[float] = ..., relative_error: _Optional[float] = ..., tokens: _Optional[_Union[TokenSequence, _Mapping]] = ..., patches: _Optional[_Union[PatchGrid, _Mapping]] = ..., method: _Optional[_Union[RelevanceMethod, str]] = ..., baseline: _Optional[float] = ..., words: _Optional[_Iterable[int]] = ..., by_layer: _Optional[_Union[LayerRelevance, _Mapping]] = ...) -> None: ...

class LayerRelevance(_message.Message):
    __slots__ = ("values", "unsent", "added", "relative_error")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    UNSENT_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    values: Tensor
    unsent: _containers.RepeatedScalarFieldContainer[float]
    added: _containers.RepeatedScalarFieldContainer[float]
    relative_error: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Union[Tensor, _Mapping]] = ..., unsent: _Optional[_Iterable[float]] = ..., added: _Optional[_Iterable[float]] = ..., relative_error: _Optional[_Iterable[float]] = ...) -> None: ...

class SimilarityRelevanceRequest(_message.Message):
    __slots__ = ("drop_special", "pairs")
    DROP_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    drop_special: bool
    pairs: bool
    def __init__(self, drop_special: bool = ..., pairs: bool = ...) -> None: ...

class SimilarityRelevance(_message.Message):
    __slots__ = ("first", "second", "pairs", "unpaired", "error", "relative_error")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    UNPAIRED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    first: Relevance
    second: Relevance
    pairs: Tensor
    unpaired: float
    error: float
    relative_error: float
    def __init__(self, first: _Optional[_Union[Relevance, _Mapping]] = ..., second: _Optional[_Union[Relevance, _Mapping]] = ..., pairs: _Optional[_Union[Tensor, _Mapping]] = ..., unpaired: _Optional[float] = ..., error: _Optional[float] = ..., relative_error: _Optional[float] = ...) -> None: ...

class Attention(_message.Message):
    __slots__ = ("layers", "tokens", "patches")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[LayerAttention]
    tokens: TokenSequence
    patches: PatchGrid
    def __init__(self, layers: _Optional[_Iterable[_Union[LayerAttention, _Mapping]]] = ..., tokens: _Optional[_Union[TokenSequence, _Mapping]] = ..., patches: _Optional[_Union[PatchGrid, _Mapping]] = ...) -> None: ...

class LayerAttention(_message.Message):
    __slots__ = ("layer", "kind", "axes", "heads", "queries", "weights", "keys", "scale", "indices", "measure", "covered_layers", "window", "class_attention", "statistics")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    COVERED_LAYERS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    CLASS_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    layer: int
    kind: AttentionKind
    axes: _containers.RepeatedScalarFieldContainer[str]
    heads: _containers.RepeatedScalarFieldContainer[int]
    queries: _containers.RepeatedScalarFieldContainer[int]
    weights: Tensor
    keys: _containers.RepeatedScalarFieldContainer[int]
    scale: float
    indices: Tensor
    measure: AttentionMeasure
    covered_layers: _containers.RepeatedScalarFieldContainer[int]
    window: AttentionWindow
    class_attention: bool
    statistics: _containers.RepeatedScalarFieldContainer[AttentionStatistic]
    def __init__(self, layer: _Optional[int] = ..., kind: _Optional[_Union[AttentionKind, str]] = ..., axes: _Optional[_Iterable[str]] = ..., heads: _Optional[_Iterable[int]] = ..., queries: _Optional[_Iterable[int]] = ..., weights: _Optional[_Union[Tensor, _Mapping]] = ..., keys: _Optional[_Iterable[int]] = ..., scale: _Optional[float] = ..., indices: _Optional[_Union[Tensor, _Mapping]] = ..., measure: _Optional[_Union[AttentionMeasure, str]] = ..., covered_layers: _Optional[_Iterable[int]] = ..., window: _Optional[_Union[AttentionWindow, _Mapping]] = ..., class_attention: bool = ..., statistics: _Optional[_Iterable[_Union[AttentionStatistic, str]]] = ...) -> None: ...

class AttentionWindow(_message.Message):
    __slots__ = ("rows", "cols", "height", "width", "shift_rows", "shift_cols", "cell_size")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    SHIFT_ROWS_FIELD_NUMBER: _ClassVar[int]
    SHIFT_COLS_FIELD_NUMBER: _ClassVar[int]
    CELL_SIZE_FIELD_NUMBER: _ClassVar[int]
    rows: int
    cols: int
    height: int
    width: int
    shift_rows: int
    shift_cols: int
    cell_size: int
    def __init__(self, rows: _Optional[int] = ..., cols: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., shift_rows: _Optional[int] = ..., shift_cols: _Optional[int] = ..., cell_size: _Optional[int] = ...) -> None: ...

class TokenSequence(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "text", "start", "end", "special", "of_text")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    OF_TEXT_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    start: int
    end: int
    special: bool
    of_text: TextOfPair
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., special: bool = ..., of_text: _Optional[_Union[TextOfPair, str]] = ...) -> None: ...

class PatchGrid(_message.Message):
    __slots__ = ("prefix_tokens", "rows", "cols", "patch_size", "image_width", "image_height", "box")
    PREFIX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLS_FIELD_NUMBER: _ClassVar[int]
    PATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    IMAGE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    prefix_tokens: int
    rows: int
    cols: int
    patch_size: int
    image_width: int
    image_height: int
    box: Box
    def __init__(self, prefix_tokens: _Optional[int] = ..., rows: _Optional[int] = ..., cols: _Optional[int] = ..., patch_size: _Optional[int] = ..., image_width: _Optional[int] = ..., image_height: _Optional[int] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...

class SoundPositions(_message.Message):
    __slots__ = ("count", "position_seconds", "seconds")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    POSITION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    count: int
    position_seconds: float
    seconds: float
    def __init__(self, count: _Optional[int] = ..., position_seconds: _Optional[float] = ..., seconds: _Optional[float] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode_ns", "queue_ns", "compute_ns", "encode_ns", "batch_size")
    DECODE_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_NS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    decode_ns: int
    queue_ns: int
    compute_ns: int
    encode_ns: int
    batch_size: int
    def __init__(self, decode_ns: _Optional[int] = ..., queue_ns: _Optional[int] = ..., compute_ns: _Optional[int] = ..., encode_ns: _Optional[int] = ..., batch_size: _Optional[int] = ...) -> None: ...

class SimilarityMap(_message.Message):
    __slots__ = ("tokens", "patches", "similarities", "text_similarities", "similarity")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    SIMILARITIES_FIELD_NUMBER: _ClassVar[int]
    TEXT_SIMILARITIES_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    tokens: TokenSequence
    patches: PatchGrid
    similarities: Tensor
    text_similarities: Tensor
    similarity: float
    def __init__(self, tokens: _Optional[_Union[TokenSequence, _Mapping]] = ..., patches: _Optional[_Union[PatchGrid, _Mapping]] = ..., similarities: _Optional[_Union[Tensor, _Mapping]] = ..., text_similarities: _Optional[_Union[Tensor, _Mapping]] = ..., similarity: _Optional[float] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "family", "description", "inputs", "outputs", "modality", "can_classify", "labels", "can_embed", "embedding_dim", "embedding_normalized", "attention_layers", "patches", "max_tokens", "max_batch_size", "device", "precision", "max_inputs", "prompts", "default_prompt", "similarity", "takes_pairs", "can_rank", "activation", "hidden_state_layers", "can_explain", "relevance_methods", "can_explain_similarity", "can_explain_layers", "matryoshka_dims", "embedding_sparse", "token_vector_dim", "query_tokens", "document_tokens", "towers", "max_audio_seconds", "generation")
    class PromptsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    CAN_CLASSIFY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CAN_EMBED_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIM_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_LAYERS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUTS_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PROMPT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    TAKES_PAIRS_FIELD_NUMBER: _ClassVar[int]
    CAN_RANK_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATE_LAYERS_FIELD_NUMBER: _ClassVar[int]
    CAN_EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_METHODS_FIELD_NUMBER: _ClassVar[int]
    CAN_EXPLAIN_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    CAN_EXPLAIN_LAYERS_FIELD_NUMBER: _ClassVar[int]
    MATRYOSHKA_DIMS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_SPARSE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_VECTOR_DIM_FIELD_NUMBER: _ClassVar[int]
    QUERY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOWERS_FIELD_NUMBER: _ClassVar[int]
    MAX_AUDIO_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    family: str
    description: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    modality: Modality
    can_classify: bool
    labels: _containers.RepeatedScalarFieldContainer[str]
    can_embed: bool
    embedding_dim: int
    embedding_normalized: bool
    attention_layers: _containers.RepeatedCompositeFieldContainer[AttentionLayer]
    patches: PatchGrid
    max_tokens: int
    max_batch_size: int
    device: str
    precision: str
    max_inputs: int
    prompts: _containers.ScalarMap[str, str]
    default_prompt: str
    similarity: str
    takes_pairs: bool
    can_rank: bool
    activation: str
    hidden_state_layers: _containers.RepeatedCompositeFieldContainer[HiddenStateLayer]
    can_explain: bool
    relevance_methods: _containers.RepeatedScalarFieldContainer[RelevanceMethod]
    can_explain_similarity: bool
    can_explain_layers: bool
    matryoshka_dims: _containers.RepeatedScalarFieldContainer[int]
    embedding_sparse: bool
    token_vector_dim: int
    query_tokens: int
    document_tokens: int
    towers: Towers
    max_audio_seconds: float
    generation: Generation
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., family: _Optional[str] = ..., description: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., modality: _Optional[_Union[Modality, str]] = ..., can_classify: bool = ..., labels: _Optional[_Iterable[str]] = ..., can_embed: bool = ..., embedding_dim: _Optional[int] = ..., embedding_normalized: bool = ..., attention_layers: _Optional[_Iterable[_Union[AttentionLayer, _Mapping]]] = ..., patches: _Optional[_Union[PatchGrid, _Mapping]] = ..., max_tokens: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., device: _Optional[str] = ..., precision: _Optional[str] = ..., max_inputs: _Optional[int] = ..., prompts: _Optional[_Mapping[str, str]] = ..., default_prompt: _Optional[str] = ..., similarity: _Optional[str] = ..., takes_pairs: bool = ..., can_rank: bool = ..., activation: _Optional[str] = ..., hidden_state_layers: _Optional[_Iterable[_Union[HiddenStateLayer, _Mapping]]] = ..., can_explain: bool = ..., relevance_methods: _Optional[_Iterable[_Union[RelevanceMethod, str]]] = ..., can_explain_similarity: bool = ..., can_explain_layers: bool = ..., matryoshka_dims: _Optional[_Iterable[int]] = ..., embedding_sparse: bool = ..., token_vector_dim: _Optional[int] = ..., query_tokens: _Optional[int] = ..., document_tokens: _Optional[int] = ..., towers: _Optional[_Union[Towers, _Mapping]] = ..., max_audio_seconds: _Optional[float] = ..., generation: _Optional[_Union[Generation, _Mapping]] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("num_layers", "num_heads", "max_tokens", "starts", "default_start", "num_beams", "length_penalty", "vocab_size", "alignment_heads", "can_explain")
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_START_FIELD_NUMBER: _ClassVar[int]
    NUM_BEAMS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_HEADS_FIELD_NUMBER: _ClassVar[int]
    CAN_EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    num_layers: int
    num_heads: int
    max_tokens: int
    starts: _containers.RepeatedScalarFieldContainer[str]
    default_start: str
    num_beams: int
    length_penalty: float
    vocab_size: int
    alignment_heads: _containers.RepeatedCompositeFieldContainer[AlignmentHead]
    can_explain: bool
    def __init__(self, num_layers: _Optional[int] = ..., num_heads: _Optional[int] = ..., max_tokens: _Optional[int] = ..., starts: _Optional[_Iterable[str]] = ..., default_start: _Optional[str] = ..., num_beams: _Optional[int] = ..., length_penalty: _Optional[float] = ..., vocab_size: _Optional[int] = ..., alignment_heads: _Optional[_Iterable[_Union[AlignmentHead, _Mapping]]] = ..., can_explain: bool = ...) -> None: ...

class AlignmentHead(_message.Message):
    __slots__ = ("layer", "head")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    layer: int
    head: int
    def __init__(self, layer: _Optional[int] = ..., head: _Optional[int] = ...) -> None: ...

class Towers(_message.Message):
    __slots__ = ("text", "image", "logit_scale", "logit_bias", "activation", "label_template", "can_align")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LOGIT_SCALE_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    LABEL_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    CAN_ALIGN_FIELD_NUMBER: _ClassVar[int]
    text: Model
    image: Model
    logit_scale: float
    logit_bias: float
    activation: str
    label_template: str
    can_align: bool
    def __init__(self, text: _Optional[_Union[Model, _Mapping]] = ..., image: _Optional[_Union[Model, _Mapping]] = ..., logit_scale: _Optional[float] = ..., logit_bias: _Optional[float] = ..., activation: _Optional[str] = ..., label_template: _Optional[str] = ..., can_align: bool = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "dtype", "shape", "axes", "optional")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    axes: _containers.RepeatedScalarFieldContainer[str]
    optional: bool
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., axes: _Optional[_Iterable[str]] = ..., optional: bool = ...) -> None: ...

class AttentionLayer(_message.Message):
    __slots__ = ("layer", "kind", "num_heads", "has_value_norms", "has_contributions", "window", "mixes_heads", "class_attention")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    HAS_VALUE_NORMS_FIELD_NUMBER: _ClassVar[int]
    HAS_CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    MIXES_HEADS_FIELD_NUMBER: _ClassVar[int]
    CLASS_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    layer: int
    kind: AttentionKind
    num_heads: int
    has_value_norms: bool
    has_contributions: bool
    window: AttentionWindow
    mixes_heads: bool
    class_attention: bool
    def __init__(self, layer: _Optional[int] = ..., kind: _Optional[_Union[AttentionKind, str]] = ..., num_heads: _Optional[int] = ..., has_value_norms: bool = ..., has_contributions: bool = ..., window: _Optional[_Union[AttentionWindow, _Mapping]] = ..., mixes_heads: bool = ..., class_attention: bool = ...) -> None: ...

class HiddenStateLayer(_message.Message):
    __slots__ = ("layer", "dim")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    layer: int
    dim: int
    def __init__(self, layer: _Optional[int] = ..., dim: _Optional[int] = ...) -> None: ...
