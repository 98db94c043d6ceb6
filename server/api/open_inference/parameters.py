"""What the parameters of an inference request ask for: urgency, and attention as regard.v1 has it.

Unknown parameters are refused by name, since a misspelt one would be ignored in silence; those named triton_* are meant
for Triton and ignored.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from regard.v1 import types_pb2 as regard
from server.api.open_inference import open_inference_pb2 as pb
from server.errors import InvalidInput
from server.inference.pipeline import Urgency
from server.scheduling.scheduler import DEFAULT_PRIORITY, LAST_PRIORITY

Parameters = Mapping[str, pb.InferParameter]

ATTENTION_PREFIX = "attention."
_DTYPES = {"FP32": regard.DATA_TYPE_FLOAT32, "FP16": regard.DATA_TYPE_FLOAT16, "UINT8": regard.DATA_TYPE_UINT8}
_REDUCTIONS = {
    "none": regard.HEAD_REDUCTION_UNSPECIFIED,
    "mean": regard.HEAD_REDUCTION_MEAN,
    "max": regard.HEAD_REDUCTION_MAX,
    "min": regard.HEAD_REDUCTION_MIN,
}
_MEASURES = {
    "weights": regard.ATTENTION_MEASURE_UNSPECIFIED,
    "rollout": regard.ATTENTION_MEASURE_ROLLOUT,
    "entropy": regard.ATTENTION_MEASURE_ENTROPY,
    "distance": regard.ATTENTION_MEASURE_DISTANCE,
    "contribution": regard.ATTENTION_MEASURE_CONTRIBUTION,
    "contribution_rollout": regard.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT,
}
_IGNORED = ("triton_", "sequence_", "headers", "binary_data_output")
_KNOWN = (
    "priority", "timeout", "attention", "attention_layers", "attention_heads", "attention_rows", "attention_reduce",
    "attention_dtype", "attention_keys", "attention_measure", "attention_residual_share", "attention_value_weighted",
    "attention_top_k", "attention_drop_special", "attention_renormalize", "truncate",
)  # fmt: skip


def check_names(parameters: Parameters) -> None:
    """Refuse what nobody knows.

    Raises:
        InvalidInput: Names the parameter.
    """
    for name in parameters:
        if name not in _KNOWN and not name.startswith(_IGNORED):
            raise InvalidInput("parameters", repr(name), f"one of {', '.join(_KNOWN)}")


def read_urgency(parameters: Parameters, remaining: float | None, now: float) -> Urgency:
    """Combine the parameters priority and timeout (microseconds) with gRPC's deadline.

    Args:
        parameters: The request's.
        remaining: Seconds until gRPC's deadline; None where there is none.
        now: On time.monotonic(), in seconds.

    Raises:
        InvalidInput: There is no such priority, or the timeout is negative.
    """
    priority, timeout_us = (_read_integer(parameters, name) for name in ("priority", "timeout"))
    if not 0 <= priority <= LAST_PRIORITY:
        raise InvalidInput(
            "parameters[priority]", priority, f"1 (first) to {LAST_PRIORITY} (last), or 0 for the default"
        )
    if timeout_us < 0:
        raise InvalidInput("parameters[timeout]", timeout_us, "microseconds, or 0 for none")
    limits = [seconds for seconds in (remaining, timeout_us / 1e6 or None) if seconds is not None]
    return Urgency(now + min(limits) if limits else None, priority or DEFAULT_PRIORITY)


def read_flag(parameters: Parameters, name: str) -> bool:
    """Read a parameter that is true or false; absent means false."""
    parameter = parameters.get(name)
    if parameter is None:
        return False
    if parameter.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidInput(f"parameters[{name}]", _show(parameter), "a bool_param")
    return parameter.bool_param


def read_attention(parameters: Parameters, outputs: Sequence[str]) -> regard.AttentionRequest | None:
    """Read what is wanted of the attention, by parameters, by outputs named attention.LAYER, or by both.

    Args:
        parameters: attention (bool); attention_layers and attention_heads, integers separated by commas, or one
            integer; attention_rows likewise, or "cls", or "all"; attention_keys likewise, or "all"; attention_reduce,
            "none", "mean", "max" or "min" over the heads; attention_dtype, "FP32", "FP16" or "UINT8";
            attention_measure, "weights", "rollout", "entropy", "distance", "contribution" or "contribution_rollout";
            attention_residual_share (double);
            attention_top_k (integer); attention_value_weighted, attention_drop_special and attention_renormalize
            (bool). They mean what the fields of regard.v1.AttentionRequest mean.
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
    wanted = regard.AttentionRequest(layers=named or layers, heads=_read_list(parameters, "attention_heads"))
    if _read_word(parameters, "attention_rows") == "cls":
        wanted.cls_only = True
    else:
        wanted.rows.extend(_read_list(parameters, "attention_rows", everything="all"))
    wanted.head_reduction = _choose(parameters, "attention_reduce", _REDUCTIONS, "none")
    wanted.dtype = _choose(parameters, "attention_dtype", _DTYPES, "FP32")
    wanted.keys.extend(_read_list(parameters, "attention_keys", everything="all"))
    wanted.measure = _choose(parameters, "attention_measure", _MEASURES, "weights")
    rollouts = (regard.ATTENTION_MEASURE_ROLLOUT, regard.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT)
    if named and wanted.measure in rollouts:
        word = parameters["attention_measure"].string_param
        raise InvalidInput("parameters[attention_measure]", repr(word), "attention_layers instead of outputs")
    wanted.top_k = _read_top_k(parameters)
    wanted.value_weighted, wanted.drop_special, wanted.renormalize = (
        read_flag(parameters, f"attention_{name}") for name in ("value_weighted", "drop_special", "renormalize")
    )
    if (share := parameters.get("attention_residual_share")) is not None:
        if share.WhichOneof("parameter_choice") != "double_param":
            raise InvalidInput("parameters[attention_residual_share]", _show(share), "a double_param")
        wanted.residual_share = share.double_param
    return wanted


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


def _read_list(parameters: Parameters, name: str, everything: str = "") -> list[int]:
    """Read integers separated by commas; empty where absent."""
    if name not in parameters:
        return []
    word = _read_word(parameters, name)
    if everything and word == everything:
        return []
    expected = "integers separated by commas" + (f', "cls" or "{everything}"' if everything else "")
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
