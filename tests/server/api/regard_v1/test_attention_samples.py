"""Sampled attention through a real server: answers stay as they are, and metrics are what whole maps say."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regard import Attention, Client
from server.config import EMBEDDED_MODELS
from tests.golden import GOLDEN_MODELS
from tests.server.asking import samples
from tests.server.conftest import Running, Serve

TEXTS = ["the cat sat on the mat", "a dog", "not one bad mat, not one bad dog"]
CLOTHING = sorted((Path(__file__).parents[4] / "examples" / "clothing").glob("*.png"))[:2]
ALWAYS = "sample_attention = 1\nmax_samples_per_second = 1000000\n"


@pytest.fixture
def sampled_folder(tmp_path: Path) -> Path:
    """Both models, with settings of their own."""
    for name, source in (("tiny-text", GOLDEN_MODELS), ("fashion", EMBEDDED_MODELS)):
        shutil.copytree(source / name, tmp_path / name)
        (tmp_path / name / "config.toml").write_text(ALWAYS)
    return tmp_path


def answers(address: str) -> list[Any]:
    """What callers get, with what they send one by one and together."""
    with Client(address) as client:
        vectors = [client.embed(text=text, model="tiny-text").vector for text in TEXTS]
        vectors += [one.vector for one in client.embed_many(texts=TEXTS, model="tiny-text")]
        labels = [client.classify(image=image, model="fashion").labels for image in CLOTHING]
    return [*(vector.tolist() for vector in vectors), *map(str, labels)]


def whole_maps(address: str) -> tuple[list[Attention], list[Attention]]:
    """Of each text, and of each picture."""
    with Client(address) as client:
        texts = [Attention.join(list(client.attend(text=text, model="tiny-text"))) for text in TEXTS]
        return texts, [Attention.join(list(client.attend(image=image, model="fashion"))) for image in CLOTHING]


async def settled(running: Running, name: str, count: int) -> dict[tuple[str, ...], float]:
    """The metrics once so many inputs of a model were sampled."""
    async with asyncio.timeout(60):
        while True:
            found = await samples(running)
            if found.get(("regard_attention_samples_total", name), 0) >= count:
                return found


def numbers(weights: Any, apart: Any, longest: float, first: int = 0) -> dict[str, float]:
    """Entropy, sink and distance of one layer, [heads, N, N], by their definitions."""
    weights = np.asarray(weights, dtype=np.float64)
    seen = weights[:, first:, first:] / weights[:, first:, first:].sum(-1, keepdims=True)
    entropy = -(weights * np.log(np.maximum(weights, 1e-30))).sum(-1).mean()
    return {
        "entropy": float(entropy / np.log(weights.shape[-1])),
        "sink": float(weights.mean(axis=1).max(axis=-1).mean()),
        "distance": float((seen * apart).sum(-1).mean() / longest),
    }


async def test_metrics_are_what_whole_maps_say_and_answers_stay_as_they_are(start: Serve, sampled_folder: Path) -> None:
    """Of texts and pictures; the plain server samples nothing, and runs no graph for attention."""
    async with start() as plain:
        expected = await asyncio.to_thread(answers, plain.started.address)
        found = await samples(plain)
        assert not any(name.startswith("regard_attention_samples") for name, *_ in found)
        assert {key[1] for key in found if key[0] == "regard_engine_seconds_total"} == {"plain"}
        texts, pictures = await asyncio.to_thread(whole_maps, plain.started.address)
    async with start(models=sampled_folder) as running:
        given = await asyncio.to_thread(answers, running.started.address)
        await settled(running, "fashion", len(CLOTHING))
        found = await settled(running, "tiny-text", 2 * len(TEXTS))
    assert given == expected
    for model, kind, maps, times in (("tiny-text", "text", texts, 2), ("fashion", "image", pictures, 1)):
        for layer in maps[0].layers:
            known = [_known(one, layer.layer) for one in maps]
            for name in ("entropy", "sink", "distance"):
                labels = (kind, str(layer.layer), model)
                assert found[f"regard_attention_{name}_ratio_count", *labels] == times * len(maps)
                total = times * sum(one[name] for one in known)
                assert found[f"regard_attention_{name}_ratio_sum", *labels] == pytest.approx(total, abs=1e-4), name


def _known(attention: Attention, layer: int) -> dict[str, float]:
    weights = attention.layer(layer).weights
    weights = weights[0] if weights.ndim == 4 else weights
    if (grid := attention.patches) is None:
        places = np.arange(weights.shape[-1])[:, None].astype(float)
        return numbers(weights, np.abs(places - places.T), len(places) - 1)
    places = np.stack(np.divmod(np.arange(grid.rows * grid.cols), grid.cols), axis=-1) * float(grid.patch_size)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    return numbers(weights, apart, float(apart.max()), grid.prefix_tokens)
