"""Requests that wait, for tests of the queue in simulated time."""

from collections.abc import Sequence

from server.auth.clients import ANYONE, Client
from server.context import RpcContext
from server.engine.cost import CostModel
from server.scheduling.batch import BatchItem, BatchLimits
from server.scheduling.fair_queue import FairQueue
from tests.server.fakes import EchoGraph, make_item

LIMITS = BatchLimits(rows=8, tokens=256, attention_bytes=10**9)
COST = CostModel(run_seconds=0.002, token_seconds=0.0001, pair_seconds=1e-7)
GRAPH = EchoGraph(COST)


def make_waiting(
    length: int,
    *,
    rows: int = 1,
    arrived: float = 0.0,
    due: float | None = None,
    priority: int = 2,
    graph: EchoGraph = GRAPH,
    attentions: tuple[str, ...] = (),
    caller: Client = ANYONE,
    address: str = "",
) -> BatchItem:
    """A request that waits; by default it is due ten seconds after it came."""
    context = RpcContext(priority=priority, caller=caller, address=address)
    item = make_item(graph, length=length, rows=rows, attentions=attentions, context=context)
    item.arrived, item.due = arrived, arrived + 10 if due is None else due
    return item


def fill(*items: BatchItem, limits: BatchLimits = LIMITS) -> FairQueue:
    """A queue with these."""
    queue: FairQueue = FairQueue(limits)
    for item in items:
        queue.add(item)
    return queue


def lengths(batch: Sequence[BatchItem]) -> list[int]:
    """How long each request of a batch is."""
    return [item.length for item in batch]
