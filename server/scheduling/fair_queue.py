"""What waits for the engine: whose turn it is, who shares the batch, how long it will take; the scheduler owns it.

Nothing here waits or knows of a clock: times come in as arguments, so that fairness is tested in simulated time.
"""

import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from server.scheduling.batch import BatchLimits, Load, Runner, Work

Reply = TypeVar("Reply")

# A batch grows until its fixed cost is this share of it: more rows would delay everyone and save nothing.
_NEGLIGIBLE_SHARE = 0.03
# How much the newest run tells about how much slower the engine is than when it was measured alone.
_PACE_WEIGHT = 0.1
# A place in the queue: priority, due, arrived.
Order = tuple[int, float, float]


@dataclass(frozen=True, eq=False)
class Entry(Generic[Reply]):
    """One request in the queue.

    Attributes:
        work: What to compute.
        reply: The scheduler's own.
        priority: 1 is served first.
        due: When it should be computed at the latest, in seconds; orders requests of one priority.
        arrived: When it came, in seconds.
        expires: When its caller does not want it any more, in seconds.
    """

    work: Work
    reply: Reply
    priority: int
    due: float
    arrived: float
    expires: float = math.inf
    order: "Order" = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", (self.priority, self.due, self.arrived))


class _Group(Generic[Reply]):
    """Requests for one graph: they may share batches."""

    def __init__(self, graph: Runner) -> None:
        self.cost = graph.cost
        self.entries: dict[int, Entry[Reply]] = {}
        self.served_seconds = 0.0  # the group's virtual time: engine seconds it has had
        self.pace = 1.0  # how many times slower runs are than the cost model says
        self.backlog: dict[int, float] = {}  # seconds of rows waiting, by priority
        self.rows = 0

    def add(self, entry: Entry[Reply], sign: int = 1) -> None:
        rows_seconds = self.cost.rows_seconds(entry.work.rows, entry.work.length)
        self.backlog[entry.priority] = self.backlog.get(entry.priority, 0.0) + sign * rows_seconds
        self.rows += sign * entry.work.rows
        if sign > 0:
            self.entries[id(entry)] = entry
        else:
            del self.entries[id(entry)]
            if not self.entries:
                self.backlog.clear()  # what rounding left behind

    def wait_seconds(self, priority: int) -> float:
        """Engine seconds that what waits with this priority or a more urgent one will take."""
        rows_seconds = sum(seconds for level, seconds in self.backlog.items() if level <= priority)
        # Batches that are full in the sense of _NEGLIGIBLE_SHARE add that share for their fixed part.
        return self.pace * rows_seconds * (1 + _NEGLIGIBLE_SHARE) if self.entries else 0.0

    @property
    def lowest_priority(self) -> int:
        """The priority that waits for all others; 0 where nothing waits."""
        return max(self.backlog, default=0)

    def ahead_seconds(self, order: Order) -> float:
        """Like wait_seconds, of what is served before a given place in the order."""
        ahead = (entry.work for entry in self.entries.values() if entry.order < order)
        return self.pace * sum(self.cost.rows_seconds(work.rows, work.length) for work in ahead)


class Queue(Generic[Reply]):
    """Requests by group; priority first, then fair shares of engine time to the groups, then the earliest due."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        # A model that was unloaded takes its group along.
        self._groups: weakref.WeakKeyDictionary[Runner, _Group[Reply]] = weakref.WeakKeyDictionary()
        self._size = 0
        self.rows = 0
        self._clock_seconds = 0.0  # virtual time of the group served last
        self.held_bytes = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Entry[Reply]]:
        for group in list(self._groups.values()):
            yield from group.entries.values()

    def add(self, entry: Entry[Reply]) -> None:
        """Queue a request. A group that had nothing waiting cannot claim the time in which it asked for nothing."""
        group = self._group(entry.work)
        if not group.entries:
            group.served_seconds = max(group.served_seconds, self._clock_seconds)
        group.add(entry)
        self._size += 1
        self.rows += entry.work.rows
        self.held_bytes += entry.work.held_bytes

    def remove(self, entry: Entry[Reply]) -> bool:
        """Take a request out, its caller having gone; False where it does not wait any more."""
        group = self._group(entry.work)
        if id(entry) not in group.entries:
            return False
        group.add(entry, sign=-1)
        self._size -= 1
        self.rows -= entry.work.rows
        self.held_bytes -= entry.work.held_bytes
        return True

    def take(self, idle_lanes: int = 1, *, wide: bool = False) -> list[Entry[Reply]]:
        """Take the next batch, the most urgent request first; empty where nothing waits.

        Args:
            idle_lanes: How many engine threads are free: each gets its share of the rows.
            wide: Whether nothing runs, so that a graph that can use the whole machine for one batch may do so.
        """
        waiting = [group for group in self._groups.values() if group.entries]
        if not waiting:
            return []
        heads = [(min(group.entries.values(), key=lambda entry: entry.order), group) for group in waiting]
        most_urgent = min(head.priority for head, _ in heads)
        head, group = min(
            ((head, group) for head, group in heads if head.priority == most_urgent),
            key=lambda pair: (pair[1].served_seconds, pair[0].order),
        )
        rest = [entry for entry in group.entries.values() if entry is not head]
        lanes = 1 if wide and head.work.graph.can_run_wide else idle_lanes
        share = -(-group.rows // lanes)
        batch = [head, *choose_companions(head, rest, self._limits, share)]
        for entry in batch:
            self.remove(entry)
        self._clock_seconds = group.served_seconds
        group.served_seconds += self.batch_seconds(batch)
        return batch

    def drop_expired(self, now: float) -> list[Entry[Reply]]:
        """Take out what its callers do not want any more."""
        expired = [entry for entry in self if entry.expires <= now]
        for entry in expired:
            self.remove(entry)
        return expired

    def batch_seconds(self, batch: Sequence[Entry[Reply]]) -> float:
        """What a batch is expected to take."""
        group = self._group(batch[0].work)
        load = Load.of([entry.work for entry in batch])
        return group.pace * group.cost.seconds(load.rows, load.longest)

    def learn(self, batch: Sequence[Entry[Reply]], seconds: float, *, whole: bool) -> None:
        """Correct what a batch was expected to take by what it took; one that failed says nothing of the next."""
        group = self._group(batch[0].work)
        expected = self.batch_seconds(batch)
        group.served_seconds += seconds - expected
        if expected and whole:
            group.pace *= 1 + _PACE_WEIGHT * (min(max(seconds / expected, 0.1), 10.0) - 1)

    def wait_seconds(self, work: Work, order: Order, *, exactly: bool = False) -> float:
        """Estimate the engine seconds until a request's batch begins.

        Args:
            work: What the request wants.
            order: Its place: priority, due, arrival.
            exactly: Whether requests of its group that are due later are left out; looks at every one.
        """
        own = self._group(work)
        ahead = own.ahead_seconds(order) if exactly else own.wait_seconds(order[0])
        others = (group.wait_seconds(order[0]) for group in self._groups.values() if group is not own)
        # Fair shares: no other group is served for longer than this one while both wait.
        return ahead + sum(min(other, ahead) for other in others)

    def backlog_seconds(self) -> float:
        """Estimate the engine seconds of everything that waits."""
        return sum(group.wait_seconds(group.lowest_priority) for group in self._groups.values())

    def fixed_seconds(self, work: Work) -> float:
        """Estimate the part of a run that does not depend on what is in it."""
        group = self._group(work)
        return group.pace * group.cost.run_seconds

    def run_seconds(self, work: Work) -> float:
        """Estimate what the batch takes that a request would be part of, company included if others wait."""
        group = self._group(work)
        row_seconds = group.cost.rows_seconds(1, work.length)
        full_seconds = group.cost.run_seconds / _NEGLIGIBLE_SHARE
        rows = min(
            group.rows + work.rows, self._limits.rows, math.ceil(full_seconds / row_seconds) if row_seconds else 1
        )
        return group.pace * group.cost.seconds(max(rows, work.rows), work.length)

    def _group(self, work: Work) -> _Group[Reply]:
        group = self._groups.get(work.graph)
        if group is None:
            group = self._groups[work.graph] = _Group(work.graph)
        return group


def choose_companions(
    head: Entry[Reply], rest: Sequence[Entry[Reply]], limits: BatchLimits, share: int
) -> list[Entry[Reply]]:
    """Choose who shares a batch with the request whose turn it is: whoever makes it cheaper than two runs.

    Args:
        head: In the batch in any case.
        rest: The others of its group.
        limits: The batch's.
        share: Most rows, so that every free lane gets some.

    Returns:
        Some of `rest`: more urgent priorities foremost, then lengths near to the head's.
    """
    length = head.work.length
    fitting = [entry for entry in rest if entry.work.may_join(head.work)]
    candidates = sorted(fitting, key=lambda entry: (entry.priority, abs(entry.work.length - length), entry.order))
    cost, load = head.work.graph.cost, Load.of([head.work])
    seconds = cost.seconds(load.rows, load.longest)
    chosen: list[Entry[Reply]] = []
    for entry in candidates:
        if load.rows >= min(share, limits.rows) or cost.run_seconds <= _NEGLIGIBLE_SHARE * seconds:
            break
        larger = load.with_one_more(entry.work)
        together = cost.seconds(larger.rows, larger.longest)
        if larger.fits(limits) and together <= seconds + cost.seconds(entry.work.rows, entry.work.length):
            load, seconds = larger, together
            chosen.append(entry)
    return chosen
