"""A thread in simulated time that does one thing after the other: an event loop, or the callers'."""

from collections.abc import Callable

SOON = 1e-12  # seconds, which rounding leaves
_Task = tuple[float, Callable[[], None]]  # how long it takes, and what is done then


class Worker:
    """Works in turns: what comes meanwhile belongs to the next.

    Attributes:
        left_seconds: Of what it does now.
        worked_seconds: That it has worked so far.
    """

    def __init__(self) -> None:
        self._ready = list[_Task]()
        self._turn = list[_Task]()
        self.left_seconds = self.worked_seconds = 0.0

    def add(self, seconds: float, do: Callable[[], None]) -> None:
        """Let it do something, at once where it does nothing else."""
        if self._turn:
            self._ready.append((seconds, do))
        else:
            self._turn, self.left_seconds = [(seconds, do)], seconds

    def go_on(self, seconds: float) -> None:
        """Work for so long; see work."""
        if self._turn:
            self.left_seconds -= seconds
            self.worked_seconds += seconds

    @property
    def is_busy(self) -> bool:
        """Whether it has something to do."""
        return bool(self._turn)

    def work(self) -> None:
        """Do what is due now."""
        while self._turn and self.left_seconds <= SOON:
            _, do = self._turn.pop(0)
            do()
            self._begin()
        if self._ready and not self._turn:
            self._turn, self._ready = self._ready, []
            self._begin()

    def _begin(self) -> None:
        self.left_seconds = self._turn[0][0] if self._turn else 0.0
