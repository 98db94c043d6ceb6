"""What a request needs computed, the batch that it shares, and the result that it gets."""

import asyncio
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from artifact.contract import SEQUENCE_AXIS, AttentionContract, Contract, HiddenStateContract
from artifact.dtypes import Array
from artifact.generation import TOKEN_RELEVANCE
from server.auth.clients import Client
from server.context import RpcContext
from server.engine.cost import CostModel
from server.engine.device_ops import Weights
from server.errors import DeviceFailed, InternalFault
from server.telemetry.timings import NO_TIME, BatchTimes

# A place in the queue: priority, due, arrived.
Order = tuple[int, float, float]
GraphKind = Literal["plain", "tapped", "contributions", "hidden", "relevance", "parts", "decoder"]
Layer = AttentionContract | HiddenStateContract


def size_of(array: Weights) -> int:
    """Bytes that an array holds, its strings included."""
    if isinstance(array, np.ndarray) and array.dtype.kind == "O":
        return array.nbytes + sum(map(len, array.flat))
    return array.nbytes


class Runner(Protocol):
    """What computes batches: one graph of a model. Requests for the same one may share a batch."""

    @property
    def cost(self) -> CostModel:
        """What a run costs on one instance."""
        ...

    @property
    def all_threads_cost(self) -> CostModel:
        """What a run costs that uses all of the machine; see there."""
        ...

    @property
    def can_use_all_threads(self) -> bool:
        """Whether a run that has the machine to itself can use all of it."""
        ...

    @property
    def token(self) -> object:
        """Stands for this graph in keys, without keeping it in memory."""
        ...

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool, device: int
    ) -> Mapping[str, Weights]:
        """See Graph.run."""
        ...


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch may be.

    Attributes:
        rows: Most rows.
        tokens: Most tokens or patches, padding included.
        attention_bytes: Most bytes of attention weights, or hidden states, fetched.
        seconds: Longest estimated run of several rows, on an engine that has nothing else to do.
    """

    rows: int
    tokens: int
    attention_bytes: int
    seconds: float = math.inf


@dataclass(eq=False, slots=True)
class BatchItem:
    """What one request needs computed, and its place in the queue.

    Attributes:
        graph: The model's plain graph, or with attention its tapped one, or that of contributions or hidden states.
        contract: The model's.
        inputs: By name, each [rows, ...].
        rows: Rows of every input.
        length: Positions of a row: tokens, or patches and class token.
        outputs: Names of the ordinary outputs wanted.
        further: Names of the further outputs wanted: attention, or hidden states.
        context: Of the request.
        due: When it should be computed at the latest, in seconds; orders requests of one priority.
        arrived: When it came to the queue, in seconds.
        expires: When its caller does not want it any more, in seconds.
        offered: Until when an answer was offered, likewise.
        begin_by: When its run has to begin at the latest for an answer until both, likewise.
        is_offer_first: Whether that is for what was offered, which its caller may want longer.
        estimate_seconds: How long its answer was expected to take when it came.
        reserved_seconds: What of the engine's time is reserved of its caller's quota.
        reply: Its result; None where nobody waits for one.
        held_bytes: Memory that it holds while it waits.
        share: Whose fair share it has; see RpcContext.share.
        rows_seconds: What its rows take, without the fixed part of a run.
        alone_seconds: What a run of it alone takes, on an engine that has nothing else to do.
        was_lost: Whether a device failed while it was computed there, so that it is tried once more, alone.
        runs_once: Whether it is computed in one run of its graph, which the cost model foretells.
        is_spare: Whether it is computed only while nothing else is, and by one instance.
    """

    graph: Runner
    contract: Contract
    inputs: Mapping[str, Array]
    rows: int
    length: int
    outputs: tuple[str, ...]
    further: tuple[str, ...] = ()
    context: RpcContext = field(default_factory=RpcContext)
    due: float = math.inf
    arrived: float = 0.0
    expires: float = math.inf
    offered: float = math.inf
    begin_by: float = math.inf
    is_offer_first: bool = False
    estimate_seconds: float = 0.0
    reserved_seconds: float = 0.0
    reply: "asyncio.Future[Result] | None" = None
    was_lost: bool = False
    held_bytes: int = field(init=False)
    share: tuple[str, str] = field(init=False)
    rows_seconds: float = field(init=False)
    alone_seconds: float = field(init=False)
    runs_once: ClassVar[bool] = True
    is_spare: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.held_bytes = 0
        for array in self.inputs.values():
            self.held_bytes += size_of(array)
        cost, self.share = self.graph.cost, self.context.share
        self.rows_seconds = cost.rows_seconds(self.rows, self.length)
        self.alone_seconds = cost.run_seconds + self.rows_seconds

    @property
    def is_given_up(self) -> bool:
        """Whether its caller has hung up."""
        return self.reply is not None and self.reply.cancelled()

    @property
    def priority(self) -> int:
        """1 is served first."""
        return self.context.priority

    @property
    def order(self) -> Order:
        """Its place among others: priority, due, arrived."""
        return self.context.priority, self.due, self.arrived

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of what is symbolic besides batch and sequence, which no padding can make equal."""
        return tuple(
            size
            for spec in self.contract.inputs
            for axis, size in zip(spec.axes[1:], self.inputs[spec.name].shape[1:], strict=True)
            if isinstance(axis, str) and axis != SEQUENCE_AXIS
        )

    @property
    def graph_kind(self) -> GraphKind:
        """Which of the model's graphs it runs, for metrics."""
        if not self.further:
            return "plain"
        if any(state.output == self.further[0] for state in self.contract.hidden_outputs):
            return "hidden"
        if any(self.further[0] == one.positions for one in self.contract.explained):
            return "relevance"
        if self.further[0] in TOKEN_RELEVANCE.outputs:
            return "relevance"
        if compared := self.contract.similarity:
            if self.further[0] == compared.part:
                return "parts"
            if self.further[0] in compared.relevance.outputs:
                return "relevance"
        return "contributions" if self.further[0] in self.contract.contributions else "tapped"

    def may_share(self, other: "BatchItem") -> bool:
        """Whether both, for one graph, may share a run."""
        is_either_lost = self.was_lost or other.was_lost
        return self.contract.batched and not is_either_lost and self.shape == other.shape

    @property
    def layers_fetched(self) -> dict[str, Layer]:
        """What is fetched of layers, by the outputs' names."""
        if not self.further:
            return {}
        named: dict[str, Layer] = {state.output: state for state in self.contract.hidden_outputs}
        for layer in self.contract.attention:
            named |= dict.fromkeys(filter(None, (layer.output, layer.contribution)), layer)
        return {name: named[name] for name in self.further if name in named}

    def bill(self, seconds: float) -> "Iterable[tuple[Client, float]]":
        """Say for whom it was computed, and what of the time is whose."""
        return ((self.context.caller, seconds),)

    def charge(self, seconds: float) -> None:
        """Charge the caller for what was computed, whether or not it still waits."""
        self.context.caller.quota.charge(self.reserved_seconds, seconds)


@dataclass(eq=False, slots=True)
class SpareItem(BatchItem):
    """What nobody waits for: it is computed while nothing else is."""

    is_spare: ClassVar[bool] = True


@dataclass(eq=False, slots=True)
class Batch:
    """Requests that run together.

    Attributes:
        items: At least one.
        instances: How many instances it occupies.
        started: When it began, on time.monotonic(), in seconds.
        ends: When it should end, likewise.
        device: Which one it runs on.
        thread: The instance's that began it.
        outcomes: Once it has run, what became of each item, in their order.
        times: Likewise, how long its steps took.
    """

    items: Sequence[BatchItem]
    instances: int
    started: float
    ends: float
    device: int = 0
    thread: int = field(default_factory=threading.get_ident)
    outcomes: "Sequence[Outcome]" = ()
    times: BatchTimes = NO_TIME

    @property
    def expected_seconds(self) -> float:
        """How long it should take."""
        return self.ends - self.started

    @property
    def model(self) -> str:
        """Name of the model that it is of."""
        return self.items[0].contract.name

    def left_seconds(self, now: float) -> float:
        """How much longer it should take."""
        return max(self.ends - now, 0.0)

    @property
    def is_whole(self) -> bool:
        """Whether every request was computed, and in one run."""
        return all(isinstance(outcome, Result) for outcome in self.outcomes) and all(
            item.runs_once for item in self.items
        )


@dataclass(eq=False, slots=True)
class Result:
    """One request's part of a batch, padding cut off.

    Attributes:
        outputs: Ordinary outputs by name, each [rows, ...].
        further: Further outputs, likewise; only these may lie on a device.
        queue_ns: How long it waited.
        compute_ns: How long its batch took.
        batch_size: How many rows shared the batch.
    """

    outputs: Mapping[str, Any]
    further: Mapping[str, Weights]
    queue_ns: int = 0
    compute_ns: int = 0
    batch_size: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all its arrays."""
        size_bytes = 0
        for array in (*self.outputs.values(), *self.further.values()):
            size_bytes += size_of(array)
        return size_bytes


Outcome = Result | InternalFault | DeviceFailed


def resolve(reply: "asyncio.Future[Any] | None", outcome: object) -> None:
    """Answer who waits, with an error where the outcome is one; a reply that is done belongs to one who hung up."""
    if reply is None or reply.done():
        return
    if isinstance(outcome, Exception):
        reply.set_exception(outcome)
    else:
        reply.set_result(outcome)


@dataclass(frozen=True)
class Load:
    """What a batch being cut amounts to."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0
    layers_fetched: Mapping[str, Layer] = field(default_factory=dict)
    axis_sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Sequence[BatchItem]) -> "Load":
        """Add up a batch."""
        load = cls()
        for item in items:
            load = load.with_one_more(item)
        return load

    def with_one_more(self, item: BatchItem) -> "Load":
        """Return what it amounts to with one request more."""
        layers, sizes = self.layers_fetched, self.axis_sizes
        if not layers.keys() >= set(item.further):
            layers, sizes = {**layers, **item.layers_fetched}, item.contract.axis_sizes(item.inputs)
        rows, tokens = self.rows + item.rows, self.tokens + item.rows * item.length
        return Load(rows, tokens, max(self.longest, item.length), layers, sizes)

    def fits(self, limits: BatchLimits) -> bool:
        """Whether a batch may be that large."""
        padded = self.rows * self.longest
        within = self.rows <= limits.rows and padded <= limits.tokens
        return within and self.rows * self.further_bytes <= limits.attention_bytes

    @property
    def further_bytes(self) -> int:
        """Bytes of attention weights or hidden states fetched of one row.

        Of the symbolic axes only the sequence differs between requests that share a batch.
        """
        sizes = {**self.axis_sizes, SEQUENCE_AXIS: self.longest}
        return sum(layer.row_bytes(sizes, self.longest) for layer in self.layers_fetched.values())

    @property
    def padding_share(self) -> float:
        """Share of the tokens that are padding, in [0, 1)."""
        return 1 - self.tokens / (self.rows * self.longest)
