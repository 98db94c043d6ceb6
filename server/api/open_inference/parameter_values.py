"""What a parameter of an inference request may be: a flag, a text, a number, a list of numbers, one of some words.

All raise InvalidInput by the parameter's name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from server.api.counts import MAX_NUMBERS, check_count
from server.api.open_inference import open_inference_pb2 as pb
from server.errors import InvalidInput

Parameters = Mapping[str, pb.InferParameter]


def read_flag(parameters: Parameters, name: str) -> bool:
    """Read a parameter that is true or false; absent means false."""
    parameter = parameters.get(name)
    if parameter is None:
        return False
    if parameter.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidInput(f"parameters[{name}]", show(parameter), "a bool_param")
    return parameter.bool_param


def read_text(parameters: Parameters, name: str) -> str:
    """Read a parameter that is a string, whatever is in it; absent means empty.

    Raises:
        InvalidInput: It is none.
    """
    parameter = parameters.get(name)
    if parameter is None:
        return ""
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput(f"parameters[{name}]", show(parameter), "a string_param")
    return parameter.string_param


def read_integer(parameters: Parameters, name: str) -> int:
    """Read a whole number; absent means 0."""
    parameter = parameters.get(name)
    kind = parameter.WhichOneof("parameter_choice") if parameter is not None else None
    if kind not in ("int64_param", "uint64_param", None):
        raise InvalidInput(f"parameters[{name}]", show(parameters[name]), "an int64_param or uint64_param")
    return int(getattr(parameter, kind)) if kind else 0


def read_real(parameters: Parameters, name: str) -> float | None:
    """Read a number; absent means None."""
    parameter = parameters.get(name)
    if parameter is None:
        return None
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in ("double_param", "int64_param", "uint64_param"):
        raise InvalidInput(f"parameters[{name}]", show(parameter), "a double_param")
    return float(getattr(parameter, kind))


def read_list(parameters: Parameters, name: str, words: Sequence[str] = ()) -> list[int]:
    """Read integers separated by commas; empty where absent, and for the last of the words."""
    if name not in parameters:
        return []
    word = read_word(parameters, name)
    if word in words[-1:]:
        return []
    check_count(f"parameters[{name}]", word.count(",") + 1, MAX_NUMBERS)
    expected = " or ".join(["integers separated by commas", *(f'"{one}"' for one in words)])
    return [to_integer(f"parameters[{name}]", part, expected) for part in word.split(",")]


def read_word(parameters: Parameters, name: str) -> str:
    """Read a word or a whole number as text; absent means empty."""
    parameter = parameters.get(name)
    kind = parameter.WhichOneof("parameter_choice") if parameter is not None else None
    if kind not in ("string_param", "int64_param", "uint64_param", None):
        raise InvalidInput(f"parameters[{name}]", show(parameters[name]), "a string_param or int64_param")
    return str(getattr(parameter, kind)).strip() if kind else ""


def choose(parameters: Parameters, name: str, choices: Mapping[str, Any], default: str) -> Any:  # an enum's number
    """Read one of some words; absent means the default."""
    word = read_word(parameters, name) or default
    if word not in choices:
        *most, last = choices
        raise InvalidInput(f"parameters[{name}]", repr(word), f"{', '.join(most)} or {last}")
    return choices[word]


def to_integer(field: str, text: str, expected: str) -> int:
    """Read a whole number of 32 bits."""
    try:
        number = int(text)
    except ValueError:
        raise InvalidInput(field, repr(text), expected) from None
    if abs(number) > 2**31 - 1:
        raise InvalidInput(field, number, expected)
    return number


def show(parameter: pb.InferParameter) -> str:
    """Say what came, for messages."""
    kind = parameter.WhichOneof("parameter_choice")
    return f"{kind} {getattr(parameter, kind)!r}" if kind else "without a value"
