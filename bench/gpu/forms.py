"""Forms of a graph: one that a device cannot run is no fault where regard runs another instead."""

from artifact.contract import DECODER_GRAPH, LOWERED_DECODER_GRAPH, LOWERED_GRAPH, TAPPED_GRAPH, Contract
from bench.gpu.rows import Row, failed, skipped

_LOWERED = {TAPPED_GRAPH: LOWERED_GRAPH, DECODER_GRAPH: LOWERED_DECODER_GRAPH}


def refused(name: str, graph: str, contract: Contract, why: str) -> Row:
    """The row of a graph that cannot be run on the device."""
    if _LOWERED.get(graph) in contract.files:
        return skipped(name, f"the lowered form is run instead: {why}")
    return failed(name, why)
