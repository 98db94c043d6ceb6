import gzip
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from model.checkpoint import load_network
from model.vit import VisionTransformer
from tests.processes import ROOT
from training.fashion import Recipe, accuracy, augment, fit
from training.fashion_mnist import Split, read_idx, read_split

WEIGHTS = ROOT / "model" / "weights" / "fashion"
DATA = Path("/usr/share/datasets/fashion-mnist")


def make_split(images: int) -> Split:
    """Images whose class is told by which tenth of their rows is bright."""
    torch.manual_seed(0)
    classes = torch.arange(images) % 10
    pictures = torch.randint(0, 50, (images, 1, 28, 28), dtype=torch.uint8)
    for image, label in zip(pictures, classes.tolist(), strict=True):
        image[0, 2 * label + 4 : 2 * label + 6] = 255
    return Split(pictures, classes)


def train(folder: Path, epochs_now: int | None = None) -> VisionTransformer:
    """Train two epochs, or stop after the first as an interrupted run does."""
    console = Console(file=io.StringIO())
    recipe, split = Recipe(epochs=2, batch_size=16), make_split(64)
    if epochs_now is None:
        return fit(recipe, split, split, folder, console)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, split, split, folder, InterruptingConsole(epochs_now))
    return fit(recipe, split, split, folder, console)


class InterruptingConsole(Console):
    """Interrupts the run when it reports that many epochs and then goes on."""

    def __init__(self, epochs: int) -> None:
        super().__init__(file=io.StringIO())
        self.left = epochs

    def print(self, *objects: object, **options: object) -> None:
        if "test accuracy" in str(objects):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1


def test_training_depends_on_the_seed_alone_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Two runs, and one interrupted in its second epoch and resumed, end with the same weights."""
    one, other = train(tmp_path / "one"), train(tmp_path / "other")
    resumed = train(tmp_path / "resumed", epochs_now=1)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_augmentation_only_shifts_and_mirrors() -> None:
    """A bright pixel moves by at most two pixels, or to the mirrored place; the ground comes in from the edges."""
    torch.manual_seed(0)
    images = torch.full((200, 1, 28, 28), -1.0)
    images[:, 0, 10, 8] = 1.0
    places = (augment(images, max_shift_pixels=2) == 1.0).nonzero()
    assert len(places) == 200
    rows, cols = places[:, 2], places[:, 3]
    assert set(rows.tolist()) == set(range(8, 13))
    assert set(cols.tolist()) == {*range(6, 11), *range(17, 22)}


def test_idx_files_are_read_and_others_refused(tmp_path: Path) -> None:
    """By name, with what was expected."""
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x02" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big") + bytes(range(6))))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    path.write_bytes(gzip.compress(b"\0\0\x0d\x01 floats"))
    with pytest.raises(ValueError, match=r"images\.gz: starts with 00000d01; expected an IDX file of bytes"):
        read_idx(path)
    with pytest.raises(FileNotFoundError, match="install the Debian package dataset-fashion-mnist"):
        read_split(tmp_path, "train")


def test_the_committed_weights_are_small_and_say_how_good_they_are() -> None:
    """At most 2 MB, at least 90 % on 10,000 images."""
    report = json.loads((WEIGHTS / "training.json").read_text())
    assert report["test_images"] == 10_000
    assert report["accuracy"] >= 0.9
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 2_000_000


@pytest.mark.skipif(not DATA.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_committed_weights_are_as_good_as_they_say() -> None:
    """Measured again on the test images, to within one in a thousand."""
    network = load_network(WEIGHTS)
    assert isinstance(network, VisionTransformer)
    reported = json.loads((WEIGHTS / "training.json").read_text())["accuracy"]
    assert accuracy(network, read_split(DATA, "t10k")) == pytest.approx(reported, abs=1e-3)
