"""What relevance costs: ratios and their intervals, servers with and without its graphs, and PyTorch's own numbers."""

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from artifact.contract import CONTRACT_FILE, read_contract
from bench.faithfulness.__main__ import EMBEDDED, newest
from bench.generator import GeneratorError, Measured
from bench.relevance.__main__ import FASHION, main
from bench.relevance.eager import METHODS, check_equal, read_pixels
from bench.relevance.loads import find_loads
from bench.relevance.plain import KINDS, check, in_turn, strip
from bench.relevance.ratios import Target, compare, interval, table
from bench.relevance.vit_s14 import with_random_head
from model.checkpoint import load_network
from model.vit import VisionTransformer
from training.fashion_mnist import normalize

MEASURED = Measured(100.0, 1.0, 2.0, 3.0, errors=0, generator_cpus=0.1, answered=50)


def test_ratios_are_those_of_rounds() -> None:
    """A machine that is slow for one round is so for both; the median of the ratios is not the ratio of the medians."""
    found = compare("m", "w", [([2.0, 40.0, 9.0], [1.0, 10.0, 9.0])], "ms", Target(3, is_most=True))
    assert (found.mine, found.other, found.ratio) == (9.0, 9.0, 2.0)
    assert (found.low, found.high) == (1.0, 4.0)
    assert found.to_json()["met"] is True
    assert table([found])[2] == "| m | w | 9 ms | 9 ms | 2.000 (1.000 to 4.000) | at most 3 | yes |"


@pytest.mark.parametrize(
    ("target", "ratio", "met"),
    [
        (Target(3, is_most=True), 3.0, True),
        (Target(3, is_most=True), 3.01, False),
        (Target(0.98, is_most=False), 0.98, True),
        (Target(0.98, is_most=False), 0.97, False),
        (Target(0.98, is_most=False), float("nan"), False),
    ],
)
def test_targets_are_bounds(target: Target, ratio: float, met: bool) -> None:
    """From above or below."""
    assert target.met(ratio) is met


def test_rounds_of_one_start_are_not_taken_for_many() -> None:
    """What differs from start to start widens the interval, however many rounds each has."""
    luck = [[0.8] * 50, [1.2] * 50, [1.0] * 50]
    assert interval(luck) == (0.8, 1.2)
    random = np.random.default_rng(0)
    low, high = interval([list(random.normal(1, 0.05, 50)) for _ in range(3)])
    assert 0.96 < low < 1 < high < 1.04


def test_nothing_to_compare_with_is_told() -> None:
    """Rather than divided by."""
    with pytest.raises(ValueError, match="m: w: 0 ms to compare with; expected above 0"):
        compare("m", "w", [([1.0], [0.0])], "ms")


def test_failed_requests_end_the_run() -> None:
    """A server that refuses is quicker than one that answers."""
    assert check(MEASURED, "fashion") is MEASURED
    with pytest.raises(GeneratorError, match="fashion, without: 7 of 57 requests failed"):
        check(dataclasses.replace(MEASURED, errors=7), "fashion, without")
    with pytest.raises(GeneratorError, match="0 of 0 requests failed"):
        check(dataclasses.replace(MEASURED, answered=0), "fashion")


def test_every_order_of_the_servers_comes_as_often() -> None:
    """Whatever the first round is."""
    for first in (-1, 0, 4):
        orders = {in_turn(number) for number in range(first, first + 6)}
        assert len(orders) == 6
        assert all(sorted(order) == sorted(KINDS) for order in orders)


def test_an_artifact_without_relevance_is_whole(tmp_path: Path) -> None:
    """It has all else, and its files are those of its contract."""
    artifact = tmp_path / "fashion" / "1"
    shutil.copytree(newest(EMBEDDED / "fashion"), artifact)
    before = read_contract(artifact / CONTRACT_FILE)
    strip(artifact)
    after = read_contract(artifact / CONTRACT_FILE)
    assert before.explains_labels
    assert not after.explains_labels
    assert after.outputs == before.outputs
    assert {path.name for path in artifact.iterdir()} == {CONTRACT_FILE, *after.files}
    assert before.files.keys() - after.files.keys() == {
        f"relevance{method}.onnx" for method in ("", ".genatt", ".gradient", ".layers", ".legrad")
    }


@pytest.mark.parametrize("method", METHODS)
def test_pytorch_explains_each_row_for_itself(method: str) -> None:
    """Of a batch, as a server does: another image beside one changes nothing."""
    network = load_network(FASHION)
    assert isinstance(network, VisionTransformer)
    pixels = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    both = METHODS[method](network, pixels, 3)
    assert both.shape == (2, 50)
    assert both.min() >= 0 < both.max()
    for row in range(2):
        torch.testing.assert_close(METHODS[method](network, pixels[row : row + 1], 3)[0], both[row])
    assert not torch.allclose(METHODS[method](network, pixels, 4), both)


def test_a_random_head_reads_the_class_token() -> None:
    """Of a backbone that is otherwise the same, and the same head each time."""
    network = load_network(FASHION)
    assert isinstance(network, VisionTransformer)
    backbone = VisionTransformer(dataclasses.replace(network.config, num_classes=0)).eval()
    pixels = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    one, other = with_random_head(backbone), with_random_head(backbone)
    state = one(pixels)["last_hidden_state"]
    torch.testing.assert_close(state, backbone(pixels)["last_hidden_state"])
    assert one.classifier is not None
    torch.testing.assert_close(one(pixels)["logits"], one.classifier(state[:, 0]))
    torch.testing.assert_close(one(pixels)["logits"], other(pixels)["logits"])


def test_pixels_are_those_that_a_network_was_trained_on() -> None:
    """By the contract's mean and standard deviation, each row the same."""
    contract = read_contract(newest(EMBEDDED / "fashion") / CONTRACT_FILE).image
    assert contract is not None
    sandal = Path(__file__).parents[2] / "examples" / "clothing" / "sandal.png"
    read = read_pixels(sandal.read_bytes(), contract, 2)
    grey = torch.from_numpy(np.array(Image.open(sandal).convert("L")))
    torch.testing.assert_close(read, normalize(grey)[None, None].repeat(2, 1, 1, 1))


def test_numbers_that_differ_are_not_compared_in_speed() -> None:
    """By more than a ten-thousandth of the largest."""
    given = [np.array([0.0, 2.0], dtype=np.float32)]
    check_equal([given[0] + np.float32(1e-4)], given, "legrad")
    with pytest.raises(ValueError, match=r"legrad: server and PyTorch differ by 5\.0e-04"):
        check_equal([given[0] + np.float32(1e-3)], given, "legrad")
    with pytest.raises(ValueError, match="differ by nan"):
        check_equal([given[0] * np.float32("nan")], given, "legrad")


def test_models_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    """And named; the embedded one is always there."""
    loads, left_out = find_loads(tmp_path)
    assert [load.name for load in loads] == ["fashion"]
    assert left_out == [f"sentiment is left out: {tmp_path}/sentiment: is not there; `python -m export` makes it"]


def test_no_rounds_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started."""
    monkeypatch.setattr(sys, "argv", ["bench.relevance", "--rounds", "0"])
    with pytest.raises(SystemExit):
        main()
    assert "--rounds: 0; expected above 0" in capsys.readouterr().err
