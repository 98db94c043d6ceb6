"""regard as it is, but with a line in a file for every batch: `python -m bench.recorded FILE CORES ...`.

The arguments after these two are the server's. A line has what the service curve is drawn from; times are of the
clock that all processes of a machine share.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from server.__main__ import main
from server.engine.cost import CostModel
from server.scheduling.batch import Batch, BatchItem
from server.scheduling.dispatcher import Dispatcher
from server.scheduling.scheduler import Scheduler


@dataclass(frozen=True)
class Record:
    """One batch.

    Attributes:
        started: On time.monotonic(), in seconds.
        seconds: Of its run.
        rows: Of all its requests.
        length: What they were padded to.
        instances: How many it occupied.
        answered_seconds: From its end until the event loop had handed out its answers.
        loop_seconds: CPU time of the event loop while it ran.
        costs: What its graph was measured to take at warm-up, on one thread and on all: see CostModel.
    """

    started: float
    seconds: float
    rows: int
    length: int
    instances: int
    answered_seconds: float
    loop_seconds: float
    costs: tuple[tuple[float, float, float], tuple[float, float, float]]

    @property
    def ended(self) -> float:
        """When its run had ended."""
        return self.started + self.seconds


def read_records(path: Path) -> list[Record]:
    """Read all batches of a file."""
    return [Record(**json.loads(line)) for line in path.read_text().splitlines()]


def record_to(file: TextIO, loop_seconds: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
    """Let every scheduler of this process write its batches.

    Args:
        file: Gets a line for each.
        loop_seconds: CPU time that the event loop has used so far.
        now: The time.
    """
    note, finish_soon, learn = Dispatcher._note, Scheduler._finish_soon, Scheduler._learn
    used = dict[Batch, float]()

    def begin(self: Dispatcher, items: Sequence[BatchItem], instances: int, device: int) -> Batch:
        batch = note(self, items, instances, device)
        used[batch] = -loop_seconds()
        return batch

    def end(self: Scheduler, batch: Batch) -> None:
        used[batch] += loop_seconds()
        finish_soon(self, batch)

    def answered(self: Scheduler, batch: Batch, ended: float, lag_seconds: float) -> None:
        rows, length = sum(item.rows for item in batch.items), max(item.length for item in batch.items)
        graph, seconds, beside = batch.items[0].graph, batch.times.total_ns / 1e9, used.pop(batch)
        costs = _parts(graph.cost), _parts(graph.all_threads_cost)
        record = Record(batch.started, seconds, rows, length, batch.instances, now() - ended, beside, costs)
        file.write(json.dumps(asdict(record)) + "\n")
        learn(self, batch, ended, lag_seconds)

    Dispatcher._note, Scheduler._finish_soon = begin, end  # type: ignore[method-assign]
    Scheduler._learn = answered  # type: ignore[method-assign]


def _parts(cost: CostModel) -> tuple[float, float, float]:
    return cost.run_seconds, cost.token_seconds, cost.pair_seconds


if __name__ == "__main__":
    records, cores, *rest = sys.argv[1:]
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    sys.argv[1:] = rest
    with Path(records).open("w", buffering=1) as file:
        loop = time.pthread_getcpuclockid(threading.get_ident())  # the main thread's
        record_to(file, partial(time.clock_gettime, loop))
        sys.exit(main())
