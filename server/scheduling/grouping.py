"""Groups the inputs of one call into runs, those of similar length together, and hands each its own result."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from server.errors import DeviceFailed, InternalFault, ServerError
from server.scheduling.batch import BatchItem, BatchLimits, Load, Result
from server.scheduling.collate import collate, split
from server.scheduling.companions import is_full, joined

_MIN_ROWS = 8  # of a run, where inputs are shared out: more hardly make a row cheaper (docs/decisions.md)

Each = Result | ServerError
"""What becomes of one input of a call."""


def group(items: Sequence[BatchItem], limits: BatchLimits, instances: int = 1) -> list[list[int]]:
    """Choose which inputs run together by what a batch costs, as the scheduler does for requests.

    Args:
        items: A row each.
        limits: A run's.
        instances: How many work: two runs for each end at about one time, since long ones begin first.

    Returns:
        Indices of `items`, the longest first; about equally many in each run where all are of one length.
    """
    groups, load = list[list[int]](), Load()
    runs = max(-(-len(items) // limits.rows), min(2 * instances, len(items) // _MIN_ROWS), 1)
    share = -(-len(items) // runs)
    for number in sorted(range(len(items)), key=lambda number: -items[number].length):
        item = items[number]
        larger = None
        if groups and items[groups[-1][0]].may_share(item) and not is_full(load, item.graph.cost, limits, share):
            larger = joined(load, item, limits)
        if larger is None:
            groups.append([])
        load = larger or Load.of([item])
        groups[-1].append(number)
    return groups


def merge(items: Sequence[BatchItem]) -> BatchItem:
    """Make one item of several, padded to the longest."""
    first, *others = items
    if not others:
        return replace(first)
    return replace(first, inputs=collate(items), rows=len(items), length=max(item.length for item in items))


class Runs:
    """The runs that the inputs of a call take."""

    def __init__(
        self,
        items: Sequence[BatchItem],
        limits: BatchLimits,
        instances: int,
        later_rows: int,
        check: Callable[[BatchItem], None],
    ) -> None:
        """Group inputs.

        Args:
            items: A row each.
            limits: A run's.
            instances: How many work.
            later_rows: Of the call, as long as these, that will come when these are computed.
            check: Raises what keeps an input from being computed, which is its own error.
        """
        self._items = items
        self._later_seconds = max(
            (item.graph.cost.rows_seconds(later_rows, item.length) for item in items), default=0.0
        )
        self._outcomes = [_refusal(item, check) for item in items]
        fine = [number for number, refusal in enumerate(self._outcomes) if refusal is None]
        groups = group([items[number] for number in fine], limits, instances)
        self._left = deque([fine[place] for place in places] for places in groups)

    @property
    def seconds(self) -> float:
        """What is left takes, one run after the other."""
        return self._later_seconds + sum(self._seconds(numbers) for numbers in self._left)

    @property
    def count(self) -> int:
        """How many are left."""
        return len(self._left)

    def take(self) -> tuple[list[int], BatchItem]:
        """Take the next: which inputs, and what is computed."""
        numbers = self._left.popleft()
        return numbers, merge([self._items[number] for number in numbers])

    def succeed(self, numbers: Sequence[int], whole: Result) -> None:
        """Give each input of a run its row, cut to its own length."""
        parts = split([self._items[number] for number in numbers], {**whole.outputs, **whole.further})
        for number, part in zip(numbers, parts, strict=True):
            part.queue_ns, part.compute_ns, part.batch_size = whole.queue_ns, whole.compute_ns, whole.batch_size
            self._outcomes[number] = part

    def fail(self, numbers: Sequence[int], error: InternalFault | DeviceFailed) -> None:
        """Let each input of a run that failed run alone: only the guilty one fails; of a failed device, all do."""
        if len(numbers) > 1 and isinstance(error, InternalFault):
            self._left.extend([number] for number in numbers)
            return
        for number in numbers:
            self._outcomes[number] = error

    @property
    def outcomes(self) -> list[Each]:
        """What became of each, in their order, once nothing is left."""
        return [InternalFault() if outcome is None else outcome for outcome in self._outcomes]

    def _seconds(self, numbers: Sequence[int]) -> float:
        first = self._items[numbers[0]]  # the longest
        return first.graph.cost.seconds(len(numbers), first.length)


def _refusal(item: BatchItem, check: Callable[[BatchItem], None]) -> Each | None:
    try:
        check(item)
    except ServerError as error:
        return error
    return None
