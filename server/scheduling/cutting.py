"""Cuts a request that needs more than a run's budget into several runs, and puts their results together."""

from dataclasses import replace

import numpy as np

from artifact.dtypes import Array
from server.scheduling.batch import BatchItem, BatchLimits, Load, Result


def cut(item: BatchItem, limits: BatchLimits) -> list[BatchItem]:
    """Cut a request into parts of whole rows, about equal, none above the limits unless it is a single row.

    A model whose first axis is no batch cannot be cut.
    """
    if item.rows == 1 or not item.contract.batched or item.rows <= (most := max_rows(item, limits)):
        return [item]
    count = -(-item.rows // most)
    return [_part(item, item.rows * i // count, item.rows * (i + 1) // count) for i in range(count)]


def max_rows(item: BatchItem, limits: BatchLimits) -> int:
    """Most of its rows that one run may have; at least 1."""
    cost, further_bytes = item.graph.cost, Load.of([item]).further_bytes
    rows = min(limits.rows, limits.tokens // item.length)
    if further_bytes:
        rows = min(rows, limits.attention_bytes // further_bytes)
    if row_seconds := cost.rows_seconds(1, item.length):
        rows = int(min(rows, (limits.seconds - cost.run_seconds) / row_seconds))
    return max(rows, 1)


class PartialResult:
    """The results of a request's parts, in order, in arrays of its own: a part's batch is not kept in memory."""

    def __init__(self, item: BatchItem) -> None:
        """Begin with nothing of a request."""
        self._item = item
        self._arrays = dict[str, Array]()
        self._rows = self._queue_ns = self._compute_ns = self._batch_size = 0

    def add(self, rows: int, part: Result) -> None:
        """Put the result of the next rows behind the others; attention on a device is copied from there."""
        for name, array in (*part.outputs.items(), *part.further.items()):
            if name not in self._arrays:
                self._arrays[name] = np.empty((self._item.rows, *array.shape[1:]), array.dtype)
            host = array if isinstance(array, np.ndarray) else array.copy()
            self._arrays[name][self._rows : self._rows + rows] = host
        self._rows += rows
        self._queue_ns += part.queue_ns
        self._compute_ns += part.compute_ns
        self._batch_size = max(self._batch_size, part.batch_size)

    def whole(self) -> Result:
        """The result of the request."""
        outputs, further = (
            {name: self._arrays[name] for name in names} for names in (self._item.outputs, self._item.further)
        )
        return Result(outputs, further, self._queue_ns, self._compute_ns, self._batch_size)


def _part(item: BatchItem, start: int, end: int) -> BatchItem:
    """Some of its rows; views, not copies."""
    inputs = {name: array[start:end] for name, array in item.inputs.items()}
    return replace(item, inputs=inputs, rows=end - start)
