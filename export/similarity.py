"""Writes the graphs that explain similarities of an embedding: relevance for another vector, and parts of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
from onnx import ModelProto

from artifact.contract import (
    BATCH_AXIS,
    PARTS_GRAPH,
    SIMILARITY_GRAPH,
    RelevanceContract,
    SimilarityContract,
)
from export.errors import RelevanceError
from export.probe import Axes, declare_axes, find_axes, run_graph
from export.relevance.graph import add_relevance
from export.relevance.parts import add_parts
from export.traits import Traits


def write_similarity(
    lowered: ModelProto,
    plain: ModelProto,
    traits: Traits,
    axes: Mapping[str, Axes],
    folder: Path,
    report: Callable[[str], None],
) -> tuple[SimilarityContract | None, Mapping[str, Axes]]:
    """Write similarity and parts graph, and the axes of their outputs; none where the embedding has none.

    Args:
        lowered: The tapped graph without Attention nodes.
        plain: Its outputs are kept.
        traits: Of the inputs; names the embedding.
        axes: Of every output.
        folder: The artifact's.
        report: Is told why there are none.
    """
    embedding = traits.embedding
    if embedding is None or embedding.sparse or axes.get(embedding.output, ()) != (BATCH_AXIS, embedding.dim):
        return None, {}
    kept, graph = {value.name for value in plain.graph.output}, ModelProto()
    graph.CopyFrom(lowered)
    for value in [value for value in graph.graph.output if value.name not in kept]:
        graph.graph.output.remove(value)
    try:
        explaining, names = add_relevance(graph, folder, embedding.output)
        parting, parts = add_parts(graph, folder, embedding.output)
    except RelevanceError as error:
        report(f"no similarity of {embedding.output}: {error}")
        return None, {}
    told = {
        **_write(explaining, folder / SIMILARITY_GRAPH, traits),
        **_write(parting, folder / PARTS_GRAPH, traits),
    }
    batch, position = told[names.positions]
    if batch != BATCH_AXIS or position is None:
        for name in (SIMILARITY_GRAPH, PARTS_GRAPH):
            (folder / name).unlink()
        report(f"no similarity of {embedding.output}: its positions are [{batch or '?'}, {position or '?'}]")
        return None, {}
    relevance = RelevanceContract(
        output=embedding.output,
        weights=names.weights,
        positions=names.positions,
        position_axis=position,
        rest=names.rest,
        score=names.score,
    )
    return SimilarityContract(relevance=relevance, chosen=parts.chosen, part=parts.part), told


def _write(graph: ModelProto, path: Path, traits: Traits) -> Mapping[str, Axes]:
    """Write a graph with the axes of its outputs, which are found by running it."""
    onnx.save_model(graph, path)
    axes = find_axes(run_graph(path), traits).axes
    declare_axes(graph, axes)
    onnx.save_model(graph, path)
    return axes
