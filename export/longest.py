"""Verifies at the longest input that can be served, where the attention of all layers at once is too much to hold.

One layer's weights are held at a time, and of these only some queries' leave (export/queries.py).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from artifact.contract import HIDDEN_GRAPH, PLAIN_GRAPH, TAPPED_GRAPH
from artifact.dtypes import Array
from export.cases import Case, held, make_longest_case
from export.compare import Graphs, ask, check_rows, compare_row, difference, row_of, run
from export.differences import Difference
from export.need import Need, Shapes, measure
from export.queries import keep_some_queries
from export.references import Reference
from export.session import make_options, open_session
from export.traits import Feed
from server.memory import free_bytes

_SHARE = 2  # half of what memory is free: another export may run
# Multiplications of one run, of which there are five: some two minutes each at 10^11 a second.
MAX_PRODUCTS = 2**43
_HEAD_PRODUCTS = 128  # for one weight: the score and the weighing take as many as a head has channels, mostly 64
_SOME = ".queries.onnx"


def find_longest_case(graphs: Graphs, folder: Path) -> Case | None:
    """Find the longest input that can be verified, within half of the free memory and MAX_PRODUCTS.

    Args:
        graphs: What is verified.
        folder: Holds them.

    Returns:
        One row of that length, of texts beside a short one; None where it is no longer than what is verified anyway.
    """
    reach, parameters = graphs.reach, _count_parameters(folder)

    def is_quick(shapes: Shapes) -> bool:
        products = parameters * max((queries for _, queries, _ in shapes), default=0)
        return products + _HEAD_PRODUCTS * sum(map(math.prod, shapes)) <= MAX_PRODUCTS

    if reach.longest(is_quick) <= held(reach):
        return None
    need = measure_need(graphs, folder)
    room = (free_bytes() - need.fixed_bytes) / _SHARE
    length = reach.longest(lambda shapes: is_quick(shapes) and need.grown_bytes(shapes) <= room)
    if length <= held(reach):
        return None
    return make_longest_case(reach, length, beside=graphs.batched)


def _count_parameters(folder: Path) -> int:
    """Numbers, not bytes: stored in fewer bits they are multiplied as often."""
    plain = onnx.load(folder / PLAIN_GRAPH, load_external_data=False)
    return sum(math.prod(tensor.dims) for tensor in plain.graph.initializer)


def measure_need(graphs: Graphs, folder: Path) -> Need:
    """Measure what comparing takes, at the longest that is verified anyway and half of it.

    The runs' needs are summed: results are kept, and while the network itself runs, it takes no more than the others.
    """
    lengths = (max(held(graphs.reach) // 2, 1), held(graphs.reach))
    with _some_queries(folder) as tapped:
        runs = [run for length in lengths for run in _runs(graphs, folder, tapped, length)]
        measured = measure(runs)
    half = len(measured) // 2
    shorter, longer = (
        (graphs.reach.shapes(length), sum(taken.run for taken in part))
        for length, part in zip(lengths, (measured[:half], measured[half:]), strict=True)
    )
    return Need.fit(max(taken.session for taken in measured), shorter, longer)


def _runs(graphs: Graphs, folder: Path, tapped: Path, length: int) -> Iterator[tuple[Path, Feed]]:
    """Yield what compare_longest runs."""
    case = make_longest_case(graphs.reach, length, beside=graphs.batched)
    yield folder / PLAIN_GRAPH, case.feed
    first = row_of(graphs, case, 0).feed
    yield tapped, first
    if HIDDEN_GRAPH in graphs.sessions:
        yield folder / HIDDEN_GRAPH, first


def compare_longest(reference: Reference, folder: Path, graphs: Graphs, case: Case) -> Iterator[Difference]:
    """Yield how plain, tapped and hidden graph differ from the network and from each other.

    Args:
        reference: The network, or the graph as it was read.
        folder: Holds the graphs.
        graphs: What is compared.
        case: From find_longest_case.
    """
    limits, together = graphs.limits, _run_once(folder / PLAIN_GRAPH, case.feed)
    for row in range(1, case.rows):
        yield from compare_row(graphs.sessions[PLAIN_GRAPH], graphs, together, case, row)
    first = row_of(graphs, case, 0)
    from_plain = {name: array[: len(array) // case.rows] for name, array in together.items()}
    from_tapped = _run_some_queries(folder, first.feed)
    hidden = _run_once(folder / HIDDEN_GRAPH, first.feed) if HIDDEN_GRAPH in graphs.sessions else {}
    for found in filter(None, (from_tapped, hidden)):
        for name, expected in from_plain.items():
            limit = max(limits.plain, limits.alone) if case.rows > 1 else limits.plain
            yield difference(name, "against plain", found[name], expected, first, graphs, limit)
    yield from check_rows(graphs, from_tapped, first, some=True)
    if limits.torch:
        outputs, attentions = ask(reference.with_some_queries, first.feed)
        told = attentions if len(attentions) == len(graphs.attentions) else []
        named = dict(zip(graphs.attentions, told, strict=False))
        for name, expected in {**outputs, **named}.items():
            got = {**hidden, **from_tapped, **from_plain}[name]
            yield difference(name, reference.check, got, expected, first, graphs, limits.torch)


def _run_some_queries(folder: Path, feed: Feed) -> dict[str, Array]:
    """Run the tapped graph for the weights of some queries."""
    with _some_queries(folder) as path:
        return _run_once(path, feed)


@contextmanager
def _some_queries(folder: Path) -> Iterator[Path]:
    """Write the tapped graph for the weights of some queries beside it, for a while."""
    model, path = onnx.load(folder / TAPPED_GRAPH, load_external_data=False), folder / _SOME
    keep_some_queries(model)
    try:
        onnx.save_model(model, path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _run_once(path: Path, feed: Feed) -> dict[str, Array]:
    """Run a graph in a session of its own, whose memory is not kept."""
    options = make_options()
    options.enable_cpu_mem_arena = False
    return run(open_session(path, options), feed)
