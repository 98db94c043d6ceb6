"""Relevance of labels by the Open Inference Protocol: the parameters that ask for it, the outputs that have it."""

import json
from collections.abc import Collection, Sequence
from typing import get_args

import numpy as np

from artifact.contract import RelevanceMethod
from artifact.dtypes import Array
from server.api.open_inference.parameter_values import (
    Parameters,
    choose,
    read_flag,
    read_integer,
    read_text,
    to_integer,
)
from server.api.open_inference.parameters import FURTHER_PREFIXES, RELEVANCE_PREFIX, is_asked
from server.errors import InvalidInput
from server.inference.request import InferenceResponse
from server.relevance.plan import RelevancePlan
from server.relevance.request import INTEGRATED, RelevanceRequest

LOGITS = "logits"  # the only output of the graph that goes beside it
_METHODS: dict[str, RelevanceMethod] = {method: method for method in get_args(RelevanceMethod)}
_COMPLETE: tuple[RelevanceMethod, ...] = ("libra", INTEGRATED)
_LABELS = 'a list of labels as JSON, such as ["one", "another"]'
_MAX_CHARACTERS = 2**16  # of that list
# By name, the methods that have it.
_OUTPUTS: dict[str, Collection[RelevanceMethod]] = {
    **dict.fromkeys(
        [f"{RELEVANCE_PREFIX}{name}" for name in ("values", "score", "rest", "unsent", "label", "positions")],
        tuple(_METHODS.values()),
    ),
    **dict.fromkeys([f"{RELEVANCE_PREFIX}{name}" for name in ("error", "relative_error")], _COMPLETE),
    f"{RELEVANCE_PREFIX}baseline": (INTEGRATED,),
}
_POSITIONS = f"{RELEVANCE_PREFIX}positions"


def read_relevance(parameters: Parameters, outputs: Sequence[str]) -> RelevanceRequest | None:
    """Read what is to be explained, by parameters, by outputs named relevance.WHAT, or by both.

    Args:
        parameters: relevance (bool), implied by the others and by such outputs; relevance_label and relevance_against
            (string); relevance_labels, a list of strings as JSON; relevance_top and relevance_steps (integer);
            relevance_method, "libra", "gradient", "integrated-gradients", "genatt" or "legrad"; relevance_drop_special
            (bool). They mean what the fields of regard.v1.RelevanceRequest mean.
        outputs: Names of the outputs asked for.

    Raises:
        InvalidInput: A value cannot be read; there is no such output, or the method does not give it; or an output of
            the graph is named that does not go beside it.
    """
    if not is_asked("relevance", parameters, outputs):
        return None
    method: RelevanceMethod = choose(parameters, "relevance_method", _METHODS, "libra")
    request = RelevanceRequest(
        label=read_text(parameters, "relevance_label"),
        against=read_text(parameters, "relevance_against"),
        drop_special=read_flag(parameters, "relevance_drop_special"),
        method=method,
        steps=_read_number(parameters, "relevance_steps"),
        labels=_read_labels(parameters),
        top=_read_number(parameters, "relevance_top"),
    )
    for name in outputs:
        _check_output(name, request)
    return request


def _check_output(name: str, request: RelevanceRequest) -> None:
    field = f"outputs[{name}]"
    if not name.startswith(RELEVANCE_PREFIX):
        if not name.startswith(FURTHER_PREFIXES) and name != LOGITS:
            raise InvalidInput(field, "beside relevance", f"{LOGITS} alone of the model's outputs, or a call for each")
    elif name not in _OUTPUTS:
        raise InvalidInput(field, repr(name), f"one of {', '.join(_OUTPUTS)}")
    elif request.method not in _OUTPUTS[name]:
        raise InvalidInput(field, f"by {request.method}", f"a method that has it: {', '.join(_OUTPUTS[name])}")
    elif name == _POSITIONS and not request.drop_special:
        raise InvalidInput(field, "without relevance_drop_special", "none: all are sent, in their order")


def _read_number(parameters: Parameters, name: str) -> int:
    number = str(read_integer(parameters, name))
    return to_integer(f"parameters[{name}]", number, "a whole number of 32 bits")


def _read_labels(parameters: Parameters) -> tuple[str, ...]:
    if "relevance_labels" not in parameters:
        return ()
    text = read_text(parameters, "relevance_labels")
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInput("parameters[relevance_labels]", f"{len(text)} characters", f"at most {_MAX_CHARACTERS}")
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list) or not labels or not all(isinstance(one, str) for one in labels):
        raise InvalidInput("parameters[relevance_labels]", repr(text), _LABELS)
    return tuple(labels)


def name_relevance(found: InferenceResponse, named: Collection[str]) -> dict[str, Array]:
    """Make these outputs, or all that there are where none is named, each [B, ...]; [B, labels, ...] of a list.

    They have the names and the meaning of regard.v1.Relevance's fields: values, FP32 [..., positions], where rows are
    of unequal length with 0 for those that are none; score, rest, unsent, error, relative_error and baseline, FP32;
    label, INT32, the label's place among the logits; positions, INT32 [B, positions], where only some are sent.
    """
    plan = found.plan
    if not isinstance(plan, RelevancePlan):
        return {}
    rows = found.relevance()
    whys = [why for row in rows for why in row]
    axes = (len(rows), len(rows[0])) if plan.is_list else (len(rows),)

    def shaped(values: Sequence[object], dtype: type = np.float32) -> Array:
        array: Array = np.array(values, dtype)
        return array.reshape(*axes, *array.shape[1:])

    arrays = {
        "values": shaped([why.values for why in whys]),
        "score": shaped([why.score for why in whys]),
        "rest": shaped([why.rest for why in whys]),
        "unsent": shaped([why.unsent for why in whys]),
        "label": shaped([why.label for why in whys], np.int32),
    }
    if plan.positions is not None:
        arrays["positions"] = np.tile(np.array(plan.positions, np.int32), (len(rows), 1))
    complete = [why.completeness for why in whys if why.completeness]
    if complete:
        arrays["error"] = shaped([one.error for one in complete])
        arrays["relative_error"] = shaped([one.relative_error for one in complete])
    if baselines := [one.baseline for one in complete if one.baseline is not None]:
        arrays["baseline"] = shaped(baselines)
    made = {f"{RELEVANCE_PREFIX}{name}": array for name, array in arrays.items()}
    return {name: made[name] for name in named or made}
