"""Verifies at the longest input that can be served, where the attention of all layers at once is too much to hold.

One layer's weights are held at a time, and of these only some queries' leave (export/queries.py).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from artifact.contract import HIDDEN_GRAPH, PLAIN_GRAPH, TAPPED_GRAPH, WEIGHTS_FILE
from artifact.dtypes import Array
from export.cases import Case, held, make_longest_case
from export.compare import Graphs, ask, check_rows, compare_row, difference, row_of, run
from export.differences import Difference
from export.queries import keep_some_queries
from export.references import Reference
from export.session import make_options, open_session
from export.traits import Feed
from server.memory import available_bytes

# How many arrays [H, N, N] a run of two rows holds at most, measured: fused from 2.7 (ModernBERT) to 5.5 (T5, whose
# positions are added), written out up to 21.1 (DeBERTa-v2).
_FUSED_ARRAYS, _EAGER_ARRAYS = 6, 22
_SHARE = 4  # a quarter of what memory is free: outputs come on top, and another export may run
# Multiplications of one run, of which there are five: some two minutes each at 10^11 a second.
MAX_PRODUCTS = 2**43
_HEAD_PRODUCTS = 128  # for one weight: the score and the weighing take as many as a head has channels, mostly 64
_SOME = ".queries.onnx"


def find_longest_case(graphs: Graphs, folder: Path) -> Case | None:
    """Find the longest input that can be verified, within a quarter of the free memory and MAX_PRODUCTS.

    Args:
        graphs: What is verified.
        folder: Holds them.

    Returns:
        One row of that length, of texts beside a short one; None where it is no longer than what is verified anyway.
    """
    room, weights = free_bytes() // _SHARE // 4 // _arrays(folder), (folder / WEIGHTS_FILE).stat().st_size // 4

    def fits(shapes: Sequence[tuple[int, int, int]]) -> bool:
        layers = [math.prod(shape) for shape in shapes]
        products = weights * max((queries for _, queries, _ in shapes), default=0) + _HEAD_PRODUCTS * sum(layers)
        return max(layers, default=0) <= room and products <= MAX_PRODUCTS

    length = graphs.reach.longest(fits)
    if length <= held(graphs.reach):
        return None
    return make_longest_case(graphs.reach, length, beside=graphs.batched)


def _arrays(folder: Path) -> int:
    plain = onnx.load(folder / PLAIN_GRAPH, load_external_data=False)
    fused = any(node.op_type == "Attention" for node in plain.graph.node)
    return _FUSED_ARRAYS if fused else _EAGER_ARRAYS


def free_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that is free, as Linux tells it, within the limits of this process's control groups."""
    limit = available_bytes()
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return min(limit, int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        return limit


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
    model, path = onnx.load(folder / TAPPED_GRAPH, load_external_data=False), folder / _SOME
    keep_some_queries(model)
    try:
        onnx.save_model(model, path)
        return _run_once(path, feed)
    finally:
        path.unlink(missing_ok=True)


def _run_once(path: Path, feed: Feed) -> dict[str, Array]:
    """Run a graph in a session of its own, whose memory is not kept."""
    options = make_options()
    options.enable_cpu_mem_arena = False
    return run(open_session(path, options), feed)
