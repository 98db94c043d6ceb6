"""A study through a real server: what is counted there equals what is counted here, of maps that were fetched."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from artifact.contract import PatchContract
from regard import Attention, Client
from regard.study import Study
from tests.server.attention.detector import by_definition, detected
from tests.server.conftest import Running

TEXTS = [
    "the cat sat on the mat and the cat sat on the dog",
    "a dog",
    "a good film was a good film was a good film",
    "not one bad mat, not one bad dog",
]
CLOTHING = sorted((Path(__file__).parents[4] / "examples" / "clothing").glob("*.png"))
TOLERANCE = 1e-5


def studied(address: str, path: Path, **asked: Any) -> tuple[Study, list[Attention]]:
    """Study inputs, and fetch the maps of each."""
    kind = "images" if "images" in asked else "texts"
    with Client(address) as client:
        found = client.study(path, **asked)
        maps = [Attention.join(list(client.attend(**{kind[:-1]: one}, model=asked["model"]))) for one in asked[kind]]
    return found, maps


async def test_heads_score_as_transformer_lens_detector_does(running: Running, tmp_path: Path) -> None:
    """And all that is counted is as its definition, text by text, head by head."""
    address = running.started.address
    found, maps = await asyncio.to_thread(studied, address, tmp_path / "study", texts=TEXTS, model="tiny-text")
    (values,) = found.folder.parts()
    assert values.shape == (4, 2, 4, len(found.statistics))
    for number, attention in enumerate(maps):
        assert attention.tokens is not None
        ids, special = [token.id for token in attention.tokens], [token.special for token in attention.tokens]
        places, of_special = range(len(ids)), [place for place, is_special in enumerate(special) if is_special]
        for layer in attention.layers:
            for head, rows in enumerate(layer.weights.astype(np.float64)):
                scores = values[number, layer.layer, head]
                for name in ("previous", "duplicate", "induction"):
                    assert abs(scores[found.column(name)] - detected(name, rows, ids)) < TOLERANCE
                for column, name in enumerate(found.statistics):
                    expected = by_definition(name, rows, places, places, special=of_special, ids=ids)
                    assert abs(scores[column] - expected) < TOLERANCE, name
    assert found.moments.mean[..., found.column("duplicate")].min() > 0


async def test_pictures_are_counted_as_their_definition_says(running: Running, tmp_path: Path) -> None:
    """Distances in pixels between patches, without the class token."""
    address = running.started.address
    found, maps = await asyncio.to_thread(studied, address, tmp_path / "study", images=CLOTHING[:3], model="fashion")
    (values,) = found.folder.parts()
    for number, attention in enumerate(maps):
        grid = attention.patches
        assert grid is not None
        patches = PatchContract(
            prefix_tokens=grid.prefix_tokens, rows=grid.rows, cols=grid.cols, patch_size=grid.patch_size
        )
        places = range(grid.prefix_tokens + grid.rows * grid.cols)
        for layer in attention.layers:
            rows = layer.weights[0].astype(np.float64)
            for column, name in enumerate(found.statistics):
                expected = by_definition(
                    name, rows, places, places, special=range(grid.prefix_tokens), ids=(), patches=patches
                )
                assert abs(values[number, layer.layer, 0, column] - expected) < 10 * TOLERANCE, name
    assert "distance" in found.statistics
