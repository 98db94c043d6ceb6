"""What waits for the engine: whose turn it is, who shares the batch, how long it will take.

Nothing here waits or knows of a clock: times come in as arguments, so that fairness is tested in simulated time.
"""

import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

from server.scheduling.batch import BatchItem, BatchLimits, Load, Order
from server.scheduling.companions import NEGLIGIBLE_SHARE, choose_companions
from server.scheduling.places import ANY_ROOM, Room
from server.scheduling.shares import Group, Line, Share

_MAX_IDLE_SHARES = 256  # that are remembered


class FairQueue:
    """Fair shares of engine time to the clients; of a client priority first, then fair shares to the graphs."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._groups: dict[object, Group] = {}  # by the graphs' tokens
        self._shares: dict[object, Share] = {}
        self.size = 0
        self.rows = 0
        self._clock_seconds = 0.0  # virtual time of the client served last
        self.held_bytes = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[BatchItem]:
        for share in list(self._shares.values()):
            for line in share:
                yield from line.items.values()

    def add(self, item: BatchItem) -> None:
        """Queue a request. A client that had nothing waiting cannot claim the time in which it asked for nothing."""
        item.begin_by, item.is_offer_first = item.expires - self._alone_seconds(item), False
        if not self.size and item.begin_by <= item.arrived:  # admitted to try, however slow the engine seems
            item.begin_by = item.expires
        if item.offered < math.inf:  # as it was estimated: with those whose batch it would be part of
            for_offer = item.offered - self.run_seconds(item)
            item.begin_by, item.is_offer_first = min(item.begin_by, for_offer), for_offer < item.begin_by
        share = self._shares.get(item.share) or self._share(item)
        share.weight = item.context.caller.weight
        if not share.size:
            share.served_seconds = max(share.served_seconds, self._clock_seconds)
        share.add(item, self._groups.get(item.graph.token) or self._group(item))
        self._count(item, 1)

    def remove(self, item: BatchItem) -> bool:
        """Take a request out, its caller having gone; False where it does not wait any more."""
        if not self._share(item).remove(item, self._group(item)):
            return False
        self._count(item, -1)
        return True

    def waiting_of(self, item: BatchItem) -> tuple[int, int]:
        """How many requests of its client wait, and how many bytes their inputs hold."""
        share = self._share(item)
        return share.size, share.held_bytes

    def take(self, idle_instances: int = 1, *, all_threads: bool = False, room: Room = ANY_ROOM) -> list[BatchItem]:
        """Take the next batch, the most urgent request first; empty where nothing waits.

        Args:
            idle_instances: How many instances are free: each gets its share of the rows.
            all_threads: Whether nothing runs, so that a graph that can use the whole machine for one batch may do so,
                where that is no slower than to share its rows out.
            room: What models' own bounds leave.
        """
        first = self._first(room.full)
        if first is None:
            return []
        share, head, line = first
        if room.left and (name := head.contract.name) in room.left:  # it shares instances with nobody else
            idle_instances = min(idle_instances, room.left[name])
        group = self._group(head)
        if all_threads and head.graph.can_use_all_threads:
            rows = min(group.rows, self._limits.rows)
            if not group.pays_to_share_out(rows, idle_instances, head.length):
                idle_instances = 1
        self._clock_seconds = share.served_seconds
        share.begin(line)
        return self._cut(head, self._limits, -(-group.rows // idle_instances))

    def next_seconds(self, full: Container[str]) -> float | None:
        """Estimate the batch that `take` would give, on a device as fast as all are; None where it would give none."""
        first = self._first(full)
        if first is None:
            return None
        _, head, _ = first
        group = self._group(head)
        return group.slowdown * group.cost.seconds(min(group.rows, self._limits.rows), head.length)

    def has_next(self, full: Container[str]) -> bool:
        """Whether `take` would give anything."""
        return any(share.has_next(full) for share in self._shares.values())

    def take_within(self, seconds: float, busy: Container[str]) -> list[BatchItem]:
        """Take the next batch that takes so many seconds at most, of a model that is not busy; empty where none does.

        It is out of turn: who comes next begins where those begin who had to wait, and who has had more than others who
        wait goes with them.

        Args:
            seconds: Expected of the run.
            busy: Names of models.
        """
        fitting = [
            (share, line, min(items, key=lambda item: item.order))
            for share, line in self._lines_within(seconds)
            if (items := list(self._items_within(line, seconds, busy)))
        ]
        if not fitting:
            return []
        _, _, head = min(
            fitting, key=lambda one: (one[0].served_seconds, one[2].priority, one[1].served_seconds, one[2].order)
        )
        group = self._group(head)
        limits = replace(self._limits, seconds=min(seconds / group.slowdown, self._limits.seconds))
        return self._cut(head, limits, group.rows)

    def has_within(self, seconds: float, busy: Container[str]) -> bool:
        """Whether `take_within` would find something."""
        return any(True for _, line in self._lines_within(seconds) for _ in self._items_within(line, seconds, busy))

    def is_within(self, item: BatchItem, seconds: float, busy: Container[str]) -> bool:
        """Whether `take_within` may take a request, which waits or would; see there."""
        if item.contract.name in busy or self._alone_seconds(item) > seconds:
            return False
        return self._has_had_no_more(self._share(item), self._least_served(), seconds)

    def seconds_within(self, seconds: float, busy: Container[str]) -> float:
        """Estimate what all take that `take_within` would take one after the other."""
        lines = (line for _, line in self._lines_within(seconds))
        return sum(self._alone_seconds(item) for line in lines for item in self._items_within(line, seconds, busy))

    def drop_late(self, now: float) -> list[BatchItem]:
        """Take out what cannot be answered any more by when its caller wants it, or was offered it."""
        late = [item for item in self if item.begin_by <= now]
        for item in late:
            self.remove(item)
        return late

    def batch_seconds(self, batch: Sequence[BatchItem], *, all_threads: bool = False) -> float:
        """What a batch is expected to take, with one thread or with all."""
        load = Load.of(batch)
        return self._group(batch[0]).run_seconds(load.rows, load.longest, all_threads=all_threads)

    def is_for_all_threads(self, batch: Sequence[BatchItem]) -> bool:
        """Whether a batch that has the machine to itself should use all of it; see Group.pays_to_share_out."""
        if not batch[0].graph.can_use_all_threads:
            return False
        load = Load.of(batch)
        return not self._group(batch[0]).pays_to_share_out(load.rows, 1, load.longest)

    def learn(self, batch: Sequence[BatchItem], seconds: float, *, whole: bool, all_threads: bool = False) -> None:
        """Correct what a batch was expected to take by what it took; one that failed says nothing of the next."""
        expected = self.batch_seconds(batch, all_threads=all_threads)
        if not all_threads:  # which are charged what one thread would have taken: nobody else could run
            self._charge(batch, seconds - expected)
        if expected and whole:
            self._group(batch[0]).learn(seconds / expected, all_threads=all_threads)

    def wait_seconds(self, item: BatchItem, order: Order, *, exactly: bool = False, model: str | None = None) -> float:
        """Estimate the engine seconds until a request's batch begins.

        Args:
            item: What the request wants.
            order: Its place: priority, due, arrival.
            exactly: Whether requests of its client and graph that are due later are left out; looks at every one.
            model: Whose requests alone are counted; None for all.
        """
        own = self._shares.get(item.share) or self._share(item)
        group = self._groups.get(item.graph.token) or self._group(item)
        ahead = own.wait_seconds(group, order, exactly=exactly, model=model)
        # Fair shares: nobody begins after this one who has had more than it will have had by then.
        until = (ahead + group.slowdown * item.rows_seconds) / own.weight
        seconds = ahead
        for share in self._shares.values():
            if share is not own:
                seconds += min(share.backlog_seconds(model), until * share.weight)
        return seconds

    def backlog_seconds(self, model: str | None = None) -> float:
        """Estimate the engine seconds of everything that waits, of one model or of all."""
        return sum(share.backlog_seconds(model) for share in self._shares.values())

    def fixed_seconds(self, item: BatchItem) -> float:
        """Estimate the part of a run that does not depend on what is in it."""
        group = self._group(item)
        return group.slowdown * group.cost.run_seconds

    def run_seconds(self, item: BatchItem) -> float:
        """Estimate what the batch takes that a request would be part of, others that wait included."""
        group = self._groups.get(item.graph.token) or self._group(item)
        row_seconds = group.cost.rows_seconds(1, item.length)
        full_seconds = group.cost.run_seconds / NEGLIGIBLE_SHARE
        rows = min(
            group.rows + item.rows, self._limits.rows, math.ceil(full_seconds / row_seconds) if row_seconds else 1
        )
        return group.slowdown * (group.cost.run_seconds + max(rows, item.rows) * row_seconds)

    def _lines_within(self, seconds: float) -> Iterator[tuple[Share, Line]]:
        """Yield lines of clients that have had no more than others who wait."""
        least_seconds = self._least_served()
        for share in self._shares.values():
            if share.size and self._has_had_no_more(share, least_seconds, seconds):
                for line in share:
                    yield share, line

    def _items_within(self, line: Line, seconds: float, busy: Container[str]) -> Iterator[BatchItem]:
        for item in line.items.values():
            if item.contract.name in busy:
                return  # all of a line are of one model
            if self._alone_seconds(item) <= seconds:
                yield item

    def _least_served(self) -> float:
        """What the client has had that has had least of those that wait."""
        return min((one.served_seconds for one in self._shares.values() if one.size), default=math.inf)

    def _has_had_no_more(self, share: Share, least_seconds: float, seconds: float) -> bool:
        """Whether a client has had no more than who had least, but for so many seconds; or would, if it came now."""
        served_seconds = share.served_seconds if share.size else max(share.served_seconds, self._clock_seconds)
        return served_seconds <= least_seconds + seconds / share.weight

    def _alone_seconds(self, item: BatchItem) -> float:
        return self._group(item).slowdown * item.alone_seconds

    def _first(self, full: Container[str]) -> tuple[Share, BatchItem, Line] | None:
        """Whose turn it is: the client's that has had least, its request, and the line of that; see Share.next."""
        waiting = [
            (share, *share.next(full))
            for share in self._shares.values()
            if share.size and (not full or share.has_next(full))
        ]
        return min(waiting, key=lambda one: (one[0].served_seconds, one[1].order), default=None)

    def _cut(self, head: BatchItem, limits: BatchLimits, rows: int) -> list[BatchItem]:
        """Take a request out with those that share its batch, and count what it will take."""
        rest = [item for item in self if item.graph is head.graph and item is not head]
        batch = [head, *choose_companions(head, rest, limits, rows)]
        for item in batch:
            self.remove(item)
        self._charge(batch, self.batch_seconds(batch))
        return batch

    def _count(self, item: BatchItem, sign: int) -> None:
        self.size += sign
        self.rows += sign * item.rows
        self.held_bytes += sign * item.held_bytes

    def _charge(self, batch: Sequence[BatchItem], seconds: float) -> None:
        """Count a batch's time, each client its rows'."""
        group, row_seconds = self._group(batch[0]), seconds / sum(item.rows for item in batch)
        for item in batch:
            self._share(item).charge(group, row_seconds * item.rows)

    def _group(self, item: BatchItem) -> Group:
        group = self._groups.get(item.graph.token)
        if group is None:  # those of models that were unloaded are dropped meanwhile
            self._groups = {token: group for token, group in self._groups.items() if not group.is_gone}
            group = self._groups[item.graph.token] = Group(item.graph)
        return group

    def _share(self, item: BatchItem) -> Share:
        share = self._shares.get(item.share)
        if share is None:
            self._forget()
            share = self._shares[item.share] = Share(item.context.caller.weight)
        return share

    def _forget(self) -> None:
        """Drop half of the clients that have nothing waiting where they are many, those that have had least."""
        idle = [key for key, share in self._shares.items() if not share.size]
        if len(idle) >= _MAX_IDLE_SHARES:
            for key in sorted(idle, key=lambda key: self._shares[key].served_seconds)[: _MAX_IDLE_SHARES // 2]:
                del self._shares[key]
