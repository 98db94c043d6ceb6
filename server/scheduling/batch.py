"""What a request needs computed, how requests are joined into a batch, how its results are parted."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from artifact.contract import SEQUENCE_AXIS, AttentionContract, Contract
from server.engine.cost import CostModel
from server.engine.device_ops import Weights

Array = NDArray[Any]
GraphKind = Literal["plain", "tapped", "contributions"]

_BYTES_PER_WEIGHT = 4


def size_of(array: Weights) -> int:
    """Bytes that an array holds, its strings included."""
    if isinstance(array, np.ndarray) and array.dtype.kind == "O":
        return array.nbytes + sum(map(len, array.reshape(-1)))
    return array.nbytes


class Runner(Protocol):
    """What computes batches: one graph of a model. Requests for the same one may share a batch."""

    @property
    def cost(self) -> CostModel:
        """What a run costs on one lane."""
        ...

    @property
    def can_run_wide(self) -> bool:
        """Whether a run that has the machine to itself can use all of it."""
        ...

    @property
    def token(self) -> object:
        """Stands for this graph in keys, without keeping it in memory."""
        ...

    def run(self, inputs: Mapping[str, Array], names: Sequence[str], *, wide: bool = False) -> Mapping[str, Weights]:
        """See Graph.run."""
        ...


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch may be.

    Attributes:
        rows: Most rows.
        tokens: Most tokens or patches, padding included.
        attention_bytes: Most bytes of attention weights fetched.
    """

    rows: int
    tokens: int
    attention_bytes: int


@dataclass(frozen=True, eq=False)
class Work:
    """What one request needs computed.

    Attributes:
        graph: The model's plain graph, or with attention its tapped one.
        contract: The model's.
        inputs: By name, each [rows, ...].
        rows: Rows of every input.
        length: Positions of a row: tokens, or patches and class token.
        outputs: Names of the ordinary outputs wanted.
        attentions: Names of the attention outputs wanted.
    """

    graph: Runner
    contract: Contract
    inputs: Mapping[str, Array]
    rows: int
    length: int
    outputs: tuple[str, ...]
    attentions: tuple[str, ...] = ()

    @property
    def held_bytes(self) -> int:
        """Memory that the request holds while it waits."""
        return sum(size_of(array) for array in self.inputs.values())

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
        if not self.attentions:
            return "plain"
        return "contributions" if self.attentions[0] in self.contract.contributions else "tapped"

    def may_join(self, other: "Work") -> bool:
        """Whether both, for one graph, may share a run."""
        return self.contract.batched and self.shape == other.shape

    @property
    def layers_fetched(self) -> dict[str, AttentionContract]:
        """The attention outputs wanted, by name."""
        layers = self.contract.attention
        return {
            name: layer for layer in layers for name in (layer.output, layer.contribution) if name in self.attentions
        }


@dataclass(frozen=True, eq=False)
class Results:
    """One request's part of a batch, padding cut off: ordinary and attention outputs by name, each [rows, ...].

    Only attention may lie on a device.
    """

    outputs: Mapping[str, Any]
    attentions: Mapping[str, Weights]


@dataclass(frozen=True)
class Load:
    """What a batch being cut amounts to."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0
    layers_fetched: Mapping[str, AttentionContract] = field(default_factory=dict)
    axis_sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, works: Sequence[Work]) -> "Load":
        """Add up a batch."""
        load = cls()
        for work in works:
            load = load.with_one_more(work)
        return load

    def with_one_more(self, work: Work) -> "Load":
        """Return what it amounts to with one request more."""
        layers, sizes = self.layers_fetched, self.axis_sizes
        if not layers.keys() >= set(work.attentions):
            layers, sizes = {**layers, **work.layers_fetched}, work.contract.axis_sizes(work.inputs)
        rows, tokens = self.rows + work.rows, self.tokens + work.rows * work.length
        return Load(rows, tokens, max(self.longest, work.length), layers, sizes)

    def fits(self, limits: BatchLimits) -> bool:
        """Whether a batch may be that large."""
        padded = self.rows * self.longest
        within = self.rows <= limits.rows and padded <= limits.tokens
        return within and self.rows * self._weights * _BYTES_PER_WEIGHT <= limits.attention_bytes

    @property
    def _weights(self) -> int:
        """Weights of one row; of the symbolic axes only the sequence differs between requests that share a batch."""
        sizes = {**self.axis_sizes, SEQUENCE_AXIS: self.longest}
        layers = self.layers_fetched.values()
        return sum(layer.num_heads * math.prod(layer.shape(sizes, self.longest)) for layer in layers)

    @property
    def padding_share(self) -> float:
        """Share of the tokens that are padding, in [0, 1)."""
        return 1 - self.tokens / (self.rows * self.longest)


@dataclass(frozen=True)
class BatchTimes:
    """Nanoseconds of joining requests, running the graph, and parting the results."""

    join_ns: int
    run_ns: int
    part_ns: int

    @property
    def total_ns(self) -> int:
        """All three."""
        return self.join_ns + self.run_ns + self.part_ns

    def __add__(self, other: "BatchTimes") -> "BatchTimes":
        return BatchTimes(self.join_ns + other.join_ns, self.run_ns + other.run_ns, self.part_ns + other.part_ns)


def run_batch(batch: Sequence[Work], *, wide: bool = False) -> tuple[list[Results], BatchTimes]:
    """Compute requests of one graph together; returns their results in the same order, and how long it took."""
    names = sorted({name for work in batch for name in (*work.outputs, *work.attentions)})
    began_ns = time.perf_counter_ns()
    joined = join(batch)
    joined_ns = time.perf_counter_ns()
    fetched = batch[0].graph.run(joined, names, wide=wide)
    ran_ns = time.perf_counter_ns()
    results = part(batch, fetched)
    times = BatchTimes(joined_ns - began_ns, ran_ns - joined_ns, time.perf_counter_ns() - ran_ns)
    return results, times


def join(batch: Sequence[Work]) -> dict[str, Array]:
    """Put the rows of all requests into one array an input, the sequence axis padded to the longest; one copy.

    A single request's arrays are passed on as they are.
    """
    if len(batch) == 1:
        return dict(batch[0].inputs)
    rows, longest = sum(work.rows for work in batch), max(work.length for work in batch)
    joined = {}
    for spec in batch[0].contract.inputs:
        template = batch[0].inputs[spec.name]
        shape = [
            longest if axis == SEQUENCE_AXIS else size for axis, size in zip(spec.axes, template.shape, strict=True)
        ]
        array = np.full((rows, *shape[1:]), spec.pad_value, dtype=template.dtype)
        start = 0
        for work in batch:
            source = work.inputs[spec.name]
            array[(slice(start, start + work.rows), *map(slice, source.shape[1:]))] = source
            start += work.rows
        joined[spec.name] = array
    return joined


def _check_rows(batch: Sequence[Work], fetched: Mapping[str, Weights]) -> None:
    rows = sum(work.rows for work in batch)
    for name, array in fetched.items():
        if array.shape[:1] != (rows,):
            raise ValueError(f"output {name} has the shape {array.shape} for {rows} rows")


def _own_part(axes: Sequence[int | str | None], length: slice) -> Iterator[slice]:
    """Cut padding off every axis behind the batch."""
    return (length if axis == SEQUENCE_AXIS else slice(None) for axis in axes[1:])


def part(batch: Sequence[Work], fetched: Mapping[str, Weights]) -> list[Results]:
    """Give each request its rows, cut to its own length; views, not copies."""
    contract = batch[0].contract
    if not contract.batched:
        work = batch[0]
        return [
            Results({name: fetched[name] for name in work.outputs}, {name: fetched[name] for name in work.attentions})
        ]
    _check_rows(batch, fetched)
    ragged = any(SEQUENCE_AXIS in spec.axes for spec in contract.inputs)
    axes_of = {spec.name: spec.axes for spec in contract.outputs}
    attention_axes = contract.attention_axes
    results, start = [], 0
    for work in batch:
        rows = slice(start, start + work.rows)
        length = slice(work.length) if ragged else slice(None)
        outputs = {name: fetched[name][(rows, *_own_part(axes_of[name], length))] for name in work.outputs}
        attentions = {name: fetched[name][(rows, *_own_part(attention_axes[name], length))] for name in work.attentions}
        results.append(Results(outputs, attentions))
        start += work.rows
    return results
