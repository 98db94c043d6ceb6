"""Writes the graphs of a decoder's step beside the encoder's, with one file of weights for all."""

from pathlib import Path

import onnx
from onnx import ModelProto

from artifact.contract import DECODER_GRAPH, LOWERED_DECODER_GRAPH, WEIGHTS_FILE
from export.encoder_decoder import Writing
from export.graph import externalize
from export.step import FUSED, LOWERED, trace_step

STEP_GRAPHS = (DECODER_GRAPH, LOWERED_DECODER_GRAPH)


def write_steps(writing: Writing, encoder: ModelProto, folder: Path) -> ModelProto:
    """Write the step, and its lowered form for providers without its operators.

    Args:
        writing: Whose step.
        encoder: The plain graph, whose weights lie in the folder's file; what a step has besides is put behind them.
        folder: Where to.

    Returns:
        All weights that then lie in the file.

    Raises:
        TraceError: Torch cannot export it.
    """
    beside = encoder
    for form, name in zip((FUSED, LOWERED), STEP_GRAPHS, strict=True):
        graph = externalize(trace_step(writing.step, writing.generation, form), folder / WEIGHTS_FILE, beside)
        onnx.save_model(graph, folder / name)
        beside = _together(beside, graph)
    return beside


def _together(first: ModelProto, second: ModelProto) -> ModelProto:
    """The weights of both."""
    both = ModelProto()
    both.graph.initializer.extend((*first.graph.initializer, *second.graph.initializer))
    return both
