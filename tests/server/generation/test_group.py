"""Turns through the real scheduler: tokens reach whoever waits for them, and others get theirs meanwhile."""

import asyncio

import pytest

from server.auth.clients import Client
from server.auth.quota import Quota
from server.context import RpcContext
from server.errors import InternalFault, ShuttingDown
from server.generation.group import Group
from server.generation.group import tokens_of as written
from server.generation.writing import StraightWriting
from server.ledger import Account, Ledger
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.fakes import CONTRACT, EchoGraph, make_item, scheduling
from tests.server.generation.fakes import FakeDecoder, letters, source_of
from tests.server.generation.test_steps import greedy, plan_of, tokens_of

METRICS = Metrics()


def make_group(scheduler: Scheduler, decoder: FakeDecoder | None = None) -> Group:
    """Make a group of four rows."""
    return Group(CONTRACT, decoder or FakeDecoder(), scheduler, 4, METRICS)  # type: ignore[arg-type]


def make_writing(source: list[float], context: RpcContext | None = None) -> StraightWriting:
    """Make a text of one row."""
    return StraightWriting(plan_of(), source_of(source), letters(), context or RpcContext(), streams=True)


async def write(group: Group, writing: StraightWriting) -> list[int]:
    """Let a text be written; returns its tokens as they came."""
    group.join(writing)
    return [token.token async for token in written(writing)]


async def test_all_who_wait_get_their_own_tokens() -> None:
    """More than there are rows, some of which come when others have begun."""
    async with scheduling() as scheduler:
        group = make_group(scheduler)
        writings = [make_writing([float(number)]) for number in range(10)]
        found = await asyncio.gather(*(write(group, writing) for writing in writings))
        assert list(found) == [greedy([float(number)]) for number in range(10)]
        assert list(found) == [tokens_of(writing) for writing in writings]
        assert await write(group, make_writing([3.5])) == greedy([3.5])


async def test_other_requests_are_computed_between_steps() -> None:
    """They need not wait for the end of any text."""
    async with scheduling() as scheduler:
        group = make_group(scheduler)
        writing = make_writing([8.0])
        task = asyncio.create_task(write(group, writing))
        await asyncio.sleep(0)
        result = await scheduler.submit(make_item(EchoGraph(), 1))
        assert result.batch_size == 1
        assert await task == greedy([8.0])


async def test_what_a_turn_took_is_charged_to_those_whose_rows_it_wrote() -> None:
    """Quota and metric alike; nobody else appears."""
    charged = list[float]()

    class Noting(Quota):
        """Notes what it is charged."""

        def charge(self, reserved_seconds: float, seconds: float) -> None:
            charged.append(seconds)

    metrics = Metrics()
    async with scheduling(metrics=metrics) as scheduler:
        context = RpcContext(caller=Client("alice", quota=Noting("alice")))
        await write(make_group(scheduler), make_writing([1.0], context))
    samples = [sample for metric in metrics.registry.collect() for sample in metric.samples]
    counted = {
        sample.labels["client"]: sample.value
        for sample in samples
        if sample.name == "regard_client_compute_seconds_total"
    }
    assert sum(charged) > 0
    assert counted == {"alice": pytest.approx(sum(charged))}


async def test_a_server_that_stops_says_so() -> None:
    """Whoever waits is told UNAVAILABLE, not left."""
    async with scheduling() as scheduler:
        group = make_group(scheduler)
        scheduler.refuse_waiting()
        with pytest.raises(ShuttingDown):
            await write(group, make_writing([1.0]))
        assert group.steps.all == []


async def test_whoever_waits_is_told_of_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left waiting, and those who come later are answered."""
    async with scheduling() as scheduler:
        group = make_group(scheduler)
        with monkeypatch.context() as patch:
            patch.setattr("server.generation.group.make_turn", lambda steps, contract: 1 / 0)
            with pytest.raises(InternalFault):
                await write(group, make_writing([1.0]))
        assert await write(group, make_writing([1.0])) == greedy([1.0])


async def test_nobody_asks_for_turns_of_a_server_that_has_given_up() -> None:
    """Though a step hangs, and its texts cannot be let go of: the event loop is not held."""
    async with scheduling() as scheduler:
        group = make_group(scheduler)
        group.steps._is_running = True  # as while a step hangs
        scheduler.refuse_waiting()
        with pytest.raises(ShuttingDown):
            await asyncio.wait_for(write(group, make_writing([1.0])), 10)
        await asyncio.wait_for(asyncio.sleep(0), 10)
        assert group._driving is None


async def test_a_text_counts_as_a_request_until_it_is_written_and_then_as_one_to_be_read() -> None:
    """Whether its caller reads or not, it takes a place in the server only while it is computed."""
    ledger = Ledger()
    async with scheduling() as scheduler:
        context = RpcContext(account=Account(ledger))
        context.account.accept()
        writing = make_writing([1.0], context)
        make_group(scheduler).join(writing)
        while not ledger.unread:
            assert (ledger.requests, ledger.unread) == (1, 0)
            await asyncio.wait_for(writing.news.wait(), 30)
            writing.news.clear()
        assert writing.is_over
        assert tokens_of(writing) == greedy([1.0])
    context.account.close()
    assert (ledger.requests, ledger.unread) == (0, 0)
