"""Names fields of regard.v1, by which requests are refused, as callers of the Open Inference Protocol write them."""

import re
from collections.abc import Collection

from server.api.open_inference.parameters import (
    FURTHER_PREFIXES,
    RELEVANCE_PREFIX,
    STEP_PREFIXES,
    VECTOR_FORMATS,
)
from server.errors import ServerError

_FORMAT_NAMES: dict[str, str] = {own: name for name, own in VECTOR_FORMATS.items()}
_FORMAT = re.compile(rf"\b({'|'.join(_FORMAT_NAMES)})\b")
# Of attention, hidden states and relevance, others are parameters likewise, or outputs.
_WRITTEN = {
    "input": "inputs",
    "text": "inputs[text]",
    "image": "inputs[image]",
    "pair": "inputs[text_pair]",
    "pair.first": "inputs[text]",
    "pair.second": "inputs[text_pair]",
    "prompt": "parameters[prompt]",
    "role": "parameters[role]",
    "candidate_labels": "inputs[candidate_labels]",
    "label_template": "parameters[label_template]",
    "dimensions": "parameters[vector_dimensions]",
    "vector_format": "parameters[vector_format]",
    "start": "parameters[start]",
    "max_tokens": "parameters[max_tokens]",
    "num_beams": "parameters[num_beams]",
    "num_results": "parameters[num_results]",
    "length_penalty": "parameters[length_penalty]",
    "stop": "parameters[stop]",
    "stop[0]": "parameters[stop]",
    "target": "parameters[target]",
    "sampling": "parameters",
    "sampling.temperature": "parameters[temperature]",
    "sampling.top_k": "parameters[top_k]",
    "sampling.top_p": "parameters[top_p]",
    "sampling.seed": "parameters[seed]",
    "attention.cls_only": "parameters[attention_rows]",
    "attention.head_reduction": "parameters[attention_reduce]",
}
_RELEVANCE = re.compile(r"\brelevance\.(\w+)")  # another field of it
_WORD = re.compile(r"(?:ATTENTION_MEASURE|HIDDEN_STATES_POOLING)_(\w+)|FLOAT(16|32)")


def rename_fields(
    error: ServerError, inputs: Collection[str], outputs: Collection[str], parameters: Collection[str]
) -> None:
    """Let an error name the field as its caller wrote it: a parameter, an input, or an output such as attention.LAYER.

    Args:
        error: That refuses a request.
        inputs: Names of the request's.
        outputs: Names of those asked for.
        parameters: Names of those given.
    """
    field, colon, rest = str(error).partition(": ")
    what, _, own = field.partition(".")
    is_further = f"{what}." in (*FURTHER_PREFIXES, *STEP_PREFIXES) and bool(own)
    name, bracket, index = field.partition("[")
    written = _WRITTEN.get(field) or (f"{_WRITTEN[name]}{bracket}{index}" if bracket and name in _WRITTEN else None)
    if not written and (is_further or f"{field}." in (*STEP_PREFIXES, RELEVANCE_PREFIX)):
        written = _name_further(what, own, rest.partition(";")[0], outputs, parameters)
    if name == "stop" and name in inputs:
        written = f"inputs[stop]{bracket}{index}"
    if colon and written:
        if field == "vector_format":
            rest = _FORMAT.sub(lambda found: _FORMAT_NAMES[found[0]], rest)
        if what == "relevance":
            rest = _RELEVANCE.sub(r"relevance_\1", rest)
        error.args = (f"{written}: {_WORD.sub(_word, rest) if is_further else rest}",)


def _name_further(what: str, own: str, value: str, outputs: Collection[str], parameters: Collection[str]) -> str:
    """Name a field of attention or hidden states, or all of it where it has no name of its own."""
    if own not in ("", "layers"):
        own, bracket, index = own.partition("[")
        return f"parameters[{what}_{own}]{bracket}{index}"
    if own and f"{what}.{value}" in outputs:
        return f"outputs[{what}.{value}]"
    if any(name.startswith(f"{what}.") for name in outputs):
        return f"outputs[{what}.*]"
    layers = f"{what}_layers"
    return f"parameters[{layers if layers in parameters or (own and what not in parameters) else what}]"


def _word(found: re.Match[str]) -> str:
    measure, bits = found.groups()
    return str(measure).lower() if measure else f"FP{bits}"
