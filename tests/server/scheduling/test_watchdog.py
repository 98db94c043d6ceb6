from collections.abc import Sequence

from server.scheduling.watchdog import watch_engine


class Fake:
    """An engine whose instances run what the test says, one look after the other."""

    def __init__(self, *looks: Sequence[object], lost: str = "") -> None:
        self.looks = list(looks)
        self.lost_at_the_end = lost

    def running(self) -> Sequence[object]:
        return self.looks.pop(0)

    @property
    def lost(self) -> str:
        return "" if self.looks else self.lost_at_the_end


async def no_pause(seconds: float) -> None:
    """The test's time does not pass."""


async def test_a_run_that_is_seen_too_often_has_hung() -> None:
    """A look every second, or every tenth of a limit that is shorter than ten."""
    for limit_seconds, looks in ((60, 61), (5, 11)):
        slow, quick = object(), [object() for _ in range(100)]
        engine = Fake(*([slow, one] for one in quick))
        found = await watch_engine(engine, limit_seconds, no_pause)
        assert found == f"a run has taken longer than {limit_seconds} s (--watchdog-seconds)"
        assert len(engine.looks) == 100 - looks


async def test_runs_that_end_in_time_are_no_fault() -> None:
    """However many there are, one behind the other."""
    engine = Fake(*([object()] for _ in range(1000)), lost="the test is over")
    assert await watch_engine(engine, 60, no_pause) == "the test is over"


async def test_without_a_limit_a_run_takes_as_long_as_it_likes() -> None:
    """An instance that has ended is seen all the same."""
    run = object()
    engine = Fake(*([run] for _ in range(1000)), lost="an instance of the engine has ended")
    assert await watch_engine(engine, 0, no_pause) == "an instance of the engine has ended"
