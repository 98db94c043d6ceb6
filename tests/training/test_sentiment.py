import io
import json
import tarfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.processes import ROOT
from training.sentiment import Examples, Recipe, accuracy, choose_head, read_reviews

WEIGHTS = ROOT / "model" / "weights" / "sentiment"


def test_reviews_near_neutral_are_left_out_and_each_text_counts_once(tmp_path: Path) -> None:
    """Ratings of at least half a point, as 0 and 1."""
    lines = "1\t2.5\tGood.\r\n2\t-3\tBad.\r\n3\t0.1\tWell.\r\n4\t2.5\tGood.\r\n"
    archive = tmp_path / "reviews.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
        member.size = len(lines)
        tar.addfile(member, io.BytesIO(lines.encode()))
    assert read_reviews(archive) == (["Good.", "Bad."], [1, 0])


def test_a_head_learns_what_can_be_told_apart() -> None:
    """Classes told by one of eight numbers, seen through noise."""
    torch.manual_seed(0)
    classes = torch.arange(200) % 2
    vectors = torch.randn(200, 8)
    vectors[:, 3] += 6.0 * (classes - 0.5)
    head, _ = choose_head(Examples(vectors, classes), Recipe(steps=50))
    assert accuracy(head, Examples(vectors, classes)) > 0.97


def test_the_committed_head_fits_minilm_and_says_how_good_it_is() -> None:
    """Two classes from 384 numbers, measured on snippets it was not trained on."""
    head = load_file(WEIGHTS / "head.safetensors")
    assert (head["weight"].shape, head["bias"].shape) == ((2, 384), (2,))
    report = json.loads((WEIGHTS / "training.json").read_text())
    assert report["snippets"]["held_out"] > 2000
    assert 0.75 < report["accuracy"] < 1
