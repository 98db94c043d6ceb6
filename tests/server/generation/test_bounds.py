"""What a text that is written may cost before it is, and where that is spent."""

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import grpc
import numpy as np
import pytest

from artifact.dtypes import Array
from regard.v1 import regard_pb2 as api
from server import app
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.auth.clients import Client
from server.auth.quota import Quota
from server.config import EMBEDDED_MODELS
from server.context import RpcContext, Timings
from server.errors import TooBusy
from server.generation import generator
from server.generation.generator import Generator
from server.generation.steps import Steps
from server.generation.validation import GenerationLimits
from server.inference.workers import Workers
from server.ledger import Account, Ledger
from server.repository.limits import Usage
from server.repository.settings import ModelSettings
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.asking import refused, samples
from tests.server.conftest import Serve
from tests.server.fakes import scheduling
from tests.server.generation.fakes import GENERATION, FakeDecoder, make_writer
from tests.server.generation.test_group import make_group, make_writing

_NAMES = GENERATION.source_names


async def test_a_long_target_is_read_in_turns_and_at_its_clients_cost(start: Serve) -> None:
    """Where long texts are; a short one is not worth the way."""
    async with start(models=EMBEDDED_MODELS) as running:
        for target, is_charged in (("K " * 90, False), ("K " * 9000, True)):
            asked = running.stub.GenerateText(api.GenerateRequest(model="g2p", text="cat", target=target))
            assert await refused(asked, "target") == grpc.StatusCode.INVALID_ARGUMENT
            found = await samples(running)
            assert (found.get(("regard_client_decoding_seconds_total", "anyone"), 0.0) > 0) is is_charged


async def test_a_burst_of_texts_cannot_spend_a_second_twice() -> None:
    """What steps are expected to take is set aside of a quota, and what encoding took does not refuse this one."""
    quota = Quota("app", compute_seconds_per_second=0.001, clock=lambda: 0.0)
    context, stages = RpcContext(caller=Client("app", quota=quota)), Timings(compute_ns=4_000_000, batch_size=2)
    async with scheduling() as scheduler:
        group = make_group(scheduler)

        def reserve() -> float:
            return generator._reserve_steps(group, make_writing([1.0], context), 20, stages, context)

        quota.charge(0.0, 0.002)  # encoding
        seconds = reserve()
        assert seconds == group.steps.expected_seconds(1, 20) == pytest.approx(16 * 1e-4)
        with pytest.raises(TooBusy, match="app has used its quota"):
            reserve()
        quota.charge(seconds + 0.002, 0.0)
        quota.reserve(0.0)
        assert group.steps.expected_seconds(3, 5) == pytest.approx(3 * 5 * 1e-4)


@pytest.mark.parametrize("ends", ["itself", "cancelled", "no room"])
async def test_what_was_set_aside_of_a_quota_comes_back(
    start: Serve, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a text ends: in place of what it is charged for its steps, and the rest at the end."""
    set_aside, given_back = list[float](), list[float]()
    reserve, charge = Quota.reserve, Quota.charge

    def note_reserve(quota: Quota, seconds: float, spent_seconds: float = 0.0) -> None:
        set_aside.append(seconds)
        reserve(quota, seconds, spent_seconds)

    def note_charge(quota: Quota, reserved_seconds: float, seconds: float) -> None:
        given_back.append(reserved_seconds)
        charge(quota, reserved_seconds, seconds)

    monkeypatch.setattr(Quota, "reserve", note_reserve)
    monkeypatch.setattr(Quota, "charge", note_charge)
    if ends == "no room":
        monkeypatch.setattr(Steps, "more_bytes", Mock(side_effect=[0, TooBusy("no room", 1.0, "bytes")]))
    request = api.GenerateRequest(model="g2p", text="transformer")
    async with start(models=EMBEDDED_MODELS) as running:
        if ends == "cancelled":
            call = running.stub.Generate(request)
            assert [await call.read() for _ in range(2)]
            call.cancel()
        elif ends == "no room":
            await refused(running.stub.GenerateText(request), "no room")
        else:
            await running.stub.GenerateText(request)
    assert len(set_aside) == 2  # for the encoder's run, and for steps
    assert sum(given_back) == pytest.approx(sum(set_aside))


@pytest.mark.parametrize(
    ("place", "encoded"),
    [
        ((Steps, "more_bytes"), 0),
        ((Scheduler, "_admit"), 0),
        ((Generator, "_keep_source"), 1),
        ((Usage, "enter"), 1),
        ((Quota, "reserve"), 1),
    ],
)
async def test_who_is_refused_holds_nothing(
    start: Serve, place: tuple[type, str], encoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is encoded, where there is no room; it may take long to read that. Each is counted once."""
    held, refusal = list[int](), TooBusy("no room", 1.0, "bytes")
    effects = [None, refusal] if place[1] in ("enter", "reserve") else refusal  # the encoder is first
    monkeypatch.setattr(*place, Mock(side_effect=effects))
    monkeypatch.setattr(Account, "answer", lambda account: held.append(_held(account)))
    async with start(models=EMBEDDED_MODELS) as running:
        await refused(running.stub.GenerateText(api.GenerateRequest(model="g2p", text="transformer")), "no room")
        assert held == [0]
        found, asked = await samples(running), oip.ModelStatisticsRequest(name="g2p")
        (statistics,) = (await GRPCInferenceServiceStub(running.channel).ModelStatistics(asked)).model_stats
    assert found.get(("regard_batch_seconds_count", "plain", "g2p"), 0) == encoded
    assert statistics.inference_stats.fail.count == 1


def _held(account: Account) -> int:
    return sum(size_bytes for part, size_bytes in account._parts.items() if part not in ("call", "request"))


async def test_who_has_no_room_is_told_so_before_anything_is_encoded(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a flood would be refused only behind the encoder, others would wait for all that was encoded in vain."""
    ledgers, asked = list[Ledger](), api.GenerateRequest(model="g2p", text="a", max_tokens=63, num_beams=16)

    class Known(Ledger):
        def __init__(self, max_bytes: float) -> None:
            super().__init__(max_bytes)
            ledgers.append(self)

    monkeypatch.setattr(app, "Ledger", Known)
    async with start(models=EMBEDDED_MODELS, max_held_bytes=2**20) as running:
        await running.stub.GenerateText(asked)  # one alone may be as large as it is
        beside = Account(ledgers[0])
        beside.hold("request", 2**19)
        assert await refused(running.stub.GenerateText(asked), "--max-held-bytes") == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await samples(running))["regard_batch_seconds_count", "plain", "g2p"] == 1
        beside.close()


class Noting(Mapping[str, Array]):
    """Outputs that note which thread looks at them."""

    def __init__(self, outputs: dict[str, Array]) -> None:
        self._outputs, self.threads = outputs, set[int]()

    def __getitem__(self, name: str) -> Array:
        self.threads.add(threading.get_ident())
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


@pytest.mark.parametrize(("bound", "groups"), [(None, 6), (1, 2), (2, 4), (9, 6)])
async def test_rows_are_parted_among_as_many_groups_as_may_run(bound: int | None, groups: int) -> None:
    """On two devices of three instances each, of which a model's own settings may give it fewer."""
    model = make_writer()
    model.usage.settings = ModelSettings(instances=bound)
    engine: Any = SimpleNamespace(decoder=FakeDecoder.make())
    model = dataclasses.replace(model, engine=engine)
    async with scheduling() as scheduler:
        pipeline: Any = None
        writes = Generator(pipeline, scheduler, GenerationLimits(4), 3, 4, Metrics(), devices=2)
        writes._group_for(model)
        assert len(writes._groups[model]) == groups


async def test_the_number_of_groups_follows_a_models_settings() -> None:
    """They are read at every load; texts of a group that is one too many are written to their end."""
    engine: Any = SimpleNamespace(decoder=FakeDecoder.make())
    model = dataclasses.replace(make_writer(), engine=engine)
    async with scheduling() as scheduler:
        pipeline: Any = None
        writes = Generator(pipeline, scheduler, GenerationLimits(4), 3, 4, Metrics())
        for bound, groups in ((1, 1), (None, 3), (2, 3)):
            model.usage.settings = ModelSettings(instances=bound)
            writes._group_for(model)
            assert len(writes._groups[model]) == len(writes._all()) == groups
        first, second, third = writes._groups[model]
        for group in (first, second):
            group.steps._waiting.append(SimpleNamespace(num_rows=1))  # type: ignore[arg-type]
        assert writes._group_for(model) is not third


@pytest.mark.parametrize(("length", "is_inline"), [(8, True), (2**20, False)])
async def test_many_keys_and_values_are_copied_off_the_event_loop(length: int, *, is_inline: bool) -> None:
    """Those of half a minute of sound are 18 MB and more."""
    keys = np.zeros((1, 1, length, 1), np.float32)
    outputs = Noting(dict.fromkeys(_NAMES, keys))
    response: Any = SimpleNamespace(result=SimpleNamespace(size_bytes=2 * keys.nbytes, outputs=outputs))
    with ThreadPoolExecutor(1) as executor:
        pipeline: Any = SimpleNamespace(workers=Workers(executor))
        async with scheduling() as scheduler:
            writes = Generator(pipeline, scheduler, GenerationLimits(4), 1, 4, Metrics())
            kept = await writes._keep_source(GENERATION, response)
    assert (outputs.threads == {threading.get_ident()}) is is_inline
    assert all(one.base is None and one is not keys for one in kept)
