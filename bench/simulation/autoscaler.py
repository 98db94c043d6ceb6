"""Kubernetes' HorizontalPodAutoscaler in simulated time, by the seconds of work that wait before each replica."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_TOLERANCE = 0.1  # of the target, within which nothing is changed
_GROWTH, _GROWTH_SECONDS = 2.0, 60.0  # times as many replicas within so long, by deploy/kubernetes/base/regard.yaml


@dataclass
class Autoscaler:
    """Adds replicas and takes none away, as deploy/kubernetes/base/regard.yaml does for ten minutes.

    What has not started counts as a replica without a queue. The rule is in Kubernetes' documentation, Horizontal Pod
    Autoscaling, Algorithm details.

    Attributes:
        start_seconds: From the decision until a replica answers: a node, the image, the model, the warm-up.
        max_replicas: Never more.
        target_seconds: Of work that waits before each.
        sync_seconds: Between two looks.
        window_seconds: Over which the metric is a mean.
    """

    start_seconds: float
    max_replicas: int = 10
    target_seconds: float = 0.5
    sync_seconds: float = 15.0
    window_seconds: float = 60.0
    _seen: deque[Sequence[float]] = field(default_factory=deque, init=False)
    _counts: deque[tuple[float, int]] = field(default_factory=deque, init=False)

    def wanted(self, now: float, queue_seconds: Sequence[float], starting: int) -> int:
        """Say how many replicas there should be.

        Args:
            now: In seconds.
            queue_seconds: What the metric says now, of each that has started, in their order.
            starting: How many more were asked for.
        """
        self._seen.append(queue_seconds)
        while len(self._seen) > max(self.window_seconds / self.sync_seconds, 1):
            self._seen.popleft()
        count = len(queue_seconds) + starting
        self._counts.append((now, count))
        while self._counts[0][0] < now - _GROWTH_SECONDS:
            self._counts.popleft()
        waiting = sum(self._mean(number) for number in range(len(queue_seconds)))
        if waiting <= count * self.target_seconds * (1 + _TOLERANCE):
            return count
        most = min(self.max_replicas, math.floor(_GROWTH * min(count for _, count in self._counts)))
        return max(count, min(most, math.ceil(waiting / self.target_seconds)))

    def _mean(self, number: int) -> float:
        values = [seen[number] for seen in self._seen if number < len(seen)]
        return sum(values) / len(values)
