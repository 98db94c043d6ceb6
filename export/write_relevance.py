"""Writes relevance graphs beside the others, each for itself: what cannot be made, or does not add up, is left out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import onnx
from onnx import ModelProto

from artifact.contract import (
    BATCH_AXIS,
    PLAIN_GRAPH,
    RELEVANCE_GRAPHS,
    RelevanceContract,
    RelevanceGraph,
    SimilarityContract,
)
from artifact.verification import Check
from export.cases import make_cases
from export.compare import LIMITS, Graphs, compare_relevance, compare_served, run
from export.differences import Difference, above_limits, summarize, tell
from export.errors import ExportError, RelevanceError, VerificationError
from export.probe import Axes, declare_axes, find_axes, run_graph
from export.randomness import check_repeatable
from export.reach import Reach
from export.relevance.graph import Relevance, add_relevance
from export.served import AsServed
from export.session import open_session
from export.sources import Source
from export.tapping.tap import Tap

_LOGITS = "logits"
_SCORE_AXES = 2  # [batch, column]


@dataclass
class Explained:
    """The relevance graphs of an artifact, and those of similarities.

    Attributes:
        contracts: What each relevance graph gives.
        similarity: What those of similarities give; None where there are none.
        checks: What was compared.
        left_out: Why another was not written, a line each.
    """

    contracts: tuple[RelevanceContract, ...] = ()
    similarity: SimilarityContract | None = None
    checks: tuple[Check, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Base:
    """What relevance graphs are made of.

    Attributes:
        source: What is exported.
        plain: Its graph.
        lowered: The same with attention, without Attention nodes.
        taps: The attention.
        reach: Of inputs and outputs.
        folder: Where the plain graph and the weights lie.
    """

    source: Source
    plain: ModelProto
    lowered: ModelProto
    taps: Sequence[Tap]
    reach: Reach
    folder: Path

    def scores(self, output: str) -> bool:
        """Whether a row of an output is numbers, of which weights make a score."""
        axes = self.reach.axes.get(output, ())
        return axes[:1] == (BATCH_AXIS,) and len(axes) == _SCORE_AXES

    def copied(self) -> ModelProto:
        """Return a copy of the lowered graph with the outputs of the plain one."""
        graph, kept = ModelProto(), {value.name for value in self.plain.graph.output}
        graph.CopyFrom(self.lowered)
        for value in [value for value in graph.graph.output if value.name not in kept]:
            graph.graph.output.remove(value)
        return graph


def write_relevance(base: Base, wanted: Sequence[RelevanceGraph], report: Callable[[str], None]) -> Explained:
    """Write and verify relevance graphs of logits.

    Args:
        base: What they are made of.
        wanted: Which.
        report: Called with a line for each that is left out.
    """
    found = Explained()
    for method in wanted if base.scores(_LOGITS) else ():
        file = RELEVANCE_GRAPHS[method]
        with leaving_out(base.folder, found, f"relevance of {_LOGITS} by {method}", [file], report):
            graph, names = add_relevance(base.copied(), base.folder, _LOGITS, method, [one.output for one in base.taps])
            axes = save(base, graph, file)
            contract = describe(_LOGITS, names, axes, method)
            kept = {name: own for name, own in axes.items() if name in contract.outputs}
            found.checks += verify_graphs(base, {file: "relevance" if method == "libra" else method}, kept)
            found.contracts += (contract,)
    return found


@contextmanager
def leaving_out(
    folder: Path, found: Explained, what: str, files: Sequence[str], report: Callable[[str], None]
) -> Iterator[None]:
    """Leave files out of the artifact if the block fails to make what is in them, with a line that says why."""
    try:
        yield
    except ExportError as error:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        found.left_out += (f"no {what}: {error}",)
        report(found.left_out[-1])


def save(base: Base, graph: ModelProto, file: str) -> dict[str, Axes]:
    """Write a graph with the axes of its outputs, which are found by running it; returns these."""
    path = base.folder / file
    onnx.save_model(graph, path)
    axes = find_axes(run_graph(path), base.source.traits).axes
    declare_axes(graph, axes)
    onnx.save_model(graph, path)
    return dict(axes)


def describe(
    output: str, names: Relevance, axes: Mapping[str, Axes], method: RelevanceGraph = "libra"
) -> RelevanceContract:
    """Describe a relevance graph of an output.

    Raises:
        RelevanceError: Its positions are none of the input.
    """
    batch, position = axes[names.positions]
    if batch != BATCH_AXIS or position is None:
        found = f"{batch or '?'}, {position or '?'}"
        raise RelevanceError(f"its positions are [{found}]; expected [{BATCH_AXIS}, position]")
    return RelevanceContract(
        graph=method,
        output=output,
        weights=names.weights,
        positions=names.positions,
        position_axis=position,
        rest=names.rest or None,
        score=names.score,
        scale=names.scale or None,
        by_layer=names.by_layer or None,
        added=names.added or None,
        num_layers=_count_layers(axes[names.by_layer]) if names.by_layer else 0,
    )


def _count_layers(axes: Axes) -> int:
    """Layers of what is by layer, [batch, layers + 1, position]."""
    depths = axes[1]
    if not isinstance(depths, int):
        raise RelevanceError(f"by layer it has {depths or 'no known number of'} depths; expected a fixed number")
    return depths - 1


def verify_graphs(base: Base, files: Mapping[str, str], axes: Mapping[str, Axes]) -> tuple[Check, ...]:
    """Compare graphs with the plain one, rows with themselves alone, and each with what is served.

    Args:
        base: What they were made of.
        files: Their files, and what the table puts before the names of their tensors, which others may have, too.
        axes: Of their further outputs.

    Returns:
        The table.

    Raises:
        VerificationError: A difference is above its limit, or is not a number.
    """
    reach = replace(base.reach, axes={**base.reach.axes, **axes})
    cases = make_cases(reach)
    served = [cases[0], *cases[2:3]]
    differences: dict[str, list[Difference]] = {name: [] for name in files}
    with AsServed(base.folder, [case.feed for case in served], list(files)) as as_served:
        sessions = {one: open_session(base.folder / one) for one in (PLAIN_GRAPH, *files)}
        graphs = Graphs(sessions, reach, LIMITS["float32"])
        for name, made in differences.items():
            for case in served:
                check_repeatable(base.folder / name, partial(run, sessions[name], case.feed))
            for case in cases:
                made += compare_relevance(graphs, name, case)
        for name, place, found in as_served.results():
            differences[name] += compare_served(graphs, name, found, served[place])
    tables = {label: summarize(differences[name]) for name, label in files.items()}
    if failed := above_limits(chain.from_iterable(tables.values())):
        raise VerificationError(tell(failed, "; "))
    return tuple(
        line.model_copy(update={"tensor": f"{label}.{line.tensor.removeprefix('relevance.')}"})
        for label, table in tables.items()
        for line in table
    )
