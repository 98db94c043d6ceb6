"""How far estimates of waiting times can be trusted, learned from what came."""

import heapq
from collections import deque
from collections.abc import Iterable

_ANSWERS = 1024  # the newest, of which the slowest tell
_SLOWEST_SHARE = 0.01  # of these, which may take longer than is offered
_LONG_SHARE = 0.25  # of the limit: shorter waits teach nothing about long ones
MAX_SHARE = 0.5  # of the limit, so that something is admitted whatever was learned


class LatencyMargin:
    """How much longer than estimated the slowest hundredth of answers take.

    Seconds to be added, not a factor: most of it is the run in flight, and the noise of a run, whatever waits before.
    """

    def __init__(self, limit_seconds: float) -> None:
        """Begin with the estimates as they are.

        Args:
            limit_seconds: Longest wait that is offered.
        """
        self._limit_seconds = limit_seconds
        self._late_seconds: deque[float] = deque(maxlen=_ANSWERS)
        self.seconds = 0.0

    def learn(self, answers: Iterable[tuple[float, float]]) -> None:
        """Compare estimates with what came.

        Args:
            answers: The estimate of each, and what it took, in seconds.
        """
        least = self._limit_seconds * _LONG_SHARE
        late = [seconds - estimate for estimate, seconds in answers if estimate >= least]
        if not late:
            return
        self._late_seconds.extend(late)
        slowest = heapq.nlargest(int(len(self._late_seconds) * _SLOWEST_SHARE) + 1, self._late_seconds)
        self.seconds = min(max(slowest[-1], 0.0), self._limit_seconds * MAX_SHARE)
