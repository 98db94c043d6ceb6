"""Chaos: requests come, hang up, fail, run late and are refused in any order; every one is accounted for once."""

import asyncio
import time

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.engine.cost import CostModel
from server.errors import ServerError
from server.scheduling.admission import Admission
from server.scheduling.batch import BatchLimits, Result
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.fakes import CONTRACT, POISON, SumGraph, make_item

OTHER = CONTRACT.model_copy(update={"name": "other"})
CODES = ("resource_exhausted", "deadline_exceeded", "unavailable", "internal")


class Chaos(RuleBasedStateMachine):
    """Drives one scheduler of two instances."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.metrics, self.graph = Metrics(), SumGraph(CostModel(run_seconds=0.001))
        self.short = SumGraph(CostModel(run_seconds=0.0001))
        self.scheduler = Scheduler(BatchLimits(4, 64, 10**6), Admission(5, 10**4, 1.0), 2, self.metrics)
        self.tasks: dict[asyncio.Task[Result], int] = {}
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.scheduler.start()

    async def _settle(self) -> None:
        await asyncio.gather(*self.tasks, return_exceptions=True)

    @rule(
        value=st.sampled_from((1, 2, 3, POISON)),
        priority=st.integers(1, 3),
        remaining=st.sampled_from((None, None, -1.0, 0.0005, 0.002, 1.0)),
        count=st.integers(1, 4),
        begins=st.booleans(),
        short=st.booleans(),
    )
    def submit(self, value: int, priority: int, remaining: float | None, count: int, begins: bool, short: bool) -> None:
        """Requests come, with or without a deadline; the event loop sees them now or later."""
        deadline = None if remaining is None else time.monotonic() + remaining
        for _ in range(count):
            item = make_item(self.short if short else self.graph, value, deadline=deadline, priority=priority)
            if short:
                item.contract = OTHER
            self.tasks[self.loop.create_task(self.scheduler.submit(item))] = value
        if begins:
            self.go_on(1)

    @rule(which=st.integers(0, 50))
    def hang_up(self, which: int) -> None:
        """One of the callers goes away."""
        pending = [task for task in self.tasks if not task.done()]
        if pending:
            pending[which % len(pending)].cancel()

    @rule(turns=st.integers(1, 4))
    def turn(self, turns: int) -> None:
        """The event loop runs for some turns."""
        self.go_on(turns)

    def go_on(self, turns: int) -> None:
        """Let the event loop run for some turns."""
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def finish(self) -> None:
        """Everything that was asked is answered."""
        self.loop.run_until_complete(self._settle())

    @invariant()
    def answers_are_right(self) -> None:
        """Nobody gets another's answer, and only poison fails."""
        for task, value in self.tasks.items():
            if not task.done() or task.cancelled():
                continue
            error = task.exception()
            if error is None:
                assert task.result().outputs["embedding"][0, 0] == 4 * value
            else:
                assert isinstance(error, ServerError)
                assert error.code.name != "INTERNAL" or value == POISON

    def teardown(self) -> None:
        """Received is computed, cancelled, refused and failed together, each as the callers saw it."""
        self.finish()
        seen = dict.fromkeys(("computed", "cancelled", *CODES), 0)
        for task in self.tasks:
            error = None if task.cancelled() else task.exception()
            name = error.code.name.lower() if isinstance(error, ServerError) else "computed"
            seen["cancelled" if task.cancelled() else name] += 1
        sample = self.metrics.registry.get_sample_value
        counted = {name: sample("regard_scheduler_outcomes_total", {"outcome": name}) or 0 for name in seen}
        started = sample("regard_scheduler_received_total") or 0
        assert started == sum(counted.values())
        # A task that was cancelled before its first turn never reached the scheduler.
        assert {**counted, "cancelled": 0} == {**seen, "cancelled": 0}
        assert counted["cancelled"] <= seen["cancelled"]
        self.loop.run_until_complete(self.scheduler.close())
        self.loop.close()


Chaos.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestChaos = Chaos.TestCase
