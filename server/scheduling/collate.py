"""Runs a batch: collates its requests to one input, runs the graph, and splits what it gives."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from artifact.contract import SEQUENCE_AXIS
from artifact.dtypes import Array
from server.engine.device_ops import Weights
from server.engine.faults import Judge, judge_cpu
from server.errors import InternalFault
from server.scheduling.batch import BatchItem, Outcome, Result
from server.telemetry.timings import BatchTimes

_log = logging.getLogger(__name__)


def run_batch(
    items: Sequence[BatchItem], *, all_threads: bool = False, device: int = 0
) -> tuple[list[Result], BatchTimes]:
    """Compute requests of one graph together; returns their results in the same order, and how long it took."""
    names = sorted({name for item in items for name in (*item.outputs, *item.further)})
    began_ns = time.perf_counter_ns()
    collated = collate(items)
    collated_ns = time.perf_counter_ns()
    first, *_ = items
    fetched = first.graph.run(collated, names, all_threads=all_threads, device=device)
    ran_ns = time.perf_counter_ns()
    results = split(items, fetched)
    times = BatchTimes(collated_ns - began_ns, ran_ns - collated_ns, time.perf_counter_ns() - ran_ns)
    return results, times


def compute(
    items: Sequence[BatchItem], *, all_threads: bool, device: int = 0, judge: Judge = judge_cpu
) -> tuple[Sequence[Outcome], BatchTimes]:
    """Run a batch. Should it fail, each request runs alone: only the guilty one fails. All of it takes its time.

    Args:
        items: The batch.
        all_threads: See Graph.run.
        device: Likewise.
        judge: Says whether an error means that the device has failed.

    Raises:
        DeviceLost: The device has failed, and with it whatever would run there.
    """
    began_ns = time.perf_counter_ns()
    try:
        return run_batch(items, all_threads=all_threads, device=device)
    except Exception as error:
        if lost := judge(error):
            raise lost from error
        _log.exception("a batch of %d requests of %s failed", len(items), items[0].contract.name)
        times = BatchTimes(0, time.perf_counter_ns() - began_ns, 0)
        if len(items) == 1:
            return [InternalFault()], times
    alone = [compute([item], all_threads=all_threads, device=device, judge=judge) for item in items]
    return [outcome for outcomes, _ in alone for outcome in outcomes], sum((own for _, own in alone), times)


def collate(items: Sequence[BatchItem]) -> dict[str, Array]:
    """Put the rows of all requests into one array an input, the sequence axis padded to the longest; one copy.

    A single request's arrays are passed on as they are, unless they show one row several times.
    """
    first, *others = items
    if not others:
        return {name: array if array.flags.c_contiguous else array.copy() for name, array in first.inputs.items()}
    rows, longest = sum(item.rows for item in items), max(item.length for item in items)
    collated = {}
    for spec in first.contract.inputs:
        template = first.inputs[spec.name]
        shape = [
            longest if axis == SEQUENCE_AXIS else size for axis, size in zip(spec.axes, template.shape, strict=True)
        ]
        array = np.full((rows, *shape[1:]), spec.pad_value, dtype=template.dtype)
        start = 0
        for item in items:
            source = item.inputs[spec.name]
            array[(slice(start, start + item.rows), *map(slice, source.shape[1:]))] = source
            start += item.rows
        collated[spec.name] = array
    for name in first.inputs.keys() - collated.keys():  # what only this graph takes, a row each
        collated[name] = np.concatenate([item.inputs[name] for item in items])
    return collated


def _check_rows(items: Sequence[BatchItem], fetched: Mapping[str, Weights]) -> None:
    rows = sum(item.rows for item in items)
    for name, array in fetched.items():
        if array.shape[:1] != (rows,):
            raise ValueError(f"output {name} has the shape {array.shape} for {rows} rows")


def _own_share(axes: Sequence[int | str | None], length: slice) -> Iterator[slice]:
    """Cut padding off every axis behind the batch."""
    return (length if axis == SEQUENCE_AXIS else slice(None) for axis in axes[1:])


def split(items: Sequence[BatchItem], fetched: Mapping[str, Weights]) -> list[Result]:
    """Give each request its rows, cut to its own length; views, not copies."""
    first, *_ = items
    contract = first.contract
    if not contract.batched:
        return [
            Result({name: fetched[name] for name in first.outputs}, {name: fetched[name] for name in first.further})
        ]
    _check_rows(items, fetched)
    ragged = any(SEQUENCE_AXIS in spec.axes for spec in contract.inputs)
    axes_of = {spec.name: spec.axes for spec in contract.outputs}
    further_axes = contract.further_axes
    results, start = [], 0
    for item in items:
        rows = slice(start, start + item.rows)
        length = slice(item.length) if ragged else slice(None)
        outputs = {name: fetched[name][(rows, *_own_share(axes_of[name], length))] for name in item.outputs}
        further = {name: fetched[name][(rows, *_own_share(further_axes[name], length))] for name in item.further}
        results.append(Result(outputs, further))
        start += item.rows
    return results
