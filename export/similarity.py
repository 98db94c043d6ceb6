"""Writes the graphs that explain similarities of an embedding: relevance for another vector, and parts of its own."""

from collections.abc import Callable

from artifact.contract import PARTS_GRAPH, SIMILARITY_GRAPH, SimilarityContract
from export.relevance.graph import add_relevance
from export.relevance.parts import add_parts
from export.write_relevance import Base, Explained, describe, leaving_out, save, verify_graphs


def write_similarity(base: Base, found: Explained, report: Callable[[str], None]) -> None:
    """Write and verify similarity and parts graph of the embedding, both or neither, and add them to what was found.

    Args:
        base: What they are made of.
        found: Is added to.
        report: Called with a line if they are left out.
    """
    embedding = base.source.traits.embedding
    if embedding is None or embedding.sparse or not base.scores(embedding.output):
        return
    output, files = embedding.output, [SIMILARITY_GRAPH, PARTS_GRAPH]
    with leaving_out(base.folder, found, f"similarity of {output}", files, report):
        explaining, names = add_relevance(base.copied(), base.folder, output)
        parting, parts = add_parts(base.copied(), base.folder, output)
        axes = {**save(base, explaining, SIMILARITY_GRAPH), **save(base, parting, PARTS_GRAPH)}
        relevance = describe(output, names, axes)
        kept = {name: axes[name] for name in (*relevance.outputs, parts.part)}
        found.checks += verify_graphs(base, {SIMILARITY_GRAPH: "similarity", PARTS_GRAPH: "parts"}, kept)
        found.similarity = SimilarityContract(relevance=relevance, chosen=parts.chosen, part=parts.part)
