"""The small Swin: one learning step more than chance, and a folder that the exporter reads."""

import io
from pathlib import Path

from rich.console import Console

from export.sources import load_folder
from tests.training.test_fashion import make_split
from training.swin import PREPROCESSING, Recipe, accuracy, enlarge, fit, save


def test_it_learns_and_its_folder_is_read(tmp_path: Path) -> None:
    """Bright rows tell the class; windows of 4 x 4 on a grid of 8 x 8, the second layer shifted."""
    split = make_split(400)
    network = fit(Recipe(images=400, batch_size=10), split, Console(file=io.StringIO()))
    assert accuracy(network, split) > 0.2
    assert enlarge(split.images[:2]).shape == (2, 1, 32, 32)
    save(network, tmp_path / "swin")
    source = load_folder(tmp_path / "swin")
    first, second, third, _ = source.traits.windows
    assert first and second and third
    assert (first.rows, first.height, first.shift_rows, second.shift_rows, third.rows) == (8, 4, 0, 2, 4)
    assert source.image
    assert source.image.mode == "L"
    assert source.image.mean == tuple(PREPROCESSING["image_mean"])  # type: ignore[arg-type]
