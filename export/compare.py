"""Compares what graphs give in one case: with the network, with the plain graph, and rows with themselves alone."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from artifact.contract import (
    BATCH_AXIS,
    CONTRIBUTIONS_GRAPH,
    HIDDEN_GRAPH,
    LOWERED_GRAPH,
    PARTS_GRAPH,
    PLAIN_GRAPH,
    SEQUENCE_AXIS,
    SIMILARITY_GRAPH,
    TAPPED_GRAPH,
    Precision,
)
from artifact.dtypes import Array
from export.accuracy import Answer
from export.cases import Case
from export.differences import Difference, largest, max_abs
from export.errors import VerificationError
from export.probe import Axes, is_attention
from export.queries import choose_queries
from export.reach import Reach
from export.references import Reference
from export.relevance.graph import ADDED, BY_LAYER, POSITIONS, REST, SCORE, WEIGHTS
from export.relevance.parts import CHOSEN, PART
from export.session import run_session
from export.traits import Feed, Traits
from server.errors import first_line


@dataclass(frozen=True)
class Limits:
    """Largest absolute differences for values of magnitude 1; outputs of larger magnitude scale their limit.

    Attributes:
        torch: From the network; None where only the accuracy on real inputs says how far a precision may go.
        plain: Of the tapped graph from the plain one.
        row_sum: Of the sum of a row of attention from 1.
        alone: Of a row in a batch from the row alone, at its own length.
        lowered: Of the lowered form from the tapped graph.
    """

    torch: float | None
    plain: float
    row_sum: float
    alone: float
    lowered: float = 1e-5


# Where numbers are rounded to eleven or eight bits, the last bit of a sum can move a result by one step.
LIMITS: dict[Precision, Limits] = {
    "float32": Limits(torch=1e-4, plain=1e-5, row_sum=1e-5, alone=1e-5),
    "float16": Limits(torch=None, plain=1e-2, row_sum=5e-3, alone=1e-2, lowered=1e-2),
    "int8": Limits(torch=None, plain=1e-5, row_sum=1e-5, alone=5e-2, lowered=5e-2),
}
ALONE = "row alone"
_SEED = 0
_BESIDE = (CONTRIBUTIONS_GRAPH, HIDDEN_GRAPH)  # beside the plain and the tapped graph


@dataclass(frozen=True, eq=False)
class Graphs:
    """What is compared.

    Attributes:
        sessions: By file name.
        reach: Of what they take and give.
        limits: How much may differ.
        causal: Names of the attention outputs that are.
        mixed: Names of those whose heads are mixed behind the softmax, so that rows need not sum to 1.
    """

    sessions: Mapping[str, onnxruntime.InferenceSession]
    reach: Reach
    limits: Limits
    causal: Collection[str] = ()
    mixed: Collection[str] = ()

    @property
    def traits(self) -> Traits:
        """Of the inputs."""
        return self.reach.traits

    @property
    def axes(self) -> Mapping[str, Axes]:
        """Of every output."""
        return self.reach.axes

    @property
    def attentions(self) -> list[str]:
        """Names of the attention outputs, in the order of the layers."""
        return [name for name in self.axes if is_attention(name)]

    @property
    def batched(self) -> bool:
        """Whether the server batches rows of several requests, as contracts say it."""
        outputs = [self.axes[value.name] for value in self.sessions[PLAIN_GRAPH].get_outputs()]
        return self.traits.is_batched and all(axes[:1] == (BATCH_AXIS,) for axes in outputs)


def compare_case(reference: Reference, graphs: Graphs, case: Case, *, lowered: bool = True) -> Iterator[Difference]:
    """Yield every difference in one case, in the lowered form too or not; positions that are padding are left out."""
    limits, sessions = graphs.limits, graphs.sessions
    from_plain, from_tapped = (run(sessions[name], case.feed) for name in (PLAIN_GRAPH, TAPPED_GRAPH))
    yield from _compare_plain(sessions[TAPPED_GRAPH], graphs, from_plain, from_tapped, case)
    yield from check_rows(graphs, from_tapped, case)
    further = {name: run(sessions[name], case.feed) for name in _BESIDE if name in sessions}
    for name, found in further.items():
        yield from _compare_plain(sessions[name], graphs, from_plain, found, case)
    if limits.torch:
        found = {**further.get(HIDDEN_GRAPH, {}), **from_tapped, **from_plain}
        yield from _compare_reference(reference, graphs, found, case, limits.torch)
    if lowered and LOWERED_GRAPH in sessions:
        for name, array in run(sessions[LOWERED_GRAPH], case.feed).items():
            yield difference(name, "lowered form", array, from_tapped[name], case, graphs, limits.lowered)


def compare_relevance(graphs: Graphs, name: str, case: Case) -> Iterator[Difference]:
    """Yield how a relevance graph differs from the plain one in one case, and how far it is from adding up if it is to.

    Args:
        graphs: The plain one and that; beside a parts graph that of the similarity, with which it is compared.
        name: Its file.
        case: What both are run on.
    """
    from_plain, found = run(graphs.sessions[PLAIN_GRAPH], case.feed), run(graphs.sessions[name], case.feed)
    yield from _compare_plain(graphs.sessions[name], graphs, from_plain, found, case)
    if REST in found:
        yield _check_complete(graphs, SCORE, found[POSITIONS], found[REST], found, case)
    if BY_LAYER in found:
        for depth, (held, added) in enumerate(
            zip(*(found[name].swapaxes(0, 1) for name in (BY_LAYER, ADDED)), strict=True)
        ):
            yield _check_complete(graphs, f"{BY_LAYER}.{depth}", held, added, found, case)
    if name == PARTS_GRAPH:
        yield from _check_parts(graphs, found[PART], case)


def _check_complete(
    graphs: Graphs, tensor: str, held: Array, rest: Array, found: Mapping[str, Array], case: Case
) -> Difference:
    """How far what positions did [B, N], and the rest [B], are from making up the score."""
    positions = held.astype(np.float64)
    total, scale = positions.sum(1) + rest, max(1.0, float(np.abs(positions).sum(1).max(initial=0)))
    return Difference(
        tensor, "adds up", max_abs(total, found[SCORE]), scale, scale * graphs.limits.plain, case.positions
    )


def _check_parts(graphs: Graphs, rest: Array, case: Case) -> Iterator[Difference]:
    """How far parts times the numbers of another vector are from the relevance that positions have for these."""
    weights = np.random.default_rng(_SEED).standard_normal(rest.shape).astype(np.float32)
    told = run(graphs.sessions[SIMILARITY_GRAPH], {**case.feed, WEIGHTS: weights})
    positions, rows = told[POSITIONS], np.arange(len(rest))
    chosen = rows % np.array(case.lengths or positions.shape[1])
    part = run(graphs.sessions[PARTS_GRAPH], {**case.feed, CHOSEN: chosen})[PART]
    scale = max(1.0, float(np.abs(positions).sum(1).max(initial=0)))
    limit = scale * graphs.limits.plain
    for found, expected in ((part, positions[rows, chosen]), (rest, told[REST])):
        yield Difference(
            PART, "as relevance", max_abs((found * weights).sum(1), expected), scale, limit, case.positions
        )


def compare_served(graphs: Graphs, name: str, found: Mapping[str, Array], case: Case) -> Iterator[Difference]:
    """Compare with what a graph gives with the server's session options and packed weights."""
    limit = graphs.limits.lowered if name == LOWERED_GRAPH else graphs.limits.plain
    for output, expected in run(graphs.sessions[name], case.feed).items():
        yield difference(output, "as served", found[output], expected, case, graphs, limit)


def _compare_plain(
    session: onnxruntime.InferenceSession,
    graphs: Graphs,
    from_plain: Mapping[str, Array],
    found: Mapping[str, Array],
    case: Case,
) -> Iterator[Difference]:
    """Yield how ordinary outputs differ from the plain graph's, and rows of a batch from themselves alone."""
    for name, expected in from_plain.items():
        yield difference(name, "against plain", found[name], expected, case, graphs, graphs.limits.plain)
    if case.rows > 1 and graphs.batched:
        for row in range(case.rows):
            yield from compare_row(session, graphs, found, case, row)


def _compare_reference(
    reference: Reference, graphs: Graphs, found: Mapping[str, Array], case: Case, limit: float
) -> Iterator[Difference]:
    """Compare with a network, or with the file that a graph was read from, which has no attention to compare."""
    expected, attentions = ask(reference, case.feed)
    if attentions and len(attentions) != len(graphs.attentions):
        raise VerificationError(f"the network has {len(attentions)} layers, its graph {len(graphs.attentions)}")
    named = dict(zip(graphs.attentions, attentions, strict=False))
    for name, array in {**expected, **named}.items():
        yield difference(name, reference.check, found[name], array, case, graphs, limit)


def check_rows(graphs: Graphs, found: Mapping[str, Array], case: Case, *, some: bool = False) -> Iterator[Difference]:
    """Yield how far rows of attention are from summing to 1, and what causal ones give to positions behind.

    Rows of one head that linear maps over the heads made, too, sum to the same, whatever that is.

    Args:
        graphs: Say which is causal, and of which heads are mixed.
        found: Outputs of the tapped graph by name.
        case: What it was run on.
        some: Whether attention is there of some queries alone.
    """
    for name in graphs.attentions:
        if name in graphs.causal:
            keys = np.arange(found[name].shape[3])  # as many as queries
            ahead = found[name] * (keys > np.array(choose_queries(len(keys)) if some else keys)[:, None])
            yield difference(name, "causal", ahead, np.zeros_like(ahead), case, graphs, graphs.limits.row_sum)
        sums = found[name].sum(-1, dtype=np.float64)
        if name in graphs.mixed:
            limit = graphs.limits.row_sum * max(1.0, float(np.abs(found[name]).sum(-1).max(initial=0)))
            alike = np.broadcast_to(sums[:, :, :1], sums.shape)
            yield difference(name, "rows sum alike", sums, alike, case, graphs, limit)
        else:
            yield difference(name, "rows sum to 1", sums, np.ones_like(sums), case, graphs, graphs.limits.row_sum)


def compare_row(
    session: onnxruntime.InferenceSession, graphs: Graphs, together: Mapping[str, Array], case: Case, row: int
) -> Iterator[Difference]:
    """Run a row alone, at its own length; it must not matter what it was batched with."""
    alone = row_of(graphs, case, row)
    for name, expected in run(session, alone.feed).items():
        got = cut(together[name][row : row + 1], graphs.axes[name], *alone.lengths or [None])
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        limit = graphs.limits.alone * (scale if name not in graphs.attentions else 1)
        yield Difference(name, ALONE, max_abs(got, expected), scale, limit, case.positions)


def row_of(graphs: Graphs, case: Case, row: int) -> Case:
    """One row of a batch, without padding."""
    inputs, lengths = {spec.name: spec.axes for spec in graphs.traits.inputs}, case.lengths[row : row + 1]
    (length,) = lengths or (None,)
    feed = {name: cut(array[row : row + 1], inputs[name], length) for name, array in case.feed.items()}
    return Case(feed, lengths, length or case.positions)


def ask(reference: Callable[[Feed], Answer], feed: Feed) -> Answer:
    """Return what a reference answers.

    Raises:
        VerificationError: It does not run.
    """
    try:
        return reference(feed)
    except Exception as error:  # torch raises whatever its parts raise
        raise VerificationError(f"the network does not run on inputs of {_shapes(feed)}: {error}") from error


def run(session: onnxruntime.InferenceSession, feed: Feed) -> dict[str, Array]:
    """Return every output by name."""
    try:
        return run_session(session, feed)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        message = f"the export does not run on inputs of {_shapes(feed)}: {first_line(error)}"
        raise VerificationError(message) from error


def _shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}


def difference(
    name: str, check: str, got: Array, expected: Array, case: Case, graphs: Graphs, limit: float
) -> Difference:
    """Measure how far one array is from another where there is no padding; the limit grows with its magnitude."""
    axes = graphs.axes[name][: got.ndim]
    rows = [(got, expected)]
    if case.lengths:
        rows = [
            (cut(got[row : row + 1], axes, length), cut(expected[row : row + 1], axes, length))
            for row, length in enumerate(case.lengths)
        ]
    scale = largest(np.abs(b).max(initial=0) for _, b in rows)
    scaled_limit = limit * (max(1.0, scale) if name not in graphs.attentions else 1)
    return Difference(name, check, largest(max_abs(a, b) for a, b in rows), scale, scaled_limit, case.positions)


def cut(row: Array, axes: Sequence[int | str | None], length: int | None) -> Array:
    """Cut padding off every axis that is the sequence's; None for no padding."""
    return row[tuple(slice(length) if axis == SEQUENCE_AXIS else slice(None) for axis in axes)]
