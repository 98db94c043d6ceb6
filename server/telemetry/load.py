"""How busy the server is, as a balancer in front of several wants to know: means over the last two seconds."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from server.telemetry.metrics import Metrics

_TICK_SECONDS, _SECONDS = 0.1, 2.0  # between two looks at least, and how far back they go
_FAULTS = frozenset({"INTERNAL", "UNAVAILABLE", "UNKNOWN"})


@dataclass(frozen=True)
class Load:
    """How busy a server is.

    Attributes:
        queue_seconds: Estimated seconds of work that wait; what runs is not in it, as it is in the utilization.
        utilization: Share of the engine's instances that was busy, and as much more as there are seconds that wait:
            busy instances alone read the same at once and at ten times the load (docs/decisions.md, Scheduling).
        answers_per_second: Requests answered without an error.
        faults_per_second: Requests that ended in a fault of the server.
    """

    queue_seconds: float = 0.0
    utilization: float = 0.0
    answers_per_second: float = 0.0
    faults_per_second: float = 0.0


@dataclass(frozen=True)
class _Look:
    """What was seen at a moment: counts since the start, and what waited then."""

    seconds: float
    busy_seconds: float
    answers: float
    faults: float
    queue_seconds: float


class LoadMeter:
    """Looks when it is asked, ten times a second at most; lives in the event loop.

    Who asks seldom has means since the last time, and costs nothing meanwhile.
    """

    def __init__(
        self,
        metrics: Metrics,
        queue_seconds: Callable[[], float],
        running_seconds: Callable[[], float],
        instances: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look for the first time.

        Args:
            metrics: Where requests and what has run are counted.
            queue_seconds: Says how long what waits will wait.
            running_seconds: Says for how long all batches together have run that run now.
            instances: Says how many batches may run at a time.
            clock: Seconds.
        """
        self._metrics, self._clock = metrics, clock
        self._queue_seconds, self._running_seconds, self._instances = queue_seconds, running_seconds, instances
        self._looks = deque([self._look()])
        self._load = Load(queue_seconds=self._looks[0].queue_seconds)

    def read(self) -> Load:
        """Return how busy the server is; the same object until there is something new to say."""
        if self._clock() - self._looks[-1].seconds >= _TICK_SECONDS:
            self._looks.append(self._look())
            while len(self._looks) > 2 and self._looks[-1].seconds - self._looks[0].seconds > _SECONDS:
                self._looks.popleft()
            self._load = self._between(self._looks[0], self._looks[-1])
        return self._load

    def _look(self) -> _Look:
        requests = self._metrics.requests.of.items()
        return _Look(
            seconds=self._clock(),
            busy_seconds=sum(one.value for one in self._metrics.engine_seconds.of.values()) + self._running_seconds(),
            answers=sum(one.value for (_, _, code), one in requests if code == "OK"),
            faults=sum(one.value for (_, _, code), one in requests if code in _FAULTS),
            queue_seconds=self._queue_seconds(),
        )

    def _between(self, first: _Look, last: _Look) -> Load:
        seconds = last.seconds - first.seconds
        busy = max(last.busy_seconds - first.busy_seconds, 0.0) / seconds / (self._instances() or 1)
        queue_seconds = fmean(look.queue_seconds for look in self._looks)
        return Load(
            queue_seconds,
            busy + queue_seconds,
            (last.answers - first.answers) / seconds,
            (last.faults - first.faults) / seconds,
        )
