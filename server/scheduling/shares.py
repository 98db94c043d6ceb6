"""Fair shares of the engine: of the clients first, then of each client's graphs (start-time fair queueing).

Everyone has a virtual time, the engine's seconds that they have had; whoever has had least is served next. Who had
nothing waiting begins at the time of whoever was served last: nobody saves up for a burst (Goyal, Vin and Cheng 1996).
"""

import weakref
from collections.abc import Container, Iterator

from server.scheduling.batch import BatchItem, Order, Runner
from server.scheduling.companions import NEGLIGIBLE_SHARE

_NEWEST_SHARE = 0.1  # what the newest run tells about how much slower the engine is than when it was measured alone
_UNSEEN_SHARE = 0.002  # of being slower, which runs of one kind are taken to have lost with each of the other
_MAX_FIXED_SHARE = 0.25  # of runs that share rows out; smaller ones lose more than they gain
_SLOWEST_OF_SEVERAL = 1.1  # runs at a time, against their mean: all have ended when the slowest has; or chance, of one


class Group:
    """Requests for one graph: they may share batches."""

    def __init__(self, graph: Runner) -> None:
        self.cost, self._all_threads_cost = graph.cost, graph.all_threads_cost
        self._graph = weakref.ref(graph)
        self.slowdown = 1.0  # how many times longer runs take than the cost model says
        self._all_threads_slowdown = 1.0  # the same of runs of all threads
        self.rows = 0

    @property
    def is_gone(self) -> bool:
        """Whether the graph was unloaded."""
        return self._graph() is None

    def run_seconds(self, rows: int, length: int, *, all_threads: bool = False) -> float:
        """What a run is expected to take, of one thread or of all."""
        if all_threads:
            return self._all_threads_slowdown * self._all_threads_cost.seconds(rows, length)
        return self.slowdown * self.cost.seconds(rows, length)

    def learn(self, times: float, *, all_threads: bool) -> None:
        """Follow how many times longer than expected the newest run took.

        What does not run is taken to become as fast as it was measured, little by little, so that it is tried again.
        """
        step = 1 + _NEWEST_SHARE * (min(max(times, 0.1), 10.0) - 1)
        if all_threads:
            self._all_threads_slowdown *= step
            self.slowdown -= _UNSEEN_SHARE * max(self.slowdown - 1, 0.0)
        else:
            self.slowdown *= step
            self._all_threads_slowdown -= _UNSEEN_SHARE * max(self._all_threads_slowdown - 1, 0.0)

    def pays_to_share_out(self, rows: int, instances: int, length: int) -> bool:
        """Whether runs of one thread that share rows out should all have ended before one of all threads would.

        Args:
            rows: All of them.
            instances: How many runs; one where the rows cannot be parted.
            length: What all are padded to.
        """
        rows_apart = -(-rows // instances)
        if self.cost.run_seconds > _MAX_FIXED_SHARE * self.cost.seconds(rows_apart, length):
            return False
        apart = _SLOWEST_OF_SEVERAL * self.run_seconds(rows_apart, length)
        return apart < self.run_seconds(rows, length, all_threads=True)

    def seconds(self, item: BatchItem) -> float:
        """Engine seconds that an item adds to a run."""
        return self.slowdown * item.rows_seconds


class Line:
    """Requests of one client for one graph."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.items: dict[int, BatchItem] = {}
        self.served_seconds = 0.0
        self._backlog: dict[int, float] = {}  # seconds of rows waiting, by priority, at the cost model's pace

    @property
    def head(self) -> BatchItem:
        """Who is first by priority, due and arrival; there is somebody."""
        return min(self.items.values(), key=lambda item: item.order)

    def add(self, item: BatchItem) -> None:
        """Let a request wait."""
        self.items[id(item)] = item
        self._count(item, 1)

    def remove(self, item: BatchItem) -> None:
        """Let it wait no more."""
        del self.items[id(item)]
        self._count(item, -1)
        if not self.items:
            self._backlog.clear()  # what rounding left behind

    @property
    def model(self) -> str | None:
        """Name of the graph's model; None where nothing waits."""
        return next((item.contract.name for item in self.items.values()), None)

    def wait_seconds(self, priority: float = float("inf")) -> float:
        """Engine seconds that what waits with this priority or a more urgent one will take."""
        rows_seconds = 0.0
        for level, seconds in self._backlog.items():
            if level <= priority:
                rows_seconds += seconds
        # Batches that are full in the sense of NEGLIGIBLE_SHARE add that share for their fixed part.
        return self._group.slowdown * rows_seconds * (1 + NEGLIGIBLE_SHARE)

    def ahead_seconds(self, order: Order) -> float:
        """Like wait_seconds, of what is served before a given place in the order; looks at every one."""
        return sum(self._group.seconds(item) for item in self.items.values() if item.order < order)

    def _count(self, item: BatchItem, sign: int) -> None:
        priority = item.context.priority
        self._backlog[priority] = self._backlog.get(priority, 0.0) + sign * item.rows_seconds
        self._group.rows += sign * item.rows


class Share:
    """What one client has waiting, and what it has had."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.served_seconds = 0.0  # divided by the weight
        self.size = self.held_bytes = 0  # requests that wait, and bytes of their inputs
        self._clock_seconds = 0.0  # virtual time of the line served last
        self._lines: dict[Group, Line] = {}

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def line(self, group: Group) -> Line:
        """Return the line for a graph; those of graphs that were unloaded are dropped meanwhile."""
        line = self._lines.get(group)
        if line is None:
            self._lines = {one: line for one, line in self._lines.items() if line.items or not one.is_gone}
            line = self._lines[group] = Line(group)
        return line

    def add(self, item: BatchItem, group: Group) -> None:
        """Let a request wait. A line that was empty cannot claim the time in which it asked for nothing."""
        line = self._lines.get(group) or self.line(group)
        if not line.items:
            line.served_seconds = max(line.served_seconds, self._clock_seconds)
        line.add(item)
        self.size += 1
        self.held_bytes += item.held_bytes

    def remove(self, item: BatchItem, group: Group) -> bool:
        """Let a request wait no more; False where it does not wait."""
        line = self.line(group)
        if id(item) not in line.items:
            return False
        line.remove(item)
        self.size -= 1
        self.held_bytes -= item.held_bytes
        return True

    def has_next(self, full: Container[str]) -> bool:
        """Whether something waits that is not of the models that are full."""
        return self.size > 0 and (not full or any(line.items and line.head.contract.name not in full for line in self))

    def next(self, full: Container[str] = ()) -> tuple[BatchItem, Line]:
        """Whose turn it is: the most urgent priority's, there the line's that has had least; see has_next."""
        heads = [(line.head, line) for line in self if line.items]
        if full:
            heads = [(head, line) for head, line in heads if head.contract.name not in full]
        most_urgent = min(head.priority for head, _ in heads)
        return min(
            ((head, line) for head, line in heads if head.priority == most_urgent),
            key=lambda pair: (pair[1].served_seconds, pair[0].order),
        )

    def begin(self, line: Line) -> None:
        """Note that a line is served."""
        self._clock_seconds = line.served_seconds

    def charge(self, group: Group, seconds: float) -> None:
        """Count engine seconds that a request of this client has had."""
        self.served_seconds += seconds / self.weight
        self.line(group).served_seconds += seconds

    def backlog_seconds(self, model: str | None = None) -> float:
        """Engine seconds of everything that waits, of one model or of all."""
        return sum(line.wait_seconds() for line in self if model in (None, line.model))

    def wait_seconds(self, group: Group, order: Order, *, exactly: bool, model: str | None = None) -> float:
        """Engine seconds of this client that go before a place in a line; see FairQueue.wait_seconds."""
        own = self._lines.get(group) or self.line(group)
        ahead = own.ahead_seconds(order) if exactly else own.wait_seconds(order[0])
        seconds = ahead
        # Fair shares: no other line is served for longer than this one while both wait.
        for other in self._lines.values():
            if other is not own and model in (None, other.model):
                seconds += min(other.wait_seconds(order[0]), ahead)
        return seconds
