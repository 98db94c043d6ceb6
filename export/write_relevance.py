"""Writes relevance graphs beside the others, each for itself: what cannot be made, or does not add up, is left out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import onnx
from onnx import ModelProto

from artifact.contract import BATCH_AXIS, PLAIN_GRAPH, RELEVANCE_GRAPHS, RelevanceContract, RelevanceGraph
from artifact.verification import Check
from export.cases import make_cases
from export.compare import LIMITS, Graphs, compare_relevance, compare_served, run
from export.differences import Difference, summarize
from export.errors import ExportError, RelevanceError, VerificationError
from export.probe import Axes, declare_axes, find_axes, run_graph
from export.randomness import check_repeatable
from export.reach import Reach
from export.relevance.graph import add_relevance
from export.served import AsServed
from export.session import open_session
from export.sources import Source
from export.tapping.tap import Tap

_SCORE_AXES = 2  # [batch, column]


@dataclass
class Explained:
    """The relevance graphs of an artifact.

    Attributes:
        contracts: What each gives.
        axes: Of their further outputs, which all of them call the same.
        checks: What was compared.
        left_out: Why another was not written, a line each.
    """

    contracts: tuple[RelevanceContract, ...] = ()
    axes: dict[str, Axes] = field(default_factory=dict)
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

    @property
    def output(self) -> str:
        """What is explained: logits, or else a vector; empty where there is neither."""
        return next((name for name in self._scores() if self._fits(name)), "")

    def _scores(self) -> Iterator[str]:
        yield "logits"
        if self.source.traits.embedding:
            yield self.source.traits.embedding.output

    def _fits(self, name: str) -> bool:
        axes = self.reach.axes.get(name, ())
        return axes[:1] == (BATCH_AXIS,) and len(axes) == _SCORE_AXES


def write_relevance(base: Base, wanted: Sequence[RelevanceGraph], report: Callable[[str], None]) -> Explained:
    """Write and verify relevance graphs of logits, or else of vectors.

    Args:
        base: What they are made of.
        wanted: Which.
        report: Called with a line for each that is left out.
    """
    found = Explained()
    if not base.output:
        return found
    for method in wanted:
        path = base.folder / RELEVANCE_GRAPHS[method]
        try:
            contract, axes = _write(base, method, path)
            checks = _verify(base, contract, axes)
        except ExportError as error:
            path.unlink(missing_ok=True)
            found.left_out += (f"no relevance of {base.output} by {method}: {error}",)
            report(found.left_out[-1])
            continue
        found.contracts += (contract,)
        found.axes |= axes
        found.checks += checks
    return found


def _write(base: Base, method: RelevanceGraph, path: Path) -> tuple[RelevanceContract, dict[str, Axes]]:
    graph, kept = ModelProto(), {value.name for value in base.plain.graph.output}
    graph.CopyFrom(base.lowered)
    for value in [value for value in graph.graph.output if value.name not in kept]:
        graph.graph.output.remove(value)
    attention = [one.output for one in base.taps]
    graph, names = add_relevance(graph, base.folder, base.output, method, attention)
    onnx.save_model(graph, path)
    axes = find_axes(run_graph(path), base.source.traits).axes
    batch, position = axes[names.positions]
    if batch != BATCH_AXIS or position is None:
        found = f"{batch or '?'}, {position or '?'}"
        raise RelevanceError(f"its positions are [{found}]; expected [{BATCH_AXIS}, position]")
    declare_axes(graph, axes)
    onnx.save_model(graph, path)
    contract = RelevanceContract(
        graph=method,
        output=base.output,
        weights=names.weights,
        positions=names.positions,
        position_axis=position,
        rest=names.rest or None,
        score=names.score,
        scale=names.scale or None,
    )
    return contract, {name: own for name, own in axes.items() if name in contract.outputs}


def _verify(base: Base, contract: RelevanceContract, axes: Mapping[str, Axes]) -> tuple[Check, ...]:
    """Compare a relevance graph with the plain one, rows with themselves alone, and itself with what is served.

    Raises:
        VerificationError: A difference is above its limit, or is not a number.
    """
    reach, name = replace(base.reach, axes={**base.reach.axes, **axes}), contract.file
    cases = make_cases(reach)
    served = [cases[0], *cases[2:3]]
    with AsServed(base.folder, [case.feed for case in served], [name]) as as_served:
        sessions = {one: open_session(base.folder / one) for one in (PLAIN_GRAPH, name)}
        for case in served:
            check_repeatable(base.folder / name, partial(run, sessions[name], case.feed))
        graphs = Graphs(sessions, reach, LIMITS["float32"])
        differences: list[Difference] = []
        for case in cases:
            differences += compare_relevance(graphs, name, case)
        for _, place, found in as_served.results():
            differences += compare_served(graphs, name, found, served[place])
    table = summarize(differences)
    if failed := [line for line in table if not line.max_abs <= line.limit]:
        told = (f"{line.tensor}: {line.check}: {line.max_abs:.3g}, limit {line.limit:.3g}" for line in failed)
        raise VerificationError("; ".join(told))
    return tuple(line.model_copy(update={"tensor": _name(line.tensor, contract.graph)}) for line in table)


def _name(tensor: str, graph: RelevanceGraph) -> str:
    """What the table calls a tensor, of which other graphs may have one of that name."""
    own = tensor.startswith("relevance.")
    return tensor if own and graph == "libra" else f"{graph}.{tensor.removeprefix('relevance.')}"
