"""Which requests share a batch, how they are joined, how results are parted: pure functions for the scheduler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.contract import SEQUENCE_AXIS, Contract

Array = NDArray[Any]

# Requests of other lengths join a batch only while at most this share of its tokens is padding.
_MAX_PADDING_SHARE = 0.25
_BYTES_PER_WEIGHT = 4


class Runner(Protocol):
    """What computes a batch: the engine."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str], attentions: Sequence[str]) -> dict[str, Array]:
        """See Engine.run."""
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
        engine: The model's.
        contract: The model's.
        inputs: By name, each [rows, ...].
        rows: Rows of every input.
        length: Positions of a row: tokens, or patches and class token.
        outputs: Names of the ordinary outputs wanted.
        attentions: Names of the attention outputs wanted; with any, the tapped graph runs.
    """

    engine: Runner
    contract: Contract
    inputs: Mapping[str, Array]
    rows: int
    length: int
    outputs: tuple[str, ...]
    attentions: tuple[str, ...] = ()

    @property
    def group(self) -> tuple[Runner, bool]:
        """Requests of the same group may share a batch: one model, one of its graphs."""
        return self.engine, bool(self.attentions)

    @property
    def heads_fetched(self) -> dict[str, int]:
        """Heads of each attention output wanted, by name."""
        return {layer.output: layer.num_heads for layer in self.contract.attention if layer.output in self.attentions}


@dataclass(frozen=True, eq=False)
class Results:
    """One request's part of a batch, padding cut off: ordinary and attention outputs by name, each [rows, ...]."""

    outputs: Mapping[str, Array]
    attentions: Mapping[str, Array]


def choose_companions(first: Work, waiting: Sequence[Work], limits: BatchLimits) -> list[int]:
    """Choose which waiting requests share a batch with the one whose turn it is.

    Args:
        first: Runs in any case.
        waiting: In order of arrival.
        limits: The batch's.

    Returns:
        Positions in `waiting`, those of a length near to the first's foremost.
    """
    candidates = [index for index, work in enumerate(waiting) if work.group == first.group]
    candidates.sort(key=lambda index: abs(waiting[index].length - first.length))
    load, chosen = _Load().with_one_more(first), []
    for index in candidates:
        larger = load.with_one_more(waiting[index])
        if larger.fits(limits):
            load = larger
            chosen.append(index)
        if load.rows >= limits.rows:
            break
    return chosen


@dataclass(frozen=True)
class _Load:
    """What a batch being cut amounts to."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0
    heads_fetched: Mapping[str, int] = field(default_factory=dict)

    def with_one_more(self, work: Work) -> "_Load":
        heads = self.heads_fetched
        if not heads.keys() >= set(work.attentions):
            heads = {**heads, **work.heads_fetched}
        rows, tokens = self.rows + work.rows, self.tokens + work.rows * work.length
        return _Load(rows, tokens, max(self.longest, work.length), heads)

    def fits(self, limits: BatchLimits) -> bool:
        padded = self.rows * self.longest
        weights = padded * self.longest * sum(self.heads_fetched.values())
        within = self.rows <= limits.rows and padded <= limits.tokens
        padding_is_small = 1 - self.tokens / padded <= _MAX_PADDING_SHARE
        return within and padding_is_small and weights * _BYTES_PER_WEIGHT <= limits.attention_bytes


def padded_tokens(batch: Sequence[Work]) -> int:
    """Tokens of a batch, padding included."""
    return sum(work.rows for work in batch) * max(work.length for work in batch)


def padding_share(batch: Sequence[Work]) -> float:
    """Share of a batch's tokens that are padding, in [0, 1)."""
    return 1 - sum(work.rows * work.length for work in batch) / padded_tokens(batch)


def run_batch(batch: Sequence[Work]) -> list[Results]:
    """Compute requests of one group together; returns their results in the same order."""
    first = batch[0]
    outputs = sorted({name for work in batch for name in work.outputs})
    attentions = sorted({name for work in batch for name in work.attentions})
    return part(batch, first.engine.run(join(batch), outputs, attentions))


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


def part(batch: Sequence[Work], fetched: Mapping[str, Array]) -> list[Results]:
    """Give each request its rows, cut to its own length; views, not copies."""
    contract = batch[0].contract
    ragged = any(SEQUENCE_AXIS in spec.axes for spec in contract.inputs)
    axes_of = {spec.name: spec.axes for spec in contract.outputs}
    results, start = [], 0
    for work in batch:
        rows = slice(start, start + work.rows)
        length = slice(work.length) if ragged else slice(None)
        outputs = {
            name: fetched[name][
                (rows, *(length if axis == SEQUENCE_AXIS else slice(None) for axis in axes_of[name][1:]))
            ]
            for name in work.outputs
        }
        attentions = {name: fetched[name][rows, :, length, length] for name in work.attentions}
        results.append(Results(outputs, attentions))
        start += work.rows
    return results
