"""An image whose attention is too large to be compared is refused before the memory is taken."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import onnx
import pytest
import torch
from torch import Tensor, nn

from artifact.contract import BATCH_AXIS
from export.build import build
from export.errors import VerificationError
from export.graph_source import load_graph
from export.need import Taken, measure
from export.room import check_room
from export.traits import InputSpec, Traits
from tests.export.networks import WIDTH, Eager, Images, spread, write_images, write_onnx

EDGE, PATCH = 512, 16
TOKENS = (EDGE // PATCH) ** 2
WEIGHTS_BYTES = 4 * TOKENS**2 * 4  # four heads in float32


class Photos(nn.Module):
    """One layer on the patches of a large photo."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.layer = nn.Conv2d(3, WIDTH, PATCH, PATCH), Eager()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return their mean."""
        out: Tensor = self.layer(self.patches(pixel_values).flatten(2).transpose(1, 2))
        return out.mean(1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Its file."""
    axes = {"pixel_values": {0: "batch"}, "mean": {0: "batch"}}
    model = write_onnx(spread(Photos()), {"pixel_values": torch.randn(1, 3, EDGE, EDGE)}, axes, outputs=["mean"])
    onnx.save_model(model, tmp_path / "photos.onnx")
    return tmp_path / "photos.onnx"


def test_without_the_memory_it_is_refused_in_one_line(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says how much is free and how much it takes; nothing else is run."""
    monkeypatch.setattr("export.room.free_bytes", lambda: 4 * WEIGHTS_BYTES)
    monkeypatch.setattr("export.build.run_graph", None)
    said = (
        r"^one image gives 0\.\d GB with all of its attention, .* times as much; 0\.1 GB are free, expected 0\.\d GB$"
    )
    with pytest.raises(VerificationError, match=said):
        build(load_graph(photos), out)
    assert not list(out.rglob("*.onnx"))


def test_what_is_measured_holds_all_weights(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one row; more is free than that takes."""
    seen: list[Taken] = []

    def measured(runs: Sequence[Any]) -> list[Taken]:
        seen.extend(measure(runs))
        return seen

    monkeypatch.setattr("export.room.measure", measured)
    # As much as nine times what it gives takes, and less than nine times what the run takes.
    monkeypatch.setattr("export.room.free_bytes", lambda: 9 * seen[0].results)
    contract = build(load_graph(photos), out).contract
    assert contract.attention[0].key_axis == TOKENS
    (taken,) = seen
    assert WEIGHTS_BYTES < taken.results < taken.run < 6 * WEIGHTS_BYTES


@pytest.mark.parametrize(("shape", "is_run"), [((80, 3000), False), ((3, 300, 300), True), ((8, 3, 112, 112), True)])
def test_images_and_videos_are_run_for_it(
    shape: tuple[int, ...], is_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sounds are not, however large."""
    runs = Mock(return_value=[Taken(0, 0, 0)])
    monkeypatch.setattr("export.room.measure", runs)
    check_room(tmp_path, Traits((InputSpec("x", (BATCH_AXIS, *shape)),)))
    assert runs.called is is_run


def test_small_images_are_not_run_for_it(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process would be started for nothing."""
    monkeypatch.setattr("export.room.measure", None)
    onnx.save_model(write_images(spread(Images())), tmp_path / "small.onnx")
    build(load_graph(tmp_path / "small.onnx"), out)
