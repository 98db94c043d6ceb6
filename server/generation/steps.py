"""The rows of a model that are written together: what an instance of the engine does when it is their turn."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from artifact.dtypes import Array
from server.auth.clients import Client
from server.engine.cost import CostModel
from server.engine.decoder import Decoder
from server.errors import InternalFault, ServerError
from server.generation.caches import Caches
from server.generation.choosing import measure
from server.generation.writing import Writing
from server.ledger import CLIENT_FACTOR, has_room

_log = logging.getLogger(__name__)

_TURN_SECONDS = 0.02  # of steps, while nobody else waits for the engine
_USUAL_STEPS, _NEWEST_SHARE = 16.0, 0.05  # of a text, until it is known; how much the newest tells of the next


class Steps:
    """Texts that are written together; for the scheduler a graph, of which a run is a turn of one step or several.

    A turn ends when others wait for the engine, and after a while in any case. Between steps those who have come take
    rows, and those who have ended, hung up or are too late leave theirs.
    """

    def __init__(
        self, decoder: Decoder, max_rows: int, is_wanted: Callable[[], bool], tell: Callable[[Sequence[Writing]], None]
    ) -> None:
        """Begin without any.

        Args:
            decoder: Of the model.
            max_rows: Of one client that are written at a time, and of all a quarter more; who does not fit waits.
            is_wanted: Whether others wait for the engine.
            tell: Is given those with news, in the engine's thread.
        """
        self._decoder, self._max_rows, self._is_wanted, self._tell = decoder, max_rows, is_wanted, tell
        self._most_rows = max_rows + max_rows // CLIENT_FACTOR  # see has_room
        self._caches = Caches(decoder, decoder.generation)
        self._waiting = deque[Writing]()
        self._writings = list[Writing]()
        self._owners = list[tuple[Writing, int]]()  # of each row: whose, and which of its rows
        self._lock = threading.Lock()
        self._is_running = False
        self.token = object()
        self.spent = dict[Client, float]()  # seconds of the last turn
        self.released = dict[Client, float]()  # of quotas, that were reserved for these
        self.steps = 0
        self._mean_steps = _USUAL_STEPS

    @property
    def cost(self) -> CostModel:
        """Of a step."""
        return self._decoder.cost

    @property
    def all_threads_cost(self) -> CostModel:
        """The same: a turn is one item, which cannot be shared out."""
        return self._decoder.cost

    @property
    def can_use_all_threads(self) -> bool:
        """Whether a step that has the machine to itself is faster with all of it."""
        return self._decoder.can_use_all_threads

    @property
    def cache_bytes(self) -> int:
        """Bytes of the caches."""
        return self._caches.size_bytes

    def join(self, writing: Writing) -> None:
        """Let a text be written, as soon as there are rows for it."""
        with self._lock:
            self._waiting.append(writing)

    @property
    def all(self) -> list[Writing]:
        """Return what is written, and what waits for rows."""
        with self._lock:
            return [*self._writings, *self._waiting]

    @property
    def num_rows(self) -> int:
        """Rows that are written, and that are waited for."""
        return sum(writing.num_rows for writing in self.all)

    @property
    def turn_rows(self) -> int:
        """Rows of the next turn: not those that wait for a place."""
        return min(max(self.num_rows, 1), self._most_rows)

    def expected_seconds(self, rows: int, max_tokens: int) -> float:
        """Say what a text of so many rows is likely to take, by how long others were."""
        return min(self._mean_steps, max_tokens) * self.cost.rows_seconds(rows, 1)

    def wait_seconds(self, share: Hashable) -> float:
        """Estimate the seconds until a place is free for one who comes now, of that share: see RpcContext.share.

        Who waits of the same share goes before it; of every other no more than what gives it as much, of rows that are
        written as well.
        """
        with self._lock:
            if not self._waiting:
                return 0.0
            waits, has = _rows_of_clients(self._waiting), _rows_of_clients(self._writings)
        own = waits.pop(share, 0)
        of_one = own + has[share] + 1  # what it then has had
        waiting = own + sum(min(others, max(of_one - has[other], 0)) for other, others in waits.items())
        return waiting / self._max_rows * self._mean_steps * self.cost.seconds(self._max_rows, 1)

    def more_bytes(self, rows: int, length: int, source_length: int) -> int:
        """Say how much larger the caches may become by one text more, all of them as long as they may be.

        Args:
            rows: Of the text.
            length: Tokens that it may come to.
            source_length: Tokens of what is read.
        """
        had = had_length = had_source_length = 0
        for writing in self.all:
            had += writing.num_rows
            had_length = max(had_length, writing.max_length)
            had_source_length = max(had_source_length, writing.source_length)
        lengths = max(had_length, length), max(had_source_length, source_length)
        grown = self._most_bytes(had + rows, *lengths) - self._most_bytes(had, had_length, had_source_length)
        return max(grown, rows * self._caches.row_bytes(length, source_length))

    def _most_bytes(self, rows: int, length: int, source_length: int) -> int:
        return self._caches.bytes_for(min(rows, self._most_rows), length, source_length)

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        """Take a turn; neither takes nor gives anything."""
        self.spent, self.released, self._is_running = {}, {}, True
        ends = time.monotonic() + _TURN_SECONDS
        try:
            while self._change_rows():
                self._step(all_threads=all_threads, device=device)
                if self._is_wanted() or time.monotonic() >= ends:
                    break
            self._change_rows()
        finally:
            self._is_running = False
        return {}

    def fail_all(self, error: ServerError) -> list[Writing]:
        """End everything without results, and return what that was; a turn that runs all the same lets go of it."""
        ended = self.all
        for writing in ended:
            writing.fail(error)
        if not self._is_running:
            with self._lock:
                self._waiting.clear()
                self._writings.clear()
            self._owners.clear()
            self._caches.clear()
        return ended

    def _change_rows(self) -> bool:
        """Take out who has ended, and let in who waits; returns whether there is anything to write."""
        now = time.monotonic()
        left = [writing for writing in self._writings if writing.has_to_stop(now)]
        for writing in left:
            self._take_out(writing)
        with self._lock:
            over = [writing for writing in self._waiting if writing.has_to_stop(now)]
            if over:
                gone = set(over)
                self._waiting = deque(writing for writing in self._waiting if writing not in gone)
            entered = self._choose_waiting()
        failed = [writing for writing in entered if not self._take_in(writing)]
        if ended := [writing for writing in (*left, *over, *failed) if writing.is_over]:
            self._tell(ended)
        if left:
            self._caches.fit()
        return bool(self._writings)

    def _choose_waiting(self) -> list[Writing]:
        """Choose who gets the rows that are free: whose client has fewest for its weight; of a client the most urgent.

        Who is first and needs more rows than are free is overtaken by nobody. Clients without rows find some free
        though another has all of its own, and goes on waiting.
        """
        if not self._waiting:
            return []
        rows = _rows_of_clients(self._writings)
        of_all = rows.total()
        chosen, having_all = list[Writing](), set[Hashable]()
        while left := [one for one in self._waiting if one.context.share not in having_all]:
            first = min(left, key=lambda one: (rows[one.context.share] / one.weight, one.context.priority))
            own, more = rows[first.context.share], first.num_rows
            if not has_room(own + more, of_all + more, self._max_rows):
                if not has_room(more, of_all + more, self._max_rows):
                    break
                having_all.add(first.context.share)
                continue
            self._waiting.remove(first)
            chosen.append(first)
            of_all += more
            rows[first.context.share] += more
        return chosen

    def _take_in(self, writing: Writing) -> bool:
        """Give a text its rows; one for which there are none fails alone. Returns whether it has them."""
        try:
            rows = self._caches.add(writing.source, writing.num_rows)
        except Exception:
            _log.exception("no rows for a text, request %s", writing.context.request_id)
            writing.fail(InternalFault())
            return False
        self._owners += [(writing, place) for place in range(len(rows))]
        writing.begin(rows, self._caches)
        with self._lock:
            self._writings.append(writing)
        return True

    def _take_out(self, writing: Writing) -> None:
        for row in sorted(writing.rows, reverse=True):
            last = self._caches.remove(row)
            moved = self._owners.pop()
            if last != row:
                owner, place = self._owners[row] = moved
                owner.rows[place] = row
        self._mean_steps += _NEWEST_SHARE * (writing.steps - self._mean_steps)
        with self._lock:
            self._writings.remove(writing)

    def _step(self, *, all_threads: bool, device: int) -> None:
        began = time.perf_counter()
        looks = any(writing.plan.attention for writing in self._writings)
        logits = self._caches.step(looks=looks, all_threads=all_threads, device=device)
        best, norms = measure(logits)
        stepped = time.perf_counter()
        row_seconds = (stepped - began) / len(self._owners)
        for writing in self._writings:
            began = stepped
            try:
                writing.advance(logits, best, norms, self._caches)
            except Exception:
                _log.exception("a text could not be written on, request %s", writing.context.request_id)
                writing.fail(InternalFault())
            stepped = time.perf_counter()  # which chose, and looked at attention
            self._count(writing, row_seconds * writing.num_rows + stepped - began)
        self.steps += 1
        if news := [writing for writing in self._writings if writing.fresh and not writing.is_over]:
            self._tell(news)

    def _count(self, writing: Writing, seconds: float) -> None:
        """Count what a text took of a step, for its client's quota in place of what was reserved."""
        caller = writing.context.caller
        self.spent[caller] = self.spent.get(caller, 0.0) + seconds
        released_seconds = 0.0 if writing.is_cancelled else writing.release(seconds)  # else it is all for who cancelled
        self.released[caller] = self.released.get(caller, 0.0) + released_seconds


def _rows_of_clients(writings: Iterable[Writing]) -> Counter[Hashable]:
    """Count rows by the share that they are of: see RpcContext.share."""
    rows = Counter[Hashable]()
    for writing in writings:
        rows[writing.context.share] += writing.num_rows
    return rows
