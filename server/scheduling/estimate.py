"""How far estimates of waiting times can be trusted, learned from what came."""

_SLOWEST_SHARE = 0.01  # of answers, whose waiting time is followed
_STEP = 0.05  # of the factor, for each answer
_MAX_FACTOR = 3.0
_LONG_SHARE = 0.25  # of the limit: shorter waits teach nothing about long ones


class LatencyQuantile:
    """How many times longer than estimated the slowest hundredth of answers take.

    A quantile that is followed by small steps: up where an answer took longer, down by a hundredth of that where it
    did not (Robbins and Monro 1951).
    """

    def __init__(self, limit_seconds: float) -> None:
        """Begin with the estimates as they are.

        Args:
            limit_seconds: Longest wait that is offered.
        """
        self._long_seconds = limit_seconds * _LONG_SHARE
        self.factor = 1.0

    def learn(self, estimate_seconds: float, seconds: float) -> None:
        """Compare an estimate with what came."""
        if estimate_seconds < self._long_seconds:
            return
        step = _STEP * (_SLOWEST_SHARE if seconds <= estimate_seconds * self.factor else _SLOWEST_SHARE - 1)
        self.factor = min(max(self.factor - step, 1.0), _MAX_FACTOR)
