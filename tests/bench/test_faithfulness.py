"""Which measure to trust: protocols on networks whose answers are known, and a whole run through a server."""

import json
import shutil
import sys
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.contract import CONTRACT_FILE, RELEVANCE_GRAPHS, WEIGHTS_FILE, Contract, read_contract
from artifact.files import hash_file
from bench.faithfulness.__main__ import Task, main, measure, newest, with_every_method
from bench.faithfulness.flipping import Masking, ask_logits, flip_row, masking
from bench.faithfulness.intervals import Interval, differences, intervals
from bench.faithfulness.measures import DEFAULT, RANDOM, methods
from bench.faithfulness.protocols import (
    HIGHER_IS_BETTER,
    Flipped,
    area,
    localise,
    masks,
    rank,
    rank_correlation,
    score,
    step_counts,
)
from bench.faithfulness.randomised import cascade, randomise
from bench.faithfulness.report import RANDOMISED, Figures, tables, verdict
from bench.faithfulness.rows import Given, Row, read_images
from regard import Client

ROOT = Path(__file__).parents[2]
FASHION, TEXT = ROOT / "server" / "embedded" / "fashion" / "1", ROOT / "tests" / "golden" / "models" / "tiny-text" / "1"
SUMMANDS = np.array([4.0, 3.0, 2.0, 1.0])
"""What each part adds to the logit of a linear scorer."""


def linear(order: NDArray[np.intp]) -> dict[str, float]:
    """Scores of an order for the linear scorer, whose probability is its share of the largest logit."""
    counts = range(5)
    logits = masks(order, counts) @ SUMMANDS
    return score(Flipped(tuple(counts), logits, logits / 10, (logits >= 5).astype(float)))


def test_the_best_order_of_a_linear_scorer_is_that_of_its_summands() -> None:
    """By hand: without the largest first 10, 6, 3, 1, 0; without the smallest first 10, 9, 7, 4, 0."""
    best = linear(rank(SUMMANDS, seed=0))
    assert best["srg"] == pytest.approx((9.5 + 8 + 5.5 + 2 - (8 + 4.5 + 2 + 0.5)) / 4)
    assert best["deletion"] == pytest.approx(0.375)
    assert best["insertion"] == pytest.approx(0.625)
    assert best["aopc"] == pytest.approx((0 + 4 + 7 + 9 + 10) / 50)
    assert best["comprehensiveness"] == pytest.approx((4 * 0.4 + 0.7) / 5)  # one part for the first four shares
    assert best["sufficiency"] == pytest.approx((4 * 0.6 + 0.3) / 5)
    orders = [linear(np.array(order)) for order in permutations(range(4))]
    for name, higher in HIGHER_IS_BETTER.items():
        assert best[name] == pytest.approx((max if higher else min)(one[name] for one in orders)), name


def test_the_opposite_order_gains_as_much_less() -> None:
    """What is symmetric in symmetric relevance gain."""
    assert linear(np.arange(4))["srg"] == pytest.approx(-linear(np.arange(4)[::-1])["srg"])


def test_perturbation_counts_right_answers_from_10_to_90_percent() -> None:
    """Half of the inputs' parts gone turns the answer: what comes before and behind does not count."""
    counts = tuple(range(11))
    right = np.array([[1.0] * 5 + [0.0] * 6, [1.0] * 10 + [0.0]])
    found = score(Flipped(counts, right, right, right))
    assert found["positive"] == pytest.approx((0.3 + 0.1 / 2) / 0.8)
    assert found["negative"] == 1


def test_steps_that_lie_close_count_no_more_in_aopc() -> None:
    """Those of ERASER lie close at both ends: a fall between 16 and 18 of 20 parts is halfway at 17."""
    counts = step_counts(20, 2)
    assert counts == [0, 1, 2, 4, 10, 16, 18, 19, 20]
    fall = np.stack([(np.array(counts) < 17).astype(float)] * 2)
    assert score(Flipped(counts, fall, fall, fall))["aopc"] == pytest.approx(3.5 / 21)


def test_steps_are_those_that_protocols_ask_for() -> None:
    """None twice, first none and last all; the shares of ERASER, rounded up, from both ends."""
    assert step_counts(20, 4) == [0, 1, 2, 4, 5, 10, 15, 16, 18, 19, 20]
    assert step_counts(1, 10) == [0, 1]


def test_equal_parts_come_in_a_drawn_order() -> None:
    """So that a map of zeros has the order of no position."""
    orders = [rank(np.zeros(30), seed).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])
    assert rank(np.array([1.0, 3.0, 2.0]), 5).tolist() == [1, 2, 0]


def test_an_area_is_that_under_lines() -> None:
    """Of uneven steps."""
    assert area(np.array([0, 0.5, 1]), np.array([1, 1, 0])) == pytest.approx(0.75)


def test_a_map_that_lies_on_the_object_is_found_there() -> None:
    """The largest value, and the share of what is above 0; what is below does not count."""
    inside = np.array([1.0, 0.0, 0.4])
    assert localise(np.array([3.0, 1.0, -9.0]), inside) == {"pointing": 1, "mass_inside": 0.75}
    assert localise(np.array([0.0, -1.0, 2.0]), inside) == {"pointing": 0, "mass_inside": 0.4}
    assert localise(np.full(3, -1.0), inside)["mass_inside"] == 0


def test_a_rank_correlation_is_of_orders() -> None:
    """Equal values share a rank; a map of equal values has none."""
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([1.0, 10, 100])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([5.0, 5, 9])) == pytest.approx(1)
    assert rank_correlation(np.zeros(3), np.arange(3.0)) == 0


def test_intervals_are_the_same_again_and_pair_inputs() -> None:
    """A measure that is better by as much on every input is better by just that."""
    scores = np.random.default_rng(3).normal(size=200)
    first, second = intervals(np.stack([scores, scores + 0.01]))
    assert [first, second] == intervals(np.stack([scores, scores + 0.01]))
    assert first.low < first.mean < first.high
    assert first.high - first.low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.2)
    assert not first.apart(second)
    better = differences(np.stack([scores, scores + 0.01]), 0)[1]
    assert [better.low, better.high] == pytest.approx([0.01, 0.01])
    assert Interval(1, 0, 2).apart(Interval(4, 3, 5))
    assert Interval(4, 3, 5).apart(Interval(1, 0, 2))
    assert not Interval(1, 0, 3).apart(Interval(4, 3, 5))


def image_row(label: int = 0) -> tuple[Contract, Row]:
    """49 patches of ones."""
    contract, pixels = read_contract(FASHION / CONTRACT_FILE), np.ones((1, 28, 28), dtype=np.float32)
    return contract, Row(Given(b"", contract.labels[0]), label, 0, pixels, np.arange(1, 50), None)


def test_a_masked_patch_is_grey_or_black() -> None:
    """The mean is 0 once normalised; patches lie row by row."""
    contract, row = image_row()
    keeps = np.ones((2, 49), dtype=bool)
    keeps[1, 8] = False  # second row, second column
    feed = Masking(contract, "mean").feed(row, keeps)["pixel_values"]
    assert feed.shape == (2, 1, 28, 28)
    assert feed[0].min() == 1
    assert np.argwhere(feed[1, 0] == 0).tolist() == [[y, x] for y in range(4, 8) for x in range(4, 8)]
    black = Masking(contract, "black").feed(row, keeps)["pixel_values"]
    assert black[1, 0, 4, 4] == pytest.approx(-0.286 / 0.353)


def test_a_masked_token_is_another_or_is_gone() -> None:
    """Special ones stay; what is taken out leaves no gap, but padding behind."""
    contract = read_contract(TEXT / CONTRACT_FILE)
    row = Row(Given("", ""), 0, 0, np.array([2, 10, 11, 12, 3]), np.array([1, 2, 3]), None)
    keeps = np.array([[True, True, True], [False, True, False]])
    masked = Masking(contract, "mask", token=4).feed(row, keeps)
    assert masked["input_ids"].tolist() == [[2, 10, 11, 12, 3], [2, 4, 11, 4, 3]]
    assert masked["attention_mask"].min() == 1
    gone = Masking(contract, "remove").feed(row, keeps)
    assert gone["input_ids"][1, :3].tolist() == [2, 11, 3]
    assert gone["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert masking(contract, TEXT, "mask").token > 0


class LinearServer:
    """Answers as a linear scorer of the number of patches that are there, and counts what it is asked."""

    def __init__(self) -> None:
        self.rows = 0

    def predict(self, inputs: Mapping[str, NDArray[Any]], **options: Any) -> Any:
        """Logits of two labels."""
        pixels = inputs["pixel_values"]
        self.rows += len(pixels)
        logits = pixels.sum(axis=(1, 2, 3))[:, None] / 784 * np.array([1, 0])
        return SimpleNamespace(outputs={options["outputs"][0]: logits})


def test_equal_masks_are_asked_for_once() -> None:
    """The same map twice costs what it costs once; the whole input is one of all."""
    (contract, row), server = image_row(), LinearServer()
    values = np.random.default_rng(0).random(49)
    found = flip_row(cast("Client", server), Masking(contract, "mean"), row, {"a": values, "b": values}, 10, 8)
    counts = step_counts(49, 10)
    assert server.rows <= 2 * len(counts) - 2
    np.testing.assert_allclose(found["a"].logits, [1 - np.array(counts) / 49] * 2)
    np.testing.assert_array_equal(found["a"].probabilities, found["b"].probabilities)
    assert score(found["a"])["srg"] == pytest.approx(0)


def test_what_was_explained_is_what_is_masked() -> None:
    """Another label of the whole input is a fault of ours: nothing is measured."""
    contract, row = image_row(label=1)
    with pytest.raises(ValueError, match="unmasked it is label 0, and 1 was explained"):
        flip_row(cast("Client", LinearServer()), Masking(contract, "mean"), row, {"a": np.arange(49.0)}, 2, 99)
    assert ask_logits(
        cast("Client", LinearServer()), Masking(contract, "mean"), row, np.ones((3, 49), bool), 2
    ).shape == (3, 2)


def test_random_weights_are_the_same_numbers_elsewhere(tmp_path: Path) -> None:
    """And the contract knows their hash, so that a server loads them."""
    randomise(FASHION, tmp_path / "1")
    before, after = (np.fromfile(folder / WEIGHTS_FILE, dtype=np.float32) for folder in (FASHION, tmp_path / "1"))
    assert (before != after).mean() > 0.9
    np.testing.assert_array_equal(np.sort(before), np.sort(after))
    contract = read_contract(tmp_path / "1" / CONTRACT_FILE)
    assert contract.files[WEIGHTS_FILE] == hash_file(tmp_path / "1" / WEIGHTS_FILE)


def test_a_cascade_goes_from_the_head_to_the_embedding(tmp_path: Path) -> None:
    """Each depth shuffles all that the one before did, in the same way, and one layer more; in the end all."""
    depths = list(cascade(FASHION, read_contract(FASHION / CONTRACT_FILE)))
    assert [name for name, _ in depths] == ["head", "layer 4", "layer 3", "layer 2", "layer 1", "all"]
    counts = [len(chosen) for _, chosen in depths if chosen is not None]
    assert counts == [1, 8, 15, 22, 29]  # of 31: the classifier, 7 of each layer; then patches and positions
    shuffled = []
    for name, chosen in [*depths[:2], depths[-1]]:
        randomise(FASHION, tmp_path / name / "1", chosen)
        shuffled.append(np.fromfile(tmp_path / name / "1" / WEIGHTS_FILE, dtype=np.float32))
    before = np.fromfile(FASHION / WEIGHTS_FILE, dtype=np.float32)
    head, top, whole = (one != before for one in shuffled)
    ((first, length),) = depths[0][1] or {(0, 0)}
    assert head[first // 4 : (first + length) // 4].mean() > 0.9
    assert head.sum() == head[first // 4 : (first + length) // 4].sum()
    assert head.sum() < top.sum() < whole.sum()
    np.testing.assert_array_equal(shuffled[0][head], shuffled[1][head])
    np.testing.assert_array_equal(shuffled[1][top], shuffled[2][top])


def test_a_cascade_needs_layers(tmp_path: Path) -> None:
    """Known from the graph with hidden states."""
    contract = read_contract(FASHION / CONTRACT_FILE).model_copy(update={"hidden_states": ()})
    with pytest.raises(ValueError, match=r"fashion: has no hidden\.onnx; --cascade expects"):
        list(cascade(tmp_path, contract))


@pytest.fixture(scope="module")
def clothing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder for each class, and the file that tells their labels."""
    folder, labels = tmp_path_factory.mktemp("clothing"), []
    for name, label in (("sandal", "Sandal"), ("t-shirt-top", "T-shirt/top"), ("bag", "Bag")):
        (folder / "images" / name).mkdir(parents=True)
        (folder / "masks" / name).mkdir(parents=True)
        for part in ("images", "masks"):
            shutil.copyfile(ROOT / "examples" / "clothing" / f"{name}.png", folder / part / name / "a.png")
        labels.append(f"{name} {label}\n")
    (folder / "labels.txt").write_text("".join(labels))
    return folder, folder / "labels.txt"


def test_a_run_masks_images_and_says_which_measure_is_best(clothing: tuple[Path, Path]) -> None:
    """Through servers: the embedded model, and the same with random weights."""
    folder, labels = clothing
    given = read_images(folder / "images", labels, folder / "masks", 9)
    assert [one.truth for one in given] == ["Bag", "Sandal", "T-shirt/top"]
    figures = measure(Task(FASHION, given, "mean", 3))
    assert {DEFAULT, RANDOM} < set(figures.measures)
    assert {*HIGHER_IS_BETTER, RANDOMISED, "pointing"} <= set(figures.scores)
    place = figures.measures.index(DEFAULT)
    assert figures.scores["srg"].shape == (len(figures.measures), 3)
    assert figures.scores["srg"][place].mean() > figures.scores["srg"][figures.measures.index(RANDOM)].mean()
    assert (np.abs(figures.scores[RANDOMISED]) < 1).all()
    printed = "\n".join(tables(figures))
    assert all(f"| {name} |" in printed for name in figures.measures)
    assert verdict(figures) in printed


def test_a_folder_with_boxes_is_measured_by_the_command(
    clothing: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of ImageNet: folders, their labels, and where the objects are."""
    folder, labels = clothing
    (tmp_path / "boxes.csv").write_text(
        "file,left,top,right,bottom\n"
        + "".join(f"{name}/a.png,0,0,28,28\n" for name in ("sandal", "t-shirt-top", "bag"))
    )
    out = tmp_path / "out.json"
    flags = {"--images": folder / "images", "--labels": labels, "--boxes": tmp_path / "boxes.csv", "--out": out}
    arguments = ["faithfulness", *(str(one) for pair in flags.items() for one in pair), "--steps", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--model", "fashion", "--models", str(FASHION.parents[1])])
    main()
    assert "**fashion: 3 images, " in capsys.readouterr().out
    ((found,),) = (json.loads(out.read_text()),)
    assert found["scores"]["mass_inside"][DEFAULT]["mean"] == pytest.approx(1)  # the box is the whole image
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--masks", str(folder / "masks")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--masks and --boxes exclude each other" in capsys.readouterr().err


def test_a_box_is_where_the_object_is(clothing: tuple[Path, Path], tmp_path: Path) -> None:
    """Two of one image are both the object; an image without any has no mask; what is no box is refused."""
    folder, labels = clothing
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file,left,top,right,bottom\nbag/a.png,1,2,4,8\nbag/a.png,10,0,11,1\n")
    bag, sandal = read_images(folder / "images", labels, None, 2, boxes)
    assert bag.mask is not None
    assert bag.mask.sum() == 3 * 6 + 1
    assert bag.mask[2:8, 1:4].all()
    assert sandal.mask is None
    for line in ("bag/a.png,1,2,1,8", "bag/a.png,1,2,x,8", "bag/a.png,1,2"):
        boxes.write_text(f"file,left,top,right,bottom\n{line}\n")
        with pytest.raises(
            ValueError, match=r"--boxes: line 2 of .*expected file,left,top,right,bottom in the heading"
        ):
            read_images(folder / "images", labels, None, 2, boxes)


def test_a_run_masks_texts() -> None:
    """Of the golden model, whose tokenizer has no mask token by that name."""
    labels = read_contract(TEXT / CONTRACT_FILE).labels
    given = [Given(text, labels[0]) for text in ("a good film , really", "a bad one")]
    figures = measure(Task(TEXT, given, "remove", 3, cascaded=1))
    assert figures.scores["sufficiency"].shape == (len(figures.measures), 2)
    assert "mass_inside" not in figures.scores
    scores: Any = json.loads(json.dumps(figures.to_json()))["scores"]
    assert scores["sufficiency"][DEFAULT]["mean"] == pytest.approx(
        figures.scores["sufficiency"][figures.measures.index(DEFAULT)].mean()
    )
    assert list(figures.cascade) == ["head", "layer 2", "layer 1", "all"]
    by_measure = {
        name: [one[place, 0] for one in figures.cascade.values()] for place, name in enumerate(figures.measures)
    }
    assert by_measure["rollout, CLS row"][0] == pytest.approx(1)  # attention does not see the head
    assert (
        by_measure["rollout, CLS row"][-1] == figures.scores[RANDOMISED][figures.measures.index("rollout, CLS row"), 0]
    )
    assert by_measure[DEFAULT][-1] == figures.scores[RANDOMISED][figures.measures.index(DEFAULT), 0]
    assert "| measure | head | layer 2 | layer 1 | all |" in list(tables(figures))
    deeper: Any = json.loads(json.dumps(figures.to_json()))["cascade"]
    assert deeper["all"][DEFAULT]["mean"] == pytest.approx(by_measure[DEFAULT][-1])


def test_a_verdict_names_what_is_not_apart() -> None:
    """The random order is no measure."""
    libra = np.array([1.0, 1.4, 0.6])
    scores = np.stack([libra, libra - 1.5, libra - 0.1, libra[[0, 2, 1]], libra])
    measures = ("libra", "rollout", "gradient", "genatt", "random")
    figures = Figures("m", "3 texts", "gone", measures, {"srg": scores})
    assert (
        verdict(figures)
        == "SRG of libra is above that of 2 of 3 measures, paired (not of genatt); of 1 with intervals apart."
    )
    less: Any = json.loads(json.dumps(figures.to_json()))["less_that_of_libra"]
    assert less["srg"]["gradient"] == {name: pytest.approx(-0.1) for name in ("mean", "low", "high")}
    alone = Figures("m", "3 texts", "gone", ("libra", "rollout"), {"srg": scores[:2]})
    assert verdict(alone) == "SRG of libra is above that of 1 of 1 measures, paired; of 1 with intervals apart."


def test_folders_are_taken_in_turn(clothing: tuple[Path, Path], tmp_path: Path) -> None:
    """Without a file of labels their names are labels; one that it does not name is refused."""
    folder, _ = clothing
    assert [one.truth for one in read_images(folder / "images", None, None, 2)] == ["bag", "sandal"]
    (tmp_path / "labels").write_text("bag Bag\n")
    with pytest.raises(ValueError, match="--labels: no line begins with 'sandal'"):
        read_images(folder / "images", tmp_path / "labels", None, 2)
    with pytest.raises(ValueError, match="expected a folder for each class"):
        read_images(tmp_path, None, None, 2)


def test_a_model_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clothing: tuple[Path, Path]
) -> None:
    """Before any server starts; so is one that cannot explain, and half of a pair of flags."""
    arguments = ["faithfulness", "--models", str(tmp_path), "--images", str(clothing[0] / "images")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--model", "m"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "is not there" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--images and --model go together" in capsys.readouterr().err
    contract = json.loads((TEXT / CONTRACT_FILE).read_text()) | {"relevance": None}
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / CONTRACT_FILE).write_text(json.dumps(contract))
    with pytest.raises(ValueError, match="has no relevance of labels"):
        newest(tmp_path / "m")


def test_a_known_model_that_lacks_a_method_is_exported_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the temporary folder; one that has all is taken as it is."""
    made = []

    def build(source: str, out: Path, *, relevance: tuple[str, ...]) -> Any:
        made.append((source, relevance))
        return SimpleNamespace(folder=out / source / "1")

    monkeypatch.setattr("bench.faithfulness.__main__.build", build)
    monkeypatch.setattr("bench.faithfulness.__main__.load_source", lambda name, cache: name)
    for name, version, source in (("whole", 9, TEXT), ("whole", 10, FASHION), ("lacking", 1, TEXT)):
        (tmp_path / name / str(version)).mkdir(parents=True)
        shutil.copyfile(source / CONTRACT_FILE, tmp_path / name / str(version) / CONTRACT_FILE)
    scratch = tmp_path / "scratch"
    assert with_every_method("whole", tmp_path, tmp_path, scratch) == tmp_path / "whole" / "10"
    assert made == []
    for name in ("lacking", "missing"):
        assert with_every_method(name, tmp_path, tmp_path, scratch) == scratch / name / "1"
    assert made == [("lacking", tuple(RELEVANCE_GRAPHS)), ("missing", tuple(RELEVANCE_GRAPHS))]


def test_methods_are_those_of_the_client() -> None:
    """The default first, each once."""
    found = methods()
    assert found[0] == DEFAULT
    assert len(set(found)) == len(found)
