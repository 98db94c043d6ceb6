"""How much one client may ask: token buckets of requests and of the time that they take."""

import time
from collections.abc import Callable

from server.errors import TooBusy


class Quota:
    """What a client has left; lives in the event loop.

    A request is let in while something is left of both. What it is expected to cost is reserved until what it cost is
    known; both may go below nothing by one request, and then nobody is let in until it has come back.
    """

    def __init__(
        self,
        name: str,
        requests_per_second: float | None = None,
        compute_seconds_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with a full second's worth.

        Args:
            name: The client's, for messages.
            requests_per_second: None for no limit.
            compute_seconds_per_second: Of all instances together, and of the threads that decode; likewise.
            clock: Seconds.
        """
        self.rates = requests_per_second, compute_seconds_per_second
        self._name = name
        self._requests: _Bucket | None = None
        self._seconds: _Bucket | None = None
        if requests_per_second:
            self._requests = _Bucket(requests_per_second, max(requests_per_second, 1.0), clock)
        if compute_seconds_per_second:
            self._seconds = _Bucket(compute_seconds_per_second, compute_seconds_per_second, clock)

    def admit(self) -> None:
        """Count a request.

        Raises:
            TooBusy: The client has used what it may; says when to come back.
        """
        if self._requests:
            self._check(self._requests, "requests", 1.0)
        if self._seconds:
            self._check(self._seconds, "seconds of the engine", 0.0)
        if self._requests:
            self._requests.take(1.0)

    def count(self, requests: int) -> None:
        """Count further requests of one that was admitted, as many as it has inputs besides the first."""
        if self._requests:
            self._requests.take(float(requests))

    def reserve(self, seconds: float, spent_seconds: float = 0.0) -> None:
        """Set aside what a request is expected to take, so that a burst cannot spend a second twice.

        Args:
            seconds: Of the engine, or of decoding.
            spent_seconds: What this very request was charged before, which does not refuse it now.

        Raises:
            TooBusy: As for admit; others of the client may have been let in meanwhile.
        """
        if self._seconds:
            self._check(self._seconds, "seconds of the engine", -spent_seconds)
            self._seconds.take(seconds)

    def charge(self, reserved_seconds: float, seconds: float) -> None:
        """Replace what was reserved by what the request really took, nothing where it never ran."""
        if self._seconds:
            self._seconds.take(seconds - reserved_seconds)

    def _check(self, bucket: "_Bucket", what: str, needed: float) -> None:
        if (wait_seconds := bucket.wait_seconds(needed)) > 0:
            message = f"{self._name} has used its quota of {bucket.rate:g} {what} a second"
            raise TooBusy(message, wait_seconds, "quota")


class _Bucket:
    def __init__(self, rate: float, capacity: float, clock: Callable[[], float]) -> None:
        self.rate = rate
        self._clock = clock
        self._capacity = capacity
        self._left, self._at = capacity, clock()

    def wait_seconds(self, needed: float) -> float:
        """Say how long until so much is there; 0 or less where it is."""
        now = self._clock()
        self._left, self._at = min(self._capacity, self._left + (now - self._at) * self.rate), now
        return (needed - self._left) / self.rate

    def take(self, amount: float) -> None:
        self._left -= amount
