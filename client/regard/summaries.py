"""Lines of the command line that sum up a vector, and the hidden states beside it."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from regard.answers import Embedding, SparseVector
from regard.console import Terminal, print_json, warn_if_cut
from regard.hidden_states import LayerHiddenStates
from regard.sources import Source
from regard.terminal import clean

_MAX_PRINTED_TERMS, _MAX_PRINTED_NUMBERS = 10, 6


def show_vector(source: Source, answer: Embedding, *, as_json: bool, states: bool) -> None:
    """Print what came for an input.

    Args:
        source: The input.
        answer: What came.
        as_json: Print all of it as a line of JSON.
        states: Print a line for each layer of hidden states, too; JSON has them anyway.
    """
    warn_if_cut(source, answer)
    if as_json:
        found = dataclasses.asdict(answer)
        if answer.sparse is not None:
            del found["vector"]  # tens of thousands of zeros
        print_json({"input": source.name, **found})
        return
    Terminal().print(_summary(source, answer))
    if states and answer.hidden_states is not None:
        for layer in answer.hidden_states.layers:
            Terminal().print(_states_line(layer))


def _heaviest(found: SparseVector) -> str:
    """Name the terms of a sparse vector, the heaviest first."""
    order = np.argsort(-found.values, kind="stable")[:_MAX_PRINTED_TERMS]
    named = ", ".join(f"{clean(found.terms[place])} {found.values[place]:.2f}" for place in order)
    return f"{len(found.values)} terms: {named}{', ...' if len(found.values) > len(order) else ''}"


def _summary(source: Source, answer: Embedding) -> Text:
    vector = answer.to_floats()
    if answer.sparse is not None:
        return Text(f"{clean(source.title)}: {_heaviest(answer.sparse)}")
    if answer.tokens is not None:
        spelt = " ".join(clean(token.text) for token in answer.tokens)
        return Text(f"{clean(source.title)}: {len(vector)} vectors, {vector.shape[1]} wide, of {spelt}")
    if answer.vector.dtype == np.uint8:
        bits = answer.vector.tobytes().hex()
        return Text(f"{clean(source.title)}: {vector.size} bits, {bits[:24]}{'...' if len(bits) > 24 else ''}")
    return Text(f"{clean(source.title)}: {_numbers(vector)}")


def _states_line(layer: LayerHiddenStates) -> Text:
    """Sum up a layer: its vector [D], or of [N, D] how many there are and the first."""
    values = layer.values
    if values.ndim == 1:
        return Text(f"  hidden states of layer {layer.layer}: {_numbers(values)}")
    first = values.reshape(-1, values.shape[-1])[0]
    shape = " x ".join(str(size) for size in values.shape)
    return Text(f"  hidden states of layer {layer.layer}: {shape}, the first {_numbers(first)}")


def _numbers(vector: NDArray[np.floating]) -> str:
    first = ", ".join(f"{value:.4f}" for value in vector[:_MAX_PRINTED_NUMBERS])
    more = ", ..." if vector.size > _MAX_PRINTED_NUMBERS else ""
    norm = float(np.linalg.norm(vector.astype(np.float32)))
    return f"{vector.size} wide, norm {norm:.4f}, [{first}{more}]"
