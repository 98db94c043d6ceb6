"""Attention in the messages of regard.v1: what is wanted, and what is sent."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from artifact.contract import WindowContract
from regard.v1 import types_pb2 as pb
from server.api.counts import MAX_NUMBERS, check_count
from server.api.regard_v1.tensors import write_tensor
from server.attention.plan import AttentionPlan
from server.attention.reduce import Reduced
from server.attention.request import (
    MAX_REGIONS,
    AttentionRequest,
    HeadReduction,
    Measure,
    SentDtype,
    Statistic,
    TextOfPair,
    shown_statistic,
)
from server.errors import InvalidInput

KINDS = {
    "self": pb.ATTENTION_KIND_SELF,
    "causal": pb.ATTENTION_KIND_CAUSAL,
    "cross": pb.ATTENTION_KIND_CROSS,
}
_SENT_DTYPES: dict[int, SentDtype] = {
    pb.DATA_TYPE_UNSPECIFIED: "float32",
    pb.DATA_TYPE_FLOAT32: "float32",
    pb.DATA_TYPE_FLOAT16: "float16",
    pb.DATA_TYPE_UINT8: "uint8",
}
_REDUCTIONS: dict[int, HeadReduction | None] = {
    pb.HEAD_REDUCTION_UNSPECIFIED: None,
    pb.HEAD_REDUCTION_MEAN: "mean",
    pb.HEAD_REDUCTION_MAX: "max",
    pb.HEAD_REDUCTION_MIN: "min",
}
_MEASURES: dict[int, Measure] = {
    pb.ATTENTION_MEASURE_UNSPECIFIED: "weights",
    pb.ATTENTION_MEASURE_ROLLOUT: "rollout",
    pb.ATTENTION_MEASURE_ENTROPY: "entropy",
    pb.ATTENTION_MEASURE_DISTANCE: "distance",
    pb.ATTENTION_MEASURE_CONTRIBUTION: "contribution",
    pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT: "contribution_rollout",
}
_TEXTS: dict[int, TextOfPair | None] = {
    pb.TEXT_OF_PAIR_UNSPECIFIED: None,
    pb.TEXT_OF_PAIR_FIRST: "first",
    pb.TEXT_OF_PAIR_SECOND: "second",
}
_STATISTICS: dict[int, Statistic] = {
    pb.AttentionStatistic.Value(shown_statistic(statistic)): statistic for statistic in get_args(Statistic)
}
_STATISTIC_NUMBERS: dict[Statistic, Any] = {statistic: number for number, statistic in _STATISTICS.items()}
_NUMBERS: dict[Measure, Any] = {measure: number for number, measure in _MEASURES.items()}


def read_attention(message: pb.AttentionRequest, name: str = "attention") -> AttentionRequest:
    """Read what is wanted.

    Args:
        message: As it came.
        name: Of the field that it came in.

    Raises:
        InvalidInput: A list is too long, or a value none of its enumeration.
    """
    for field in ("layers", "heads", "rows", "keys"):
        check_count(f"{name}.{field}", len(getattr(message, field)), MAX_NUMBERS)
    enumerations: dict[str, tuple[str, Mapping[int, object]]] = {
        "head_reduction": ("HeadReduction", _REDUCTIONS),
        "measure": ("AttentionMeasure", _MEASURES),
        "rows_of_text": ("TextOfPair", _TEXTS),
        "keys_of_text": ("TextOfPair", _TEXTS),
    }
    for field, (enumeration, known) in enumerations.items():
        if (number := getattr(message, field)) not in known:
            raise InvalidInput(f"{name}.{field}", number, f"one of the values of {enumeration}")
    check_count(f"{name}.statistics", len(message.statistics), len(_STATISTICS))
    for field in ("spans", "boxes"):
        check_count(f"{name}.{field}", len(getattr(message, field)), MAX_REGIONS)
    for number in message.statistics:
        if number not in _STATISTICS:
            raise InvalidInput(f"{name}.statistics", number, "values of AttentionStatistic, but for UNSPECIFIED")
    return AttentionRequest(
        layers=tuple(message.layers),
        heads=tuple(message.heads),
        rows=tuple(message.rows),
        keys=tuple(message.keys),
        cls_only=message.cls_only,
        drop_special=message.drop_special,
        head_reduction=_REDUCTIONS[message.head_reduction],
        measure=_MEASURES[message.measure],
        residual_share=message.residual_share if message.HasField("residual_share") else None,
        value_weighted=message.value_weighted,
        top_k=message.top_k,
        renormalize=message.renormalize,
        dtype=read_dtype(f"{name}.dtype", message.dtype),
        rows_of_text=_TEXTS[message.rows_of_text],
        keys_of_text=_TEXTS[message.keys_of_text],
        statistics=tuple(_STATISTICS[number] for number in message.statistics),
        spans=tuple((span.start, span.end) for span in message.spans),
        boxes=tuple((box.left, box.top, box.right, box.bottom) for box in message.boxes),
    )


def read_dtype(field: str, number: int) -> SentDtype:
    """Read the dtype of what is to be sent.

    Raises:
        InvalidInput: It is another; names the field.
    """
    if number not in _SENT_DTYPES:
        name = pb.DataType.Name(number) if number in pb.DataType.values() else number
        raise InvalidInput(field, name, "FLOAT32, FLOAT16 or UINT8")
    return _SENT_DTYPES[number]


def write_layers(
    plan: AttentionPlan,
    layers: Iterable[Reduced],
    add: Callable[[], pb.LayerAttention] = pb.LayerAttention,
    *,
    batched: bool,
) -> Iterator[pb.LayerAttention]:
    """Turn what is sent into the entries of an answer, each made when it is wanted.

    Args:
        plan: What was asked for.
        layers: As reduce_attention gives them.
        add: Gives the next entry to be written, in the answer itself: putting it there afterwards would copy it.
        batched: Whether to keep the batch axis; otherwise B is 1.
    """

    def write(reduced: Reduced) -> pb.LayerAttention:
        return _write_layer(plan, reduced, add(), batched=batched)

    return map(write, layers)  # a loop's variable would keep a layer until the next is wanted


def _write_layer(
    plan: AttentionPlan, reduced: Reduced, message: pb.LayerAttention, *, batched: bool
) -> pb.LayerAttention:
    layer = reduced.layer
    message.layer, message.kind, message.measure = layer.layer, KINDS[layer.kind], _NUMBERS[plan.measure]
    message.axes.extend([*(["batch"] if batched else []), *plan.axes])
    message.heads.extend(range(layer.num_heads) if plan.heads is None else plan.heads)
    message.queries.extend(reduced.queries)
    message.keys.extend(plan.keys or ())
    message.scale = reduced.scale
    if plan.is_rollout:
        message.covered_layers.extend(plan.indices)
    write_tensor(own_rows(reduced.values, batched=batched), message.weights)
    if reduced.indices is not None:
        write_tensor(own_rows(reduced.indices, batched=batched), message.indices)
    if layer.window:
        message.window.CopyFrom(describe_window(layer.window))
    message.class_attention = layer.class_attention
    message.statistics.extend(_STATISTIC_NUMBERS[statistic] for statistic in plan.statistics)
    return message


def describe_window(window: WindowContract) -> pb.AttentionWindow:
    """Say how a layer attends in windows."""
    return pb.AttentionWindow(**window.model_dump())


def own_rows(values: Any, *, batched: bool) -> Any:
    """Leave the batch axis out unless it is to be kept."""
    return values if batched else values[0]
