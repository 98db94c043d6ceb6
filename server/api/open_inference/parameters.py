"""What the parameters of an inference request ask for: urgency, and attention or hidden states as regard.v1 has them.

Unknown parameters are refused by name, since a misspelt one would be ignored in silence; those named triton_* are meant
for Triton and ignored.
"""

from collections.abc import Sequence
from typing import get_args

from server.api.hints import take_hints
from server.api.open_inference.parameter_values import (
    Parameters,
    choose,
    read_flag,
    read_integer,
    read_list,
    read_text,
    read_word,
    show,
    to_integer,
)
from server.attention.request import (
    ROLLOUTS,
    AttentionRequest,
    HeadReduction,
    Measure,
    SentDtype,
    Statistic,
    TextOfPair,
)
from server.context import RpcContext
from server.errors import InvalidInput
from server.hidden_states.request import HiddenStatesRequest, Pooling
from server.inference.vectors import VectorFormat, VectorRequest

ATTENTION_PREFIX, HIDDEN_STATES_PREFIX, RELEVANCE_PREFIX = "attention.", "hidden_states.", "relevance."
FURTHER_PREFIXES = (ATTENTION_PREFIX, HIDDEN_STATES_PREFIX, RELEVANCE_PREFIX)
STEP_PREFIXES = ("cross_attention.", "self_attention.")  # of a text that is written
STEP_PARAMETERS = (
    "cross_attention", "cross_attention_layers", "cross_attention_heads", "cross_attention_reduce",
    "self_attention", "self_attention_layers", "self_attention_heads", "self_attention_reduce",
)  # fmt: skip
_DTYPES: dict[str, SentDtype] = {"FP32": "float32", "FP16": "float16", "UINT8": "uint8"}
REDUCTIONS: dict[str, HeadReduction | None] = {"none": None, "mean": "mean", "max": "max", "min": "min"}
_TEXTS: dict[str, TextOfPair | None] = {"none": None, "first": "first", "second": "second"}
_MEASURES: dict[str, Measure] = {measure: measure for measure in get_args(Measure)}
_STATISTICS: dict[str, Statistic] = {  # spans and boxes have no parameter
    statistic: statistic for statistic in get_args(Statistic) if statistic != "region"
}
_POOLINGS: dict[str, Pooling | None] = {"none": None, "cls": "cls", "mean": "mean", "last": "last"}
VECTOR_FORMATS: dict[str, VectorFormat] = {"FP32": "float32", "FP16": "float16", "INT8": "int8", "BINARY": "binary"}
IGNORED = ("triton_", "sequence_", "headers", "binary_data_output")
_KNOWN = (
    "priority", "timeout", "attention", "attention_layers", "attention_heads", "attention_rows", "attention_reduce",
    "attention_dtype", "attention_keys", "attention_measure", "attention_residual_share", "attention_value_weighted",
    "attention_top_k", "attention_drop_special", "attention_renormalize", "attention_rows_of_text",
    "attention_keys_of_text", "attention_statistics", "truncate", "prompt",
    "hidden_states", "hidden_states_layers", "hidden_states_positions", "hidden_states_drop_special",
    "hidden_states_pooling", "hidden_states_normalize", "hidden_states_dtype", "relevance", "relevance_label",
    "relevance_against", "relevance_labels", "relevance_top", "relevance_method", "relevance_steps",
    "relevance_drop_special", "vector_dimensions", "vector_format",
    "label_template", "role", "start", "max_tokens", "num_beams", "num_results", "length_penalty", "stop", "target",
    "temperature", "top_k", "top_p", "seed",
    *STEP_PARAMETERS,
)  # fmt: skip


def check_names(parameters: Parameters) -> None:
    """Refuse what nobody knows.

    Raises:
        InvalidInput: Names the parameter.
    """
    for name in parameters:
        if name not in _KNOWN and not name.startswith(IGNORED):
            raise InvalidInput("parameters", repr(name), f"one of {', '.join(_KNOWN)}")


def read_hints(parameters: Parameters, context: RpcContext) -> None:
    """Take the parameters priority and timeout (microseconds); see take_hints.

    Raises:
        InvalidInput: There is no such priority, or the timeout is negative.
    """
    priority, timeout_us = (read_integer(parameters, name) for name in ("priority", "timeout"))
    if timeout_us < 0:
        raise InvalidInput("parameters[timeout]", timeout_us, "microseconds, or 0 for none")
    take_hints(context, "parameters[priority]", priority, timeout_us / 1e6)


def read_prompt(parameters: Parameters, content: str) -> str:
    """Read the name of what is put before texts; absent means the model's default.

    Raises:
        InvalidInput: It is no string, or what the request brings is no text.
    """
    prompt = read_text(parameters, "prompt")
    if "prompt" in parameters and content != "text":
        expected = "none, as there is no text to put it before"
        if content == "text_pair":
            expected = "none beside text_pair: nothing is put before pairs"
        raise InvalidInput("parameters[prompt]", repr(prompt), expected)
    return prompt


def read_role(parameters: Parameters) -> bool:
    """Read whether texts are queries, by role, "query" or "document"; absent means documents.

    Raises:
        InvalidInput: It is neither.
    """
    is_query: bool = choose(parameters, "role", {"query": True, "document": False}, "document")
    return is_query


def read_attention(parameters: Parameters, outputs: Sequence[str]) -> AttentionRequest | None:
    """Read what is wanted of the attention, by parameters, by outputs named attention.LAYER, or by both.

    Args:
        parameters: attention (bool); attention_layers and attention_heads, integers separated by commas, or one
            integer; attention_rows likewise, or "cls", or "all"; attention_keys likewise, or "all"; attention_reduce,
            "none", "mean", "max" or "min" over the heads; attention_dtype, "FP32", "FP16" or "UINT8";
            attention_measure, "weights", "rollout", "entropy", "distance", "contribution" or "contribution_rollout";
            attention_residual_share (double);
            attention_top_k (integer); attention_value_weighted, attention_drop_special and attention_renormalize
            (bool); attention_rows_of_text and attention_keys_of_text, "none", "first" or "second";
            attention_statistics, names of regard.v1.AttentionStatistic in lower case, separated by commas. They mean
            what the fields of regard.v1.AttentionRequest mean.
        outputs: Names of the outputs asked for.

    Raises:
        InvalidInput: A value cannot be read, or layers are named in both ways.
    """
    if not is_asked("attention", parameters, outputs):
        return None
    named = read_named(ATTENTION_PREFIX, outputs)
    layers = read_layers("attention", parameters, named)
    measure: Measure = choose(parameters, "attention_measure", _MEASURES, "weights")
    if named and measure in ROLLOUTS:
        raise InvalidInput("parameters[attention_measure]", repr(measure), "attention_layers instead of outputs")
    cls_only = read_word(parameters, "attention_rows") == "cls"
    return AttentionRequest(
        layers=layers,
        heads=tuple(read_list(parameters, "attention_heads")),
        rows=() if cls_only else tuple(read_list(parameters, "attention_rows", ("cls", "all"))),
        keys=tuple(read_list(parameters, "attention_keys", ("all",))),
        cls_only=cls_only,
        head_reduction=choose(parameters, "attention_reduce", REDUCTIONS, "none"),
        dtype=choose(parameters, "attention_dtype", _DTYPES, "FP32"),
        measure=measure,
        top_k=_read_top_k(parameters),
        value_weighted=read_flag(parameters, "attention_value_weighted"),
        drop_special=read_flag(parameters, "attention_drop_special"),
        renormalize=read_flag(parameters, "attention_renormalize"),
        residual_share=_read_residual_share(parameters),
        rows_of_text=choose(parameters, "attention_rows_of_text", _TEXTS, "none"),
        keys_of_text=choose(parameters, "attention_keys_of_text", _TEXTS, "none"),
        statistics=_read_statistics(parameters),
    )


def read_hidden_states(parameters: Parameters, outputs: Sequence[str]) -> HiddenStatesRequest | None:
    """Read what is wanted of the hidden states.

    Args:
        parameters: hidden_states, true to have them, implied by the others and by outputs named hidden_states.LAYER;
            hidden_states_layers and hidden_states_positions, integers separated by commas, or one integer;
            hidden_states_pooling, "none", "cls", "mean" or "last"; hidden_states_dtype, "FP32", "FP16" or "UINT8";
            hidden_states_drop_special and hidden_states_normalize (bool). They mean what the fields of
            regard.v1.HiddenStatesRequest mean.
        outputs: Names of the outputs asked for.

    Raises:
        InvalidInput: A value cannot be read, or layers are named in both ways.
    """
    if not is_asked("hidden_states", parameters, outputs):
        return None
    return HiddenStatesRequest(
        layers=read_layers("hidden_states", parameters, read_named(HIDDEN_STATES_PREFIX, outputs)),
        positions=tuple(read_list(parameters, "hidden_states_positions", ("all",))),
        drop_special=read_flag(parameters, "hidden_states_drop_special"),
        pooling=choose(parameters, "hidden_states_pooling", _POOLINGS, "none"),
        normalize=read_flag(parameters, "hidden_states_normalize"),
        dtype=choose(parameters, "hidden_states_dtype", _DTYPES, "FP32"),
    )


def read_vector_request(parameters: Parameters) -> VectorRequest | None:
    """Read what is wanted of vectors, by vector_dimensions (integer) and vector_format; None where neither is there.

    Raises:
        InvalidInput: A value cannot be read.
    """
    if "vector_dimensions" not in parameters and "vector_format" not in parameters:
        return None
    dimensions = read_integer(parameters, "vector_dimensions")
    return VectorRequest(dimensions, choose(parameters, "vector_format", VECTOR_FORMATS, "FP32"))


def is_asked(what: str, parameters: Parameters, outputs: Sequence[str]) -> bool:
    """Whether attention, hidden states or relevance is asked for, by a parameter or by an output.

    Raises:
        InvalidInput: They are, and are said not to be.
    """
    given = [name for name in parameters if name.startswith(f"{what}_")]
    given += [f"{what} outputs"] if any(name.startswith(f"{what}.") for name in outputs) else []
    flag = read_flag(parameters, what)
    if given and what in parameters and not flag:
        raise InvalidInput(f"parameters[{what}]", "false", f"true beside {', '.join(given)}")
    return flag or bool(given)


def _read_statistics(parameters: Parameters) -> tuple[Statistic, ...]:
    names = [name.strip() for name in read_text(parameters, "attention_statistics").split(",") if name.strip()]
    for name in names:
        if name not in _STATISTICS:
            raise InvalidInput("parameters[attention_statistics]", repr(name), f"some of {', '.join(_STATISTICS)}")
    return tuple(_STATISTICS[name] for name in names)


def _read_residual_share(parameters: Parameters) -> float | None:
    parameter = parameters.get("attention_residual_share")
    if parameter is None:
        return None
    if parameter.WhichOneof("parameter_choice") != "double_param":
        raise InvalidInput("parameters[attention_residual_share]", show(parameter), "a double_param")
    return parameter.double_param


def _read_top_k(parameters: Parameters) -> int:
    count = read_integer(parameters, "attention_top_k")
    if not 0 <= count < 2**31:
        raise InvalidInput("parameters[attention_top_k]", count, "0 for all keys, or a positive number")
    return count


def read_named(prefix: str, outputs: Sequence[str]) -> tuple[int, ...]:
    """Read the layers that outputs name."""
    named = [name for name in outputs if name.startswith(prefix)]
    return tuple(
        to_integer(f"outputs[{name}]", name.removeprefix(prefix), f"{prefix}LAYER, an integer") for name in named
    )


def read_layers(what: str, parameters: Parameters, named: tuple[int, ...]) -> tuple[int, ...]:
    """Read layers, unless outputs name them."""
    layers = read_list(parameters, f"{what}_layers")
    if named and layers:
        raise InvalidInput(f"parameters[{what}_layers]", layers, f"no layers beside outputs named {what}.LAYER")
    return named or tuple(layers)
