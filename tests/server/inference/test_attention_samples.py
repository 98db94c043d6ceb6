"""Attention of some inputs as metrics: chosen by chance, computed behind everything else, counted exactly."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.contract import Contract, PatchContract
from artifact.dtypes import Array
from server.attention.planning import AttentionLimits
from server.attention.request import AttentionRequest
from server.auth.clients import Client
from server.context import RpcContext, Timings
from server.inference.attention_samples import AttentionSamples
from server.inference.request import InferenceRequest, InferenceResponse, PreparedInput, Tensors
from server.inference.workers import Workers
from server.repository.limits import Usage
from server.repository.loading import LoadedModel
from server.repository.settings import ModelSettings
from server.scheduling.batch import Result
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.fakes import CONTRACT, Clock, GatedGraph, SumGraph, make_item, make_model, occupy, scheduling

ALWAYS = ModelSettings(sample_attention=1, max_samples_per_second=1e6)
IDS = np.array([[2, 7, 9, 3], [5, 6, 0, 0]], dtype=np.int64)
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=np.int64)


class Attending(SumGraph):
    """A tapped graph whose attention depends on the tokens alone: the softmax of their products."""

    can_use_all_threads = True  # which would leave no instance to callers

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        """Give the weights of four heads."""
        assert not all_threads
        self.batches.append(inputs["input_ids"][0].tolist())
        return {name: attend(inputs["input_ids"], int(name[-1])) for name in names}


def attend(ids: NDArray[np.int64], layer: int) -> NDArray[np.float32]:
    """[B, 4, N, N]."""
    scores = np.sin(ids[:, None, :, None] * ids[:, None, None, :] * (1 + np.arange(4) + layer)[:, None, None])
    weights = np.exp(scores)
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), dtype=np.float32)


class Sampling:
    """Samples of one model, on a scheduler that runs."""

    def __init__(self, scheduler: Scheduler, metrics: Metrics, workers: Workers, **how: Any) -> None:
        self.scheduler, self.metrics, self.tapped, self.plain = scheduler, metrics, Attending(), GatedGraph()
        self.plain.can_use_all_threads = False
        limits = AttentionLimits(10**6, 10**6)
        self.samples = AttentionSamples(scheduler.compute_spare, workers, limits, metrics, **how)

    def model(self, settings: ModelSettings = ALWAYS, contract: Contract = CONTRACT) -> LoadedModel:
        """One whose graphs are known."""
        engine = SimpleNamespace(plain=self.plain, tapped=self.tapped)
        return make_model(contract, engine=engine, usage=Usage(settings))

    def answered(
        self,
        model: LoadedModel | None = None,
        ids: NDArray[np.int64] = IDS[:1],
        mask: NDArray[np.int64] = MASK,
        **how: Any,
    ) -> None:
        """Say that a request was answered."""
        model, caller = model or self.model(), how.pop("caller", Client("alice"))
        prepared = PreparedInput({"input_ids": ids, "attention_mask": mask[: len(ids)]}, len(ids), ids.shape[1])
        request = InferenceRequest(model, Tensors({}), ("embedding",), **how)
        response = InferenceResponse(model, prepared, None, Result({}, {}), Timings())
        self.samples.take(request, response, RpcContext(caller=caller))

    async def done(self) -> None:
        """Wait until nothing is sampled any more."""
        while self.samples._waiting:
            await asyncio.wait(self.samples._waiting)

    def count(self, name: str, **labels: str) -> float:
        """A figure of the metrics."""
        return (
            self.metrics.registry.get_sample_value(f"regard_attention_{name}", {"model": "tiny-text", **labels}) or 0.0
        )

    def dropped(self, reason: str) -> float:
        """How many were, for that."""
        return self.count("samples_dropped_total", reason=reason)


@asynccontextmanager
async def sampling(**how: Any) -> AsyncIterator[Sampling]:
    """Take samples: with chance 0, all that may be taken are."""
    metrics = Metrics()
    with ThreadPoolExecutor(1) as executor:
        async with scheduling(metrics=metrics, instances=how.pop("instances", 2)) as scheduler:
            yield Sampling(scheduler, metrics, Workers(executor), **({"chance": lambda: 0.0} | how))


def drawing(*numbers: float) -> Callable[[], float]:
    """Give these one after the other."""
    left: Iterator[float] = iter(numbers)
    return lambda: next(left)


def expected(ids: NDArray[np.int64], layer: int) -> dict[str, float]:
    """What is counted of one input, from its whole maps in float64."""
    weights = attend(ids, layer)[0].astype(np.float64)
    count = len(ids[0])
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return {
        "entropy": float((-weights * np.log(weights)).sum(-1).mean() / np.log(count)),
        "sink": float(weights.mean(axis=1).max(axis=-1).mean()),
        "distance": float((weights * apart).sum(-1).mean() / (count - 1)),
    }


async def test_what_is_counted_is_what_whole_maps_say_mean_over_heads() -> None:
    """Layer by layer, of a row without its padding."""
    async with sampling() as found:
        found.answered(ids=IDS)
        await found.done()
        assert found.tapped.batches == [[2, 7, 9, 3], [5, 6]]
        for layer in (0, 1):
            rows = [expected(IDS[:1], layer), expected(IDS[1:, :2], layer)]
            for name in ("entropy", "sink", "distance"):
                labels = {"input": "text", "layer": str(layer)}
                assert found.count(f"{name}_ratio_count", **labels) == 2
                total = found.count(f"{name}_ratio_sum", **labels)
                assert total == pytest.approx(sum(row[name] for row in rows), abs=1e-6), name
        assert found.count("samples_total") == 2


async def test_inputs_are_chosen_by_chance_each_and_no_more_than_so_many_a_second() -> None:
    """Of a share of a quarter those whose number lies below it."""
    clock = Clock()
    settings = ModelSettings(sample_attention=0.25, max_samples_per_second=2)
    async with sampling(chance=drawing(0.3, 0.2, 0.25, 0.24, 0.1), clock=clock) as found:
        model = found.model(settings)
        for _ in range(4):
            found.answered(model)
        await found.done()
        assert (found.count("samples_total"), found.dropped("rate")) == (1, 1)  # the second; the fourth came too soon
        clock.now += 0.5
        found.answered(model)
        await found.done()
        assert (found.count("samples_total"), found.dropped("rate")) == (2, 1)


@pytest.mark.parametrize(
    "how",
    [
        {"settings": ModelSettings()},
        {"caller": Client("private", sample=False)},
        {"attention": AttentionRequest()},
        {"contract": CONTRACT.model_copy(update={"attention": ()})},
    ],
    ids=["off", "not permitted", "asked for attention", "exported without"],
)
async def test_nothing_is_sampled_or_run_where_that_is_not_wanted(how: dict[str, Any]) -> None:
    """Not even drawn."""
    async with sampling(chance=drawing()) as found:
        model = found.model(how.pop("settings", ALWAYS), how.pop("contract", CONTRACT))
        found.answered(model, **how)
        assert not found.samples._waiting
        assert found.tapped.batches == []


async def test_samples_wait_for_an_engine_that_does_nothing_else_and_few_of_them_do() -> None:
    """Though an instance is free, while a caller's batch runs on another."""
    async with sampling() as found:
        running = await occupy(found.scheduler, found.plain)
        for _ in range(9):
            found.answered()
        await asyncio.sleep(0)
        assert (len(found.samples._waiting), found.dropped("busy")) == (8, 1)
        answered = asyncio.create_task(found.scheduler.submit(make_item(SumGraph())))
        await answered  # it came later, and went first
        assert found.tapped.batches == []
        found.plain.gate.set()
        await running
        await found.done()
        assert (len(found.tapped.batches), found.count("samples_total")) == (8, 8)


async def test_samples_that_waited_too_long_or_are_too_large_are_dropped() -> None:
    """And keep nothing."""
    async with sampling() as found:
        running = await occupy(found.scheduler, found.plain)
        found.samples._max_wait_seconds = 0.0
        found.answered()
        await found.done()
        assert found.dropped("busy") == 1
        large = np.ones((1, 600), dtype=np.int64)
        found.answered(ids=large, mask=large)
        await found.done()
        assert found.dropped("refused") == 1  # its weights would be more than may be computed
        found.plain.gate.set()
        await running
    assert found.tapped.batches == []


async def test_samples_that_hold_too_many_bytes_together_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has 64 bytes."""
    monkeypatch.setattr("server.inference.attention_samples._MAX_WAITING_BYTES", 100)
    async with sampling() as found:
        found.answered()
        found.answered()
        await found.done()
        assert (found.count("samples_total"), found.dropped("busy")) == (1, 1)


async def test_a_sample_that_fails_is_counted_and_nobody_else_notices() -> None:
    """Nor does one whose server stops."""
    async with sampling() as found:
        found.tapped.run = _fail  # type: ignore[method-assign]
        found.answered()
        await found.done()
        assert found.dropped("failed") == 1
        found.scheduler.refuse_waiting()
        found.answered()
        await found.done()
        assert found.dropped("failed") == 2


async def test_numbers_that_are_none_are_not_counted() -> None:
    """One of them would make the sum of all that come none."""

    def overflow(inputs: Mapping[str, Array], names: Sequence[str], **_: object) -> dict[str, Array]:
        return {name: attend(inputs["input_ids"], 0) * np.float32(np.nan) for name in names}

    async with sampling() as found:
        found.tapped.run = overflow  # type: ignore[method-assign]
        found.answered()
        await found.done()
        assert found.count("entropy_ratio_count", input="text", layer="0") == 0
        assert found.count("samples_total") == 1


async def test_a_padded_row_of_a_fixed_size_is_refused() -> None:
    """Its padding would be counted as rows."""
    inputs = tuple(spec.model_copy(update={"axes": ("batch", 4)}) for spec in CONTRACT.inputs)
    async with sampling() as found:
        found.answered(found.model(contract=CONTRACT.model_copy(update={"inputs": inputs})), ids=IDS)
        await found.done()
        assert (found.count("samples_total"), found.dropped("refused")) == (1, 1)


async def test_patches_are_as_far_apart_as_the_corners_of_their_grid_at_most() -> None:
    """Two rows of two, 14 pixels each, without a prefix."""
    grid = PatchContract(prefix_tokens=0, rows=2, cols=2, patch_size=14)
    async with sampling() as found:
        found.answered(found.model(contract=CONTRACT.model_copy(update={"patches": grid})))
        await found.done()
        places = np.stack(np.divmod(np.arange(4), 2), axis=-1) * 14.0
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        mean = (attend(IDS[:1], 0)[0] * apart).sum(-1).mean() / np.hypot(14, 14)
        assert found.count("distance_ratio_sum", input="text", layer="0") == pytest.approx(mean, abs=1e-6)


async def test_layers_have_the_statistics_that_they_can_have() -> None:
    """Cross-attention has no distance, windows have entropy alone, and mixed heads nothing."""
    first, second = CONTRACT.attention
    windows = SimpleNamespace(is_whole=False)
    changes: list[dict[str, Any]] = [{"kind": "cross"}, {"mixes_heads": True}, {"window": windows}]
    layers = tuple(one.model_copy(update=how) for one, how in zip((first, second, second), changes, strict=True))
    async with sampling() as found:
        found.answered(found.model(contract=CONTRACT.model_copy(update={"attention": layers})))
        await found.done()
        counted = {
            (name, layer): found.count(f"{name}_ratio_count", input="text", layer=layer)
            for name in ("entropy", "sink", "distance")
            for layer in ("0", "1", "2")
        }
        assert {key for key, count in counted.items() if count} == {("entropy", "0"), ("sink", "0"), ("entropy", "2")}


def _fail(*_: object, **__: object) -> dict[str, Array]:
    raise RuntimeError("broken")
