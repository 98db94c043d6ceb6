"""What the parameters of an inference request ask for: urgency, and attention as regard.v1 has it.

Unknown parameters are refused by name, since a misspelt one would be ignored in silence; those named triton_* are meant
for Triton and ignored.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from server.api.counts import MAX_NUMBERS, check_count
from server.api.hints import take_hints
from server.api.open_inference import open_inference_pb2 as pb
from server.attention.request import ROLLOUTS, AttentionRequest, HeadReduction, Measure, SentDtype, TextOfPair
from server.context import RpcContext
from server.errors import InvalidInput, ServerError

Parameters = Mapping[str, pb.InferParameter]

ATTENTION_PREFIX = "attention."
_DTYPES: dict[str, SentDtype] = {"FP32": "float32", "FP16": "float16", "UINT8": "uint8"}
_REDUCTIONS: dict[str, HeadReduction | None] = {"none": None, "mean": "mean", "max": "max", "min": "min"}
_TEXTS: dict[str, TextOfPair | None] = {"none": None, "first": "first", "second": "second"}
_MEASURES: dict[str, Measure] = {measure: measure for measure in get_args(Measure)}
_IGNORED = ("triton_", "sequence_", "headers", "binary_data_output")
_KNOWN = (
    "priority", "timeout", "attention", "attention_layers", "attention_heads", "attention_rows", "attention_reduce",
    "attention_dtype", "attention_keys", "attention_measure", "attention_residual_share", "attention_value_weighted",
    "attention_top_k", "attention_drop_special", "attention_renormalize", "attention_rows_of_text",
    "attention_keys_of_text", "truncate", "prompt",
)  # fmt: skip
# Fields of regard.v1 by which a request is refused, as callers of this protocol write them; of attention, others alike.
_WRITTEN = {
    "text": "inputs[text]",
    "image": "inputs[image]",
    "pair": "inputs[text_pair]",
    "pair.first": "inputs[text]",
    "pair.second": "inputs[text_pair]",
    "prompt": "parameters[prompt]",
    "attention.cls_only": "parameters[attention_rows]",
    "attention.head_reduction": "parameters[attention_reduce]",
}
_WORD = re.compile(r"ATTENTION_MEASURE_(\w+)|FLOAT(16|32)")


def check_names(parameters: Parameters) -> None:
    """Refuse what nobody knows.

    Raises:
        InvalidInput: Names the parameter.
    """
    for name in parameters:
        if name not in _KNOWN and not name.startswith(_IGNORED):
            raise InvalidInput("parameters", repr(name), f"one of {', '.join(_KNOWN)}")


def read_hints(parameters: Parameters, context: RpcContext) -> None:
    """Take the parameters priority and timeout (microseconds); see take_hints.

    Raises:
        InvalidInput: There is no such priority, or the timeout is negative.
    """
    priority, timeout_us = (_read_integer(parameters, name) for name in ("priority", "timeout"))
    if timeout_us < 0:
        raise InvalidInput("parameters[timeout]", timeout_us, "microseconds, or 0 for none")
    take_hints(context, "parameters[priority]", priority, timeout_us / 1e6)


def read_flag(parameters: Parameters, name: str) -> bool:
    """Read a parameter that is true or false; absent means false."""
    parameter = parameters.get(name)
    if parameter is None:
        return False
    if parameter.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidInput(f"parameters[{name}]", _show(parameter), "a bool_param")
    return parameter.bool_param


def read_prompt(parameters: Parameters, content: str) -> str:
    """Read the name of what is put before texts; absent means the model's default.

    Raises:
        InvalidInput: It is no string, or what the request brings is no text.
    """
    parameter = parameters.get("prompt")
    if parameter is None:
        return ""
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput("parameters[prompt]", _show(parameter), "a string_param")
    if content != "text":
        raise InvalidInput("parameters[prompt]", _show(parameter), "none, as there is no text to put it before")
    return parameter.string_param


def read_attention(parameters: Parameters, outputs: Sequence[str]) -> AttentionRequest | None:
    """Read what is wanted of the attention, by parameters, by outputs named attention.LAYER, or by both.

    Args:
        parameters: attention (bool); attention_layers and attention_heads, integers separated by commas, or one
            integer; attention_rows likewise, or "cls", or "all"; attention_keys likewise, or "all"; attention_reduce,
            "none", "mean", "max" or "min" over the heads; attention_dtype, "FP32", "FP16" or "UINT8";
            attention_measure, "weights", "rollout", "entropy", "distance", "contribution" or "contribution_rollout";
            attention_residual_share (double);
            attention_top_k (integer); attention_value_weighted, attention_drop_special and attention_renormalize
            (bool); attention_rows_of_text and attention_keys_of_text, "none", "first" or "second". They
            mean what the fields of regard.v1.AttentionRequest mean.
        outputs: Names of the outputs asked for.

    Raises:
        InvalidInput: A value cannot be read, or layers are named in both ways.
    """
    named = [_read_layer(name) for name in outputs if name.startswith(ATTENTION_PREFIX)]
    given = [name for name in parameters if name.startswith("attention_")]
    if not named and not given and not read_flag(parameters, "attention"):
        return None
    if "attention" in parameters and not read_flag(parameters, "attention"):
        raise InvalidInput("parameters[attention]", "false", f"true beside {', '.join(given) or 'attention outputs'}")
    layers = _read_list(parameters, "attention_layers")
    if named and layers:
        raise InvalidInput("parameters[attention_layers]", layers, "no layers beside outputs named attention.LAYER")
    measure: Measure = _choose(parameters, "attention_measure", _MEASURES, "weights")
    if named and measure in ROLLOUTS:
        raise InvalidInput("parameters[attention_measure]", repr(measure), "attention_layers instead of outputs")
    cls_only = _read_word(parameters, "attention_rows") == "cls"
    return AttentionRequest(
        layers=tuple(named or layers),
        heads=tuple(_read_list(parameters, "attention_heads")),
        rows=() if cls_only else tuple(_read_list(parameters, "attention_rows", ("cls", "all"))),
        keys=tuple(_read_list(parameters, "attention_keys", ("all",))),
        cls_only=cls_only,
        head_reduction=_choose(parameters, "attention_reduce", _REDUCTIONS, "none"),
        dtype=_choose(parameters, "attention_dtype", _DTYPES, "FP32"),
        measure=measure,
        top_k=_read_top_k(parameters),
        value_weighted=read_flag(parameters, "attention_value_weighted"),
        drop_special=read_flag(parameters, "attention_drop_special"),
        renormalize=read_flag(parameters, "attention_renormalize"),
        residual_share=_read_residual_share(parameters),
        rows_of_text=_choose(parameters, "attention_rows_of_text", _TEXTS, "none"),
        keys_of_text=_choose(parameters, "attention_keys_of_text", _TEXTS, "none"),
    )


def rename_fields(error: ServerError, outputs: Sequence[str]) -> None:
    """Let an error name the field as its caller wrote it: a parameter, or an output named attention.LAYER."""
    field, colon, rest = str(error).partition(": ")
    written = _WRITTEN.get(field)
    if field.startswith("attention.") and not written:
        named = f"{ATTENTION_PREFIX}{rest.partition(';')[0]}"
        written = f"outputs[{named}]" if named in outputs else f"parameters[attention_{field.partition('.')[2]}]"
    if colon and written:
        error.args = (f"{written}: {_WORD.sub(_word, rest) if field.startswith('attention.') else rest}",)


def _word(found: re.Match[str]) -> str:
    measure, bits = found.groups()
    return str(measure).lower() if measure else f"FP{bits}"


def _read_residual_share(parameters: Parameters) -> float | None:
    parameter = parameters.get("attention_residual_share")
    if parameter is None:
        return None
    if parameter.WhichOneof("parameter_choice") != "double_param":
        raise InvalidInput("parameters[attention_residual_share]", _show(parameter), "a double_param")
    return parameter.double_param


def _read_top_k(parameters: Parameters) -> int:
    count = _read_integer(parameters, "attention_top_k")
    if not 0 <= count < 2**31:
        raise InvalidInput("parameters[attention_top_k]", count, "0 for all keys, or a positive number")
    return count


def _read_layer(name: str) -> int:
    return _to_integer(f"outputs[{name}]", name.removeprefix(ATTENTION_PREFIX), "attention.LAYER, an integer")


def _read_integer(parameters: Parameters, name: str) -> int:
    parameter = parameters.get(name)
    kind = parameter.WhichOneof("parameter_choice") if parameter is not None else None
    if kind not in ("int64_param", "uint64_param", None):
        raise InvalidInput(f"parameters[{name}]", _show(parameters[name]), "an int64_param or uint64_param")
    return int(getattr(parameter, kind)) if kind else 0


def _read_list(parameters: Parameters, name: str, words: Sequence[str] = ()) -> list[int]:
    """Read integers separated by commas; empty where absent, and for the last of the words."""
    if name not in parameters:
        return []
    word = _read_word(parameters, name)
    if word in words[-1:]:
        return []
    check_count(f"parameters[{name}]", word.count(",") + 1, MAX_NUMBERS)
    expected = " or ".join(["integers separated by commas", *(f'"{one}"' for one in words)])
    return [_to_integer(f"parameters[{name}]", part, expected) for part in word.split(",")]


def _read_word(parameters: Parameters, name: str) -> str:
    parameter = parameters.get(name)
    kind = parameter.WhichOneof("parameter_choice") if parameter is not None else None
    if kind not in ("string_param", "int64_param", "uint64_param", None):
        raise InvalidInput(f"parameters[{name}]", _show(parameters[name]), "a string_param or int64_param")
    return str(getattr(parameter, kind)).strip() if kind else ""


def _choose(parameters: Parameters, name: str, choices: Mapping[str, Any], default: str) -> Any:  # an enum's number
    word = _read_word(parameters, name) or default
    if word not in choices:
        *most, last = choices
        raise InvalidInput(f"parameters[{name}]", repr(word), f"{', '.join(most)} or {last}")
    return choices[word]


def _to_integer(field: str, text: str, expected: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise InvalidInput(field, repr(text), expected) from None
    if abs(number) > 2**31 - 1:
        raise InvalidInput(field, number, expected)
    return number


def _show(parameter: pb.InferParameter) -> str:
    kind = parameter.WhichOneof("parameter_choice")
    return f"{kind} {getattr(parameter, kind)!r}" if kind else "without a value"
