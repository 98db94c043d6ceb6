from collections.abc import Sequence
from dataclasses import dataclass

from server.scheduling.watchdog import watch_engine


@dataclass(eq=False)
class Run:
    """A run that should take so long."""

    expected_seconds: float = 0.1


class Fake:
    """An engine whose instances run what the test says, one look after the other."""

    def __init__(self, *looks: Sequence[Run], lost: str = "") -> None:
        self.looks = list(looks)
        self.lost_at_the_end = lost

    def running(self) -> Sequence[Run]:
        return self.looks.pop(0)

    @property
    def lost(self) -> str:
        return "" if self.looks else self.lost_at_the_end


async def no_pause(seconds: float) -> None:
    """The test's time does not pass."""


async def test_a_run_that_is_seen_too_often_has_hung() -> None:
    """A look every second, or every tenth of a limit that is shorter than ten."""
    for limit_seconds, looks in ((60, 61), (5, 11)):
        slow, quick = Run(), [Run() for _ in range(100)]
        engine = Fake(*([slow, one] for one in quick))
        found = await watch_engine(engine, limit_seconds, no_pause)
        assert found == f"a run has taken longer than {limit_seconds} s (--watchdog-seconds)"
        assert len(engine.looks) == 100 - looks


async def test_runs_that_end_in_time_are_no_fault() -> None:
    """However many there are, one behind the other."""
    engine = Fake(*([Run()] for _ in range(1000)), lost="the test is over")
    assert await watch_engine(engine, 60, no_pause) == "the test is over"


async def test_without_a_limit_a_run_takes_as_long_as_it_likes() -> None:
    """An instance that has ended is seen all the same."""
    run = Run()
    engine = Fake(*([run] for _ in range(1000)), lost="an instance of the engine has ended")
    assert await watch_engine(engine, 0, no_pause) == "an instance of the engine has ended"


async def test_a_run_that_was_expected_to_take_long_has_not_hung() -> None:
    """Twenty seconds were expected: it has ten times as long, where others have sixty seconds."""
    long = Run(expected_seconds=20)
    engine = Fake(*([long] for _ in range(1000)))
    found = await watch_engine(engine, 60, no_pause)
    assert found == "a run has taken longer than 200 s (--watchdog-seconds)"
    assert len(engine.looks) == 1000 - 201


async def test_a_hung_run_is_found_beside_a_long_one() -> None:
    """Each has its own limit."""
    long, hung = Run(expected_seconds=20), Run()
    engine = Fake(*([long, hung] for _ in range(1000)))
    assert await watch_engine(engine, 60, no_pause) == "a run has taken longer than 60 s (--watchdog-seconds)"
