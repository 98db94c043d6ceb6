"""Verifies an export: the graphs against the network, against each other, and as the server runs them."""

from functools import partial
from pathlib import Path

from artifact.contract import Precision
from artifact.verification import Check
from export.cases import make_cases
from export.compare import ALONE, LIMITS, Graphs, compare_case, compare_served, run
from export.contracts import Written
from export.differences import Difference, above_limits, summarize, tell
from export.errors import VerificationError
from export.longest import compare_longest, find_longest_case
from export.randomness import check_repeatable
from export.reach import Reach
from export.references import Reference
from export.rows import find_mixing_node
from export.served import GRAPHS, AsServed
from export.session import open_session
from export.traits import Feed, Traits

_LOWERED_CASES = 3
_SHORT = 8  # positions, where the node is looked for that mixes rows


def verify(
    reference: Reference,
    folder: Path,
    traits: Traits,
    written: Written,
    precision: Precision = "float32",
) -> tuple[Check, ...]:
    """Run network and graphs on batches of several sizes, lengths and paddings, and rows alone; compare everything.

    Args:
        reference: The network, with eager attention; or the graph as it was read, which gives no attention.
        folder: Holds the graphs and their weights.
        traits: Of the inputs.
        written: What was written there.
        precision: Of the graphs; one that ONNX Runtime can run on the CPU.

    Returns:
        The table, one line for each tensor and check, the worst over all cases.

    Raises:
        VerificationError: A difference is above its limit, or is not a number.
    """
    reach = Reach(traits, written.axes, written.derived)
    cases = make_cases(reach)
    served = [cases[0], *cases[2:3]]
    with AsServed(folder, [case.feed for case in served]) as as_served:
        sessions = {name: open_session(folder / name) for name in GRAPHS if (folder / name).exists()}
        for name, session in sessions.items():
            for case in served:  # the answer to a single row may be the same by chance
                check_repeatable(folder / name, partial(run, session, case.feed))
        causal = {name for name, kind in written.kinds.items() if kind == "causal"}
        mixed = {one.output for one in written.taps if one.mixes_heads}
        graphs = Graphs(sessions, reach, LIMITS[precision], causal, mixed)
        differences: list[Difference] = []
        for place, case in enumerate(cases):
            differences += compare_case(reference, graphs, case, lowered=place < _LOWERED_CASES)
        if (longest := find_longest_case(graphs, folder)) is not None:
            differences += compare_longest(reference, folder, graphs, longest)
        for name, place, found in as_served.results():
            differences += compare_served(graphs, name, found, served[place])
    table = summarize(differences)
    if failed := above_limits(table):
        mixing = any(line.check == ALONE for line in failed) and find_mixing_node(folder, _two_rows(traits))
        reason = f"; {mixing}" if mixing else ""
        raise VerificationError(f"the export differs from the network{reason}:\n  " + tell(failed, "\n  "))
    return table


def _two_rows(traits: Traits) -> Feed:
    return traits.example(2, traits.fit(dict.fromkeys(traits.axes, _SHORT)))
