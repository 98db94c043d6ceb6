"""What waits for the engine: whose turn it is, who shares the batch, how long it will take.

Nothing here waits or knows of a clock: times come in as arguments, so that fairness is tested in simulated time.
"""

import math
import weakref
from collections.abc import Iterator, Sequence

from server.scheduling.batch import BatchItem, BatchLimits, Load, Order, Runner

# A batch grows until its fixed cost is this share of it: more rows would delay everyone and save nothing.
_NEGLIGIBLE_SHARE = 0.03
# How much the newest run tells about how much slower the engine is than when it was measured alone.
_SLOWDOWN_WEIGHT = 0.1


class _Group:
    """Requests for one graph: they may share batches."""

    def __init__(self, graph: Runner) -> None:
        self.cost = graph.cost
        self.items: dict[int, BatchItem] = {}
        self.served_seconds = 0.0  # the group's virtual time: engine seconds it has had
        self.slowdown = 1.0  # how many times longer runs take than the cost model says
        self.backlog: dict[int, float] = {}  # seconds of rows waiting, by priority
        self.rows = 0

    def add(self, item: BatchItem, sign: int = 1) -> None:
        rows_seconds = self.cost.rows_seconds(item.rows, item.length)
        self.backlog[item.priority] = self.backlog.get(item.priority, 0.0) + sign * rows_seconds
        self.rows += sign * item.rows
        if sign > 0:
            self.items[id(item)] = item
        else:
            del self.items[id(item)]
            if not self.items:
                self.backlog.clear()  # what rounding left behind

    def wait_seconds(self, priority: int) -> float:
        """Engine seconds that what waits with this priority or a more urgent one will take."""
        rows_seconds = sum(seconds for level, seconds in self.backlog.items() if level <= priority)
        # Batches that are full in the sense of _NEGLIGIBLE_SHARE add that share for their fixed part.
        return self.slowdown * rows_seconds * (1 + _NEGLIGIBLE_SHARE) if self.items else 0.0

    @property
    def lowest_priority(self) -> int:
        """The priority that waits for all others; 0 where nothing waits."""
        return max(self.backlog, default=0)

    def ahead_seconds(self, order: Order) -> float:
        """Like wait_seconds, of what is served before a given place in the order."""
        ahead = (item for item in self.items.values() if item.order < order)
        return self.slowdown * sum(self.cost.rows_seconds(item.rows, item.length) for item in ahead)


class FairQueue:
    """Requests by group; priority first, then fair shares of engine time to the groups, then the earliest due."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        # A model that was unloaded takes its group along.
        self._groups: weakref.WeakKeyDictionary[Runner, _Group] = weakref.WeakKeyDictionary()
        self._size = 0
        self.rows = 0
        self._clock_seconds = 0.0  # virtual time of the group served last
        self.held_bytes = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[BatchItem]:
        for group in list(self._groups.values()):
            yield from group.items.values()

    def add(self, item: BatchItem) -> None:
        """Queue a request. A group that had nothing waiting cannot claim the time in which it asked for nothing."""
        group = self._group(item)
        if not group.items:
            group.served_seconds = max(group.served_seconds, self._clock_seconds)
        group.add(item)
        self._size += 1
        self.rows += item.rows
        self.held_bytes += item.held_bytes

    def remove(self, item: BatchItem) -> bool:
        """Take a request out, its caller having gone; False where it does not wait any more."""
        group = self._group(item)
        if id(item) not in group.items:
            return False
        group.add(item, sign=-1)
        self._size -= 1
        self.rows -= item.rows
        self.held_bytes -= item.held_bytes
        return True

    def take(self, idle_instances: int = 1, *, all_threads: bool = False) -> list[BatchItem]:
        """Take the next batch, the most urgent request first; empty where nothing waits.

        Args:
            idle_instances: How many instances are free: each gets its share of the rows.
            all_threads: Whether nothing runs, so that a graph that can use the whole machine for one batch may do so.
        """
        waiting = [group for group in self._groups.values() if group.items]
        if not waiting:
            return []
        heads = [(min(group.items.values(), key=lambda item: item.order), group) for group in waiting]
        most_urgent = min(head.priority for head, _ in heads)
        head, group = min(
            ((head, group) for head, group in heads if head.priority == most_urgent),
            key=lambda pair: (pair[1].served_seconds, pair[0].order),
        )
        rest = [item for item in group.items.values() if item is not head]
        instances = 1 if all_threads and head.graph.can_use_all_threads else idle_instances
        share = -(-group.rows // instances)
        batch = [head, *choose_companions(head, rest, self._limits, share)]
        for item in batch:
            self.remove(item)
        self._clock_seconds = group.served_seconds
        group.served_seconds += self.batch_seconds(batch)
        return batch

    def drop_expired(self, now: float) -> list[BatchItem]:
        """Take out what its callers do not want any more."""
        expired = [item for item in self if item.expires <= now]
        for item in expired:
            self.remove(item)
        return expired

    def batch_seconds(self, batch: Sequence[BatchItem]) -> float:
        """What a batch is expected to take."""
        group = self._group(batch[0])
        load = Load.of(batch)
        return group.slowdown * group.cost.seconds(load.rows, load.longest)

    def learn(self, batch: Sequence[BatchItem], seconds: float, *, whole: bool) -> None:
        """Correct what a batch was expected to take by what it took; one that failed says nothing of the next."""
        group = self._group(batch[0])
        expected = self.batch_seconds(batch)
        group.served_seconds += seconds - expected
        if expected and whole:
            group.slowdown *= 1 + _SLOWDOWN_WEIGHT * (min(max(seconds / expected, 0.1), 10.0) - 1)

    def wait_seconds(self, item: BatchItem, order: Order, *, exactly: bool = False) -> float:
        """Estimate the engine seconds until a request's batch begins.

        Args:
            item: What the request wants.
            order: Its place: priority, due, arrival.
            exactly: Whether requests of its group that are due later are left out; looks at every one.
        """
        own = self._group(item)
        ahead = own.ahead_seconds(order) if exactly else own.wait_seconds(order[0])
        others = (group.wait_seconds(order[0]) for group in self._groups.values() if group is not own)
        # Fair shares: no other group is served for longer than this one while both wait.
        return ahead + sum(min(other, ahead) for other in others)

    def backlog_seconds(self) -> float:
        """Estimate the engine seconds of everything that waits."""
        return sum(group.wait_seconds(group.lowest_priority) for group in self._groups.values())

    def fixed_seconds(self, item: BatchItem) -> float:
        """Estimate the part of a run that does not depend on what is in it."""
        group = self._group(item)
        return group.slowdown * group.cost.run_seconds

    def run_seconds(self, item: BatchItem) -> float:
        """Estimate what the batch takes that a request would be part of, others that wait included."""
        group = self._group(item)
        row_seconds = group.cost.rows_seconds(1, item.length)
        full_seconds = group.cost.run_seconds / _NEGLIGIBLE_SHARE
        rows = min(
            group.rows + item.rows, self._limits.rows, math.ceil(full_seconds / row_seconds) if row_seconds else 1
        )
        return group.slowdown * group.cost.seconds(max(rows, item.rows), item.length)

    def _group(self, item: BatchItem) -> _Group:
        group = self._groups.get(item.graph)
        if group is None:
            group = self._groups[item.graph] = _Group(item.graph)
        return group


def choose_companions(head: BatchItem, rest: Sequence[BatchItem], limits: BatchLimits, share: int) -> list[BatchItem]:
    """Choose who shares a batch with the request whose turn it is: whoever makes it cheaper than two runs.

    Args:
        head: In the batch in any case.
        rest: The others of its group.
        limits: The batch's.
        share: Most rows, so that every free instance gets some.

    Returns:
        Some of `rest`: more urgent priorities foremost, then lengths near to the head's.
    """
    length = head.length
    fitting = [item for item in rest if item.may_share(head)]
    candidates = sorted(fitting, key=lambda item: (item.priority, abs(item.length - length), item.order))
    cost, load = head.graph.cost, Load.of([head])
    seconds = cost.seconds(load.rows, load.longest)
    chosen: list[BatchItem] = []
    for item in candidates:
        if load.rows >= min(share, limits.rows) or cost.run_seconds <= _NEGLIGIBLE_SHARE * seconds:
            break
        larger = load.with_one_more(item)
        together = cost.seconds(larger.rows, larger.longest)
        if larger.fits(limits) and together <= seconds + cost.seconds(item.rows, item.length):
            load, seconds = larger, together
            chosen.append(item)
    return chosen
