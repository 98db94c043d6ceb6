"""What a simulation knows of the machine that a replica runs on."""

import bisect
from dataclasses import dataclass

import numpy as np

from server.engine.cost import CostModel

_NEIGHBOURS = 25  # of a batch, on either side, one of whose residuals it gets
_ONE_THREAD, _ALL_THREADS = CostModel(0.0028, 0.000102, 2e-8), CostModel(0.0015, 0.00006, 1e-8)


@dataclass(frozen=True)
class Residuals:
    """How many times longer than by the cost model measured runs took.

    Attributes:
        rows: Of each run, in ascending order.
        ratios: Of each, in the same order.
    """

    rows: tuple[int, ...]
    ratios: tuple[float, ...]

    def draw(self, rows: int, random: np.random.Generator) -> float:
        """Pick one of the runs that had about as many rows."""
        first, last = bisect.bisect_left(self.rows, rows), bisect.bisect_right(self.rows, rows)
        low, high = max(first - _NEIGHBOURS, 0), min(last + _NEIGHBOURS, len(self.rows))
        return self.ratios[int(random.integers(low, high))]


@dataclass(frozen=True)
class Machine:
    """Some cores, by default two with MiniLM as docs/performance.md and docs/decisions.md have it.

    With runs of all threads 1, 8 and 32 callers get 340, 600 and 726 answers a second there, with runs of one thread
    204, 567 and 761.

    Attributes:
        cost: Of a run of one thread that is alone, and the way to it and back.
        all_threads_cost: The same of a run of all threads.
        told: Both as the scheduler was told at warm-up; None for as they are.
        all_threads: Whether there are runs of all threads.
        instances: Runs of one thread at a time.
        crowding: How many times longer runs of one thread take while several of them run.
        beside: What each run of one thread gets done while all cores have one and the event loop, or the callers, work,
            as a share.
        hindered: The same of a run of all threads.
        loop_seconds: Of the event loop and gRPC, half when a request comes, half when it is answered.
        loop_speed: Of the event loop and the callers while all cores have a run, as a share.
        caller_seconds: Of the callers' process, half to ask, half to read what comes; 0 where they are elsewhere.
        way_seconds: What an answer takes beyond all this.
        noise: Standard deviation of the logarithm of a run's time, where none was measured.
        residuals: Measured ones, of runs of one thread and of all.
        max_rows: Of a batch.
        slow: How many times slower than all this the machine is.
    """

    cost: CostModel = _ONE_THREAD
    all_threads_cost: CostModel = _ALL_THREADS
    told: tuple[CostModel, CostModel] | None = None
    all_threads: bool = True
    instances: int = 2
    crowding: float = 1.19
    beside: float = 0.6
    hindered: float = 0.35
    loop_seconds: float = 0.0004
    loop_speed: float = 0.8
    caller_seconds: float = 0.0001
    way_seconds: float = 0.0
    noise: float = 0.1
    residuals: tuple[Residuals | None, Residuals | None] = (None, None)
    max_rows: int = 32
    slow: float = 1.0

    def draw_seconds(self, rows: int, length: int, random: np.random.Generator, *, all_threads: bool) -> float:
        """Say what a run takes that has its cores to itself."""
        cost, residuals = (self.all_threads_cost if all_threads else self.cost), self.residuals[all_threads]
        ratio = residuals.draw(rows, random) if residuals else float(random.lognormal(0.0, self.noise))
        return cost.seconds(rows, length) * ratio * self.slow

    def pace(self, runs: int, busy: int, *, all_threads: bool) -> float:
        """Say how fast each of several runs goes on, as a share of its pace alone.

        Args:
            runs: How many.
            busy: How many of event loop and callers are at work.
            all_threads: Whether the run is of all threads.
        """
        if all_threads:
            return self.hindered**busy
        crowding = self.crowding if runs > 1 else 1.0
        return (self.beside**busy if runs >= self.instances else 1.0) / crowding


# As callers in Python meet it, who take more of the cores than h2load does; `python -m bench --only open`.
OPEN = Machine(caller_seconds=0.00022, noise=0.2, hindered=0.2)
