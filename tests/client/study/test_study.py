"""Studies of a fake server's numbers: what is kept, that a kill harms nothing, what is compared and shown."""

import csv
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regard import Client, InvalidArgument, NotFound, study_calls
from regard.sources import InputError
from regard.study import Study, compare
from regard.study.folder import PART_INPUTS, Folder
from regard.study.heatmaps import diverging
from regard.study.report import report_html
from regard.v1 import types_pb2 as pb
from tests.client.conftest import Run
from tests.client.fake import NUM_HEADS, NUM_LAYERS, FakeServer, photo_bytes, statistics_of
from tests.client.test_cli import REGARD

MINILM: dict[str, Any] = {"model": "minilm", "statistics": ("entropy", "sink")}
TEXTS = [f"{'abcd'[number % 4]}{'.' * (number % 9)}" for number in range(600)]


def numbers_of(texts: list[str]) -> Any:
    """What the fake server counts in texts, [input, layer, head, statistic]."""
    return np.stack([statistics_of(text, range(NUM_LAYERS), 2) for text in texts])


@pytest.fixture
def studied(client: Client, tmp_path: Path) -> Study:
    """A study of 600 texts: two full parts and a third."""
    return client.study(tmp_path / "study", texts=iter(TEXTS), **MINILM)


def test_every_number_is_kept_in_order(studied: Study) -> None:
    """In chunks that numpy reads, with means that are theirs."""
    numbers = numbers_of(TEXTS)
    assert (studied.num_inputs, studied.model, studied.version) == (600, "minilm", "2")
    np.testing.assert_array_equal(np.concatenate(list(studied.folder.parts())), numbers)
    np.testing.assert_allclose(studied.moments.mean, numbers.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(studied.moments.variance, numbers.var(axis=0, ddof=1, dtype=np.float64), rtol=1e-6)
    assert list(studied.folder.names()) == TEXTS
    read = Study.open(studied.path)
    np.testing.assert_array_equal(read.moments.mean, studied.moments.mean)
    assert read.statistics == ("entropy", "sink")


def test_the_array_is_one_of_zarrs_format_3(studied: Study) -> None:
    """As its specification says: a chunk a part, little-endian, uncompressed."""
    described = json.loads((studied.path / "values.zarr" / "zarr.json").read_text())
    assert described["shape"] == [600, NUM_LAYERS, NUM_HEADS, 2]
    assert described["dimension_names"] == ["input", "layer", "head", "statistic"]
    chunk = described["chunk_grid"]["configuration"]["chunk_shape"]
    last = np.fromfile(studied.path / "values.zarr" / "c" / "2" / "0" / "0" / "0", "<f4").reshape(chunk)
    np.testing.assert_array_equal(last[: 600 - 2 * PART_INPUTS], numbers_of(TEXTS[2 * PART_INPUTS :]))
    assert np.isnan(last[600 - 2 * PART_INPUTS :]).all()
    zarr = pytest.importorskip("zarr", reason="reads what was written; not a dependency")
    np.testing.assert_array_equal(zarr.open(studied.path / "values.zarr")[:], numbers_of(TEXTS))


def test_tables_have_a_row_an_input_layer_and_head(studied: Study) -> None:
    """A column a statistic; read as one."""
    pandas = pytest.importorskip("pandas", reason="needs the extra tables")
    pytest.importorskip("pyarrow.parquet", reason="needs the extra tables")
    table = pandas.read_parquet(studied.path / "tables")
    assert list(table.columns) == ["input", "name", "layer", "head", "entropy", "sink"]
    assert len(table) == 600 * NUM_LAYERS * NUM_HEADS
    row = table[(table["input"] == 599) & (table["layer"] == 3) & (table["head"] == 2)]
    assert row["name"].tolist() == [TEXTS[599]]
    assert row["sink"].tolist() == [numbers_of(TEXTS[599:])[0, 3, 2, 1]]
    means = table.groupby(["layer", "head"])["entropy"].mean()
    assert means[4, 1] == pytest.approx(studied.moments.mean[4, 1, 0], rel=1e-6)


def test_means_stand_in_a_file_of_their_own(studied: Study) -> None:
    """A row a statistic, layer and head."""
    with (studied.path / "heads.csv").open(newline="") as file:
        rows = {(row["statistic"], int(row["layer"]), int(row["head"])): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * NUM_LAYERS * NUM_HEADS
    row = rows["sink", 3, 2]
    assert float(row["mean"]) == pytest.approx(studied.moments.mean[3, 2, 1], rel=1e-6)
    assert row["count"] == "600"
    assert float(row["largest"]) == pytest.approx(numbers_of(TEXTS)[:, 3, 2, 1].max(), rel=1e-6)


def test_heads_are_ranked_and_know_their_examples(studied: Study) -> None:
    """The last head of the last layer first; of inputs, the longest, the earliest of equals."""
    ranked = studied.rank("sink")
    assert [(one.layer, one.head) for one in (ranked[0], ranked[-1])] == [(11, 2), (0, 0)]
    assert ranked[0].mean == pytest.approx(studied.moments.mean[11, 2, 1])
    examples = studied.examples("sink", 5, 1)
    assert [one.number for one in examples] == [8, 17, 26, 35, 44, 53, 62, 71]
    assert examples[0].name == TEXTS[8]
    assert examples[0].value == pytest.approx(5 + 0.1 + 0.01 + 9)
    with pytest.raises(InvalidArgument, match="statistic: 'norm'; expected one of entropy, sink"):
        studied.rank("norm")
    with pytest.raises(InvalidArgument, match=r"layer, head: \(99, 0\) \(tuple\); expected a head of the study"):
        studied.examples("sink", 99, 0)


def test_an_input_with_an_error_does_not_count(client: Client, tmp_path: Path) -> None:
    """It has no number, and its error stands beside its name."""
    found = client.study(tmp_path / "study", texts=iter(["aa", "bad", "", "bbbb"]), **MINILM)
    assert (found.num_inputs, found.folder.num_errors) == (4, 2)
    assert found.moments.count.max() == found.moments.count.min() == 2
    assert found.folder.inputs(0)[1][1].endswith("bad; expected a good one")
    assert np.isnan(next(found.folder.parts())[[1, 2]]).all()
    np.testing.assert_allclose(found.moments.mean, numbers_of(["aa", "bbbb"]).mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert "4 texts, 2 with errors, which do not count" in report_html(found)


def test_inputs_that_had_errors_are_asked_for_again(
    server: FakeServer, client: Client, tmp_path: Path, run: Run
) -> None:
    """They alone, in full parts and the last; what is found is as if they had never had any."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    path, bad = tmp_path / "out", {3, 4, 255, 256, 599}
    asked = ("study", "--lines", "texts.txt", "--model", "minilm", "--statistic", "entropy", "--statistic", "sink")
    assert run(*asked, "-o", "out").code == 0
    folder = Folder.open(path)
    for number in range(3):
        values, first = folder.part(number), number * PART_INPUTS
        errors = {at: "was busy" for at in range(len(values)) if first + at in bad}
        values[list(errors)] = np.nan
        folder.replace(number, errors, values)
    assert Folder.open(path).num_errors == 5
    server.requests = []
    assert run(*asked, "-o", "out", "--resume").code == 1
    assert not [one for one in server.requests if hasattr(one, "texts")]
    assert run(*asked, "-o", "out", "--resume", "--retry-errors").code == 0
    again = [text for request in server.requests if hasattr(request, "texts") for text in request.texts.items]
    assert sorted(again) == sorted(TEXTS[number] for number in bad)
    found = Study.open(path)
    assert (found.num_inputs, found.folder.num_errors) == (600, 0)
    np.testing.assert_array_equal(np.concatenate(list(found.folder.parts())), numbers_of(TEXTS))
    with (path / "heads.csv").open(newline="") as file:
        assert {row["count"] for row in csv.DictReader(file)} == {"600"}
    if (path / "tables").exists():
        pandas = pytest.importorskip("pandas")
        assert not pandas.read_parquet(path / "tables")["sink"].isna().any()


def test_an_input_that_has_an_error_again_keeps_it(client: Client, tmp_path: Path) -> None:
    """The new one; the study goes on with what is further there."""
    path = tmp_path / "study"
    client.study(path, texts=["aa", "bad"], **MINILM)
    folder = Folder.open(path)
    folder.replace(0, {0: "old", 1: "old"}, folder.part(0))
    found = client.study(path, texts=["aa", "bad", "c"], **MINILM, retry_errors=True)
    assert list(found.folder.names()) == ["aa", "bad", "c"]
    ((at, error),) = found.folder.inputs(0)[1].items()
    assert (at, error.endswith("bad; expected a good one")) == (1, True)
    assert found.moments.count.max() == 2


def test_where_nothing_counts_there_is_no_number(client: Client, tmp_path: Path) -> None:
    """Neither a mean of 0 nor an infinity; of one input there is no deviation."""
    found = client.study(tmp_path / "study", texts=["bad"], **MINILM)
    with (found.path / "heads.csv").open(newline="") as file:
        assert next(iter(csv.DictReader(file))) == {
            "statistic": "entropy",
            "layer": "0",
            "head": "0",
            "count": "0",
            "mean": "",
            "sd": "",
            "least": "",
            "largest": "",
        }
    assert "<td>none</td>" in report_html(found)
    assert "<td>0</td>" not in report_html(found)
    one = client.study(tmp_path / "one", texts=["aa"], **MINILM)
    with (one.path / "heads.csv").open(newline="") as file:
        row = next(iter(csv.DictReader(file)))
    assert (row["count"], row["sd"], row["least"]) == ("1", "", row["mean"])


def test_what_is_asked_fits_the_model(server: FakeServer, client: Client, tmp_path: Path) -> None:
    """All that texts, or images with a class token, have; what was chosen otherwise."""
    client.study(tmp_path / "texts", texts=["a"], model="minilm")
    asked = server.requests[-1].attention
    assert len(asked.statistics) == 11
    assert not asked.layers
    client.study(tmp_path / "chosen", texts=["a"], model="minilm", layers=[-1], drop_special=True, value_weighted=True)
    asked = server.requests[-1].attention
    assert ([*asked.layers], asked.drop_special, asked.value_weighted) == ([-1], True, True)
    found = Study.open(tmp_path / "chosen")
    assert found.layers == [(11, [0, 1, 2])]
    assert found.statistics[-1] == "norm"
    assert not {"first", "separator", "special"} & set(found.statistics)


def test_contributions_are_of_all_heads_together(client: Client, tmp_path: Path) -> None:
    """One number a layer, which no head has."""
    found = client.study(tmp_path / "study", texts=["a", "bb"], **MINILM, contributions=True)
    assert found.layers[3] == (3, [None])
    np.testing.assert_allclose(found.moments.mean[:, 0], numbers_of(["a", "bb"])[:, :, 0].mean(axis=0), rtol=1e-6)
    assert found.rank("sink")[0].head is None
    assert "layer 11: 12.5" in report_html(found).replace('<span class="number">', "")
    pandas = pytest.importorskip("pandas", reason="needs the extra tables")
    assert pandas.read_parquet(found.path / "tables")["head"].isna().all()


def test_the_class_token_of_pictures_is_at_no_distance(server: FakeServer, client: Client, tmp_path: Path) -> None:
    """It has no place there; a text's has."""
    server.judge = lambda request, _: (
        (grpc.StatusCode.FAILED_PRECONDITION, "seen", ()) if request.DESCRIPTOR.name == "ClassifyRequest" else None
    )
    with pytest.raises(Exception, match="seen"):
        client.study(tmp_path / "images", images=[photo_bytes()], model="photos", cls_only=True)
    assert pb.ATTENTION_STATISTIC_DISTANCE not in server.requests[-1].attention.statistics
    client.study(tmp_path / "texts", texts=["a"], model="minilm", cls_only=True)
    assert pb.ATTENTION_STATISTIC_DISTANCE in server.requests[-1].attention.statistics


def test_pictures_and_pairs_are_asked_for_likewise(server: FakeServer, client: Client, tmp_path: Path) -> None:
    """By the call that carries most: Classify of images, Attend of pairs where the model does not classify."""
    cases: list[tuple[str, Any, str]] = [("images", [photo_bytes()], "photos"), ("pairs", [("a", "b")], "minilm")]
    server.judge = lambda request, _: (
        (grpc.StatusCode.FAILED_PRECONDITION, "seen", ()) if request.DESCRIPTOR.name[0] in "ACE" else None
    )
    names = []
    for kind, inputs, model in cases:
        with pytest.raises(Exception, match="seen"):
            client.study(tmp_path / kind, model=model, **{kind: inputs})
        names.append(server.requests[-1].DESCRIPTOR.name)
        assert not (tmp_path / kind / "study.json").exists()  # nothing stands there: the next run may begin
    assert names == ["ClassifyRequest", "AttendRequest"]


def test_a_run_that_was_killed_goes_on(server: FakeServer, tmp_path: Path, run: Run) -> None:
    """With what it has: whole parts; what is found at the end is as if nothing had happened."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))

    def hold_back(request: Any, _: grpc.ServicerContext) -> None:
        if hasattr(request, "texts") and len(server.requests) > 150:  # three texts a call: the second part has begun
            server.released.wait(60)

    server.judge = hold_back
    options = ("--statistic", "entropy", "--statistic", "sink")
    asked = ("study", "--lines", "texts.txt", "--model", "minilm", *options, "-o", "out")
    process = subprocess.Popen([*REGARD, "--server", server.address, *asked], cwd=tmp_path, env=os.environ)
    part = tmp_path / "out" / "inputs" / "000000.json"
    while process.poll() is None and not (part.exists() and len(server.requests) > 150):
        server.arrived.wait(0.01)  # files and requests are what is waited for
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    server.released.set()
    there = Folder.open(tmp_path / "out")
    assert there.count == PART_INPUTS
    refused = run(*asked)
    assert (refused.code, refused.err) == (
        1,
        "regard: out: holds a study; expected another folder, or resume (--resume) to go on\n",
    )
    server.requests = []
    server.judge = lambda request, _: None
    assert run(*asked, "--resume").code == 0
    again = [text for request in server.requests if hasattr(request, "texts") for text in request.texts.items]
    assert sorted(again) == sorted(TEXTS[PART_INPUTS:])
    found = Study.open(tmp_path / "out")
    np.testing.assert_array_equal(np.concatenate(list(found.folder.parts())), numbers_of(TEXTS))
    np.testing.assert_allclose(found.moments.mean, numbers_of(TEXTS).mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert [one.number for one in found.examples("sink", 5, 1)][:2] == [8, 17]


def test_a_study_grows_by_further_inputs(client: Client, tmp_path: Path) -> None:
    """Its last part is filled up; nothing is asked for twice."""
    client.study(tmp_path / "study", texts=iter(TEXTS[:300]), **MINILM)
    found = client.study(tmp_path / "study", texts=iter(TEXTS), **MINILM, resume=True)
    np.testing.assert_array_equal(np.concatenate(list(found.folder.parts())), numbers_of(TEXTS))
    np.testing.assert_allclose(found.moments.mean, numbers_of(TEXTS).mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(found.moments.count, 600)
    if (tables := found.path / "tables").exists():
        pandas = pytest.importorskip("pandas")
        assert len(pandas.read_parquet(tables)) == 600 * NUM_LAYERS * NUM_HEADS


def test_a_run_that_the_server_ends_keeps_what_it_has(server: FakeServer, client: Client, tmp_path: Path) -> None:
    """A part that is not full, too."""

    def end(request: Any, _: grpc.ServicerContext) -> Any:
        late = hasattr(request, "texts") and TEXTS[60] in request.texts.items and len(server.requests) > 20
        return (grpc.StatusCode.PERMISSION_DENIED, "no more", ()) if late else None

    server.judge = end
    with pytest.raises(Exception, match="no more"):
        client.study(tmp_path / "study", texts=iter(TEXTS), **MINILM)
    there = Folder.open(tmp_path / "study")
    assert 0 < there.count < 100
    server.judge = lambda request, _: None
    found = client.study(tmp_path / "study", texts=iter(TEXTS), **MINILM, resume=True)
    np.testing.assert_array_equal(np.concatenate(list(found.folder.parts())), numbers_of(TEXTS))


def test_a_study_goes_on_with_the_same_inputs_and_options_alone(client: Client, tmp_path: Path) -> None:
    """Else numbers would stand beside others."""
    path = tmp_path / "study"
    client.study(path, texts=iter(TEXTS[:3]), **MINILM)
    with pytest.raises(InputError, match=r"study: holds a study; expected another folder, or resume"):
        client.study(path, texts=iter(TEXTS[:3]), **MINILM)
    with pytest.raises(InputError, match=r"study: statistics \['entropy'\]; expected \['entropy', 'sink'\], as before"):
        client.study(path, texts=iter(TEXTS), model="minilm", statistics=["entropy"], resume=True)
    with pytest.raises(InputError, match=r"study, input 1: 'b\.'; got 'x': resuming wants the same inputs"):
        client.study(path, texts=iter(["a", "x"]), **MINILM, resume=True)
    with pytest.raises(InputError, match=r"study, input 2: 'c\.\.'; got nothing"):
        client.study(path, texts=iter(TEXTS[:2]), **MINILM, resume=True)
    assert Study.open(path).num_inputs == 3
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="other: holds something else; expected a new folder, or an empty one"):
        client.study(other, texts=iter(TEXTS), **MINILM)


def test_pairs_and_bytes_are_known_by_what_they_are() -> None:
    """Their places alone would let a study go on with others, or compare others one by one."""
    pairs = [study_calls._name("pairs", *one) for one in enumerate([("a", "b"), ["c", "d"], ("e", 7)])]
    assert pairs == ["a · b", "c · d", "pairs[2]"]
    photos = [study_calls._name("images", *one) for one in enumerate([b"one", Path("a.png"), b"other"])]
    assert photos == ["images[0] 7692c3ad3540bb80", "a.png", "images[2] d9298a10d1b07358"]


def test_a_file_where_a_studys_folder_is_expected_is_refused(tmp_path: Path) -> None:
    """To be read, and on the way to one that is written."""
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="file: holds no study; expected a folder that regard study has written"):
        Folder.open(tmp_path / "file")
    with pytest.raises(OSError, match=r"^[^\[].*out: Not a directory; expected a folder that can be written$"):
        Folder.begin(tmp_path / "file" / "out", {}, resume=False)


def test_one_run_at_a_time_writes_a_folder(client: Client, studied: Study) -> None:
    """Where the system locks files."""
    fcntl = pytest.importorskip("fcntl", reason="not on Windows")
    with (studied.path / "study.json").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(InputError, match="study: another run is writing it"):
            client.study(studied.path, texts=iter(TEXTS), **MINILM, resume=True)


def test_a_folder_that_is_damaged_says_where(studied: Study, tmp_path: Path) -> None:
    """Or that there is none."""
    with pytest.raises(InputError, match="nothing: holds no study; expected a folder that regard study has written"):
        Study.open(tmp_path / "nothing")
    chunk = studied.path / "values.zarr" / "c" / "1" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"c/1/0/0/0: \d+ bytes; expected \d+, as this program wrote"):
        Study.open(studied.path)
    (studied.path / "inputs" / "000001.json").write_text("{}")
    with pytest.raises(InputError, match="study: damaged; expected what this program wrote"):
        Study.open(studied.path)
    (studied.path / "inputs" / "000001.json").unlink()
    with pytest.raises(InputError, match=r"000002.json: expected 000001.json, the next part"):
        Study.open(studied.path)


def test_arguments_that_cannot_be_used_are_refused(client: Client, tmp_path: Path) -> None:
    """Before a folder is made."""
    cases: list[tuple[dict[str, Any], Any, str]] = [
        ({}, InvalidArgument, "images, texts, pairs: give exactly one of them; got none"),
        ({"texts": ["a"], "model": "nobody"}, NotFound, "'nobody' is not served"),
        (
            {"texts": ["a"], "model": "tensors"},
            InvalidArgument,
            "model: 'tensors'; expected one that was exported with",
        ),
        ({"texts": ["a"], "model": "minilm", "statistics": ["no"]}, InvalidArgument, "attention statistics is 'no'"),
        ({"texts": ["a"], "model": "minilm", "examples": -1}, InvalidArgument, "examples: -1; expected"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            client.study(tmp_path / "study", **arguments)
        assert not (tmp_path / "study").exists()


def longer(texts: list[str]) -> Iterator[str]:
    """The same, each with two more letters."""
    return (text + "!!" for text in texts)


def test_other_inputs_are_compared_by_their_means(client: Client, studied: Study, tmp_path: Path) -> None:
    """Hedges' g with its interval, of what is two letters longer, and of what is the same in other words."""
    other = client.study(tmp_path / "longer", texts=longer(TEXTS[:300]), **MINILM)
    drift = compare(studied, other)
    one, two = (numbers_of(texts)[:, 7, 1, 0].astype(np.float64) for texts in (TEXTS, [*longer(TEXTS[:300])]))
    pooled = np.sqrt((599 * one.var(ddof=1) + 299 * two.var(ddof=1)) / 898)
    effect = (two.mean() - one.mean()) / pooled * (1 - 3 / (4 * 898 - 1))
    error = np.sqrt(900 / (600 * 300) + effect**2 / 1800)
    assert not drift.is_paired
    assert drift.effect[7, 1, 0] == pytest.approx(effect, rel=1e-6)
    assert drift.low[7, 1, 0] == pytest.approx(effect - 1.959964 * error, rel=1e-6)
    assert drift.high[7, 1, 0] == pytest.approx(effect + 1.959964 * error, rel=1e-6)
    assert drift.is_clear.all()
    assert drift.changes("sink")[0].effect > 0.5
    halves = compare(
        studied, client.study(tmp_path / "same", texts=longer(["." * len(text[2:]) for text in TEXTS]), **MINILM)
    )
    assert np.abs(halves.effect).max() < 1


def test_the_same_inputs_are_compared_one_by_one(studied: Study, tmp_path: Path) -> None:
    """What is the same of each is clear, however the inputs differ among themselves."""
    path = tmp_path / "after"
    folder = Folder.begin(path, studied.folder.asked | {"version": "3"}, resume=False)
    noise = np.random.default_rng(0).normal(0, 0.01, (600, NUM_LAYERS, NUM_HEADS, 2))
    values = (numbers_of(TEXTS) + 0.05 + noise).astype(np.float32)
    for first in range(0, 600, PART_INPUTS):
        folder.add(TEXTS[first : first + PART_INPUTS], {}, values[first : first + PART_INPUTS])
    folder.close()
    drift = compare(studied, Study.open(path))
    assert drift.is_paired
    assert drift.is_clear.all()
    assert drift.effect[0, 0, 0] == pytest.approx(0.05 / np.sqrt(studied.moments.variance[0, 0, 0]), rel=0.05)
    assert (drift.high - drift.low).max() < 0.01  # of other inputs it would be 0.23
    nothing = compare(studied, studied)
    assert not nothing.is_clear.any()
    assert np.abs(nothing.effect).max() == 0


def constant(path: Path, asked: dict[str, Any], name: str, value: float) -> Study:
    """A study of three inputs that all have this number; 0.1 is none that binary floats hold exactly."""
    folder = Folder.begin(path, asked, resume=False)
    folder.add([f"{name} {number}" for number in range(3)], {}, np.full((3, NUM_LAYERS, NUM_HEADS, 2), value, "f4"))
    folder.close()
    return Study.open(path)


@pytest.mark.parametrize("name", ["a", "b"], ids=["paired", "others"])
def test_constants_that_differ_are_infinitely_far_apart(studied: Study, tmp_path: Path, name: str) -> None:
    """They have no deviation to measure in: no interval, and clear; equal ones are 0 apart."""
    asked = studied.folder.asked
    one = constant(tmp_path / "one", asked, "a", 0.1)
    other = constant(tmp_path / "other", asked | {"version": "3"}, name, 0.7)
    for drift, sign in ((compare(one, other), 1), (compare(other, one), -1)):
        assert drift.is_paired == (name == "a")
        assert (drift.effect == sign * np.inf).all()
        assert np.isnan(drift.low).all()
        assert np.isnan(drift.high).all()
        assert drift.is_clear.all()
        page = report_html(other, drift)
        assert f"{'+' if sign > 0 else '-'}∞ (constant in both)" in page
        assert "nan" not in page
        assert "from -1.00 to 1.00" in page
        assert f'fill="{diverging(sign)}"><title>' in page
        drift.write(tmp_path / "drift.csv")
        with (tmp_path / "drift.csv").open(newline="") as file:
            row = next(csv.DictReader(file))
        assert float(row["effect"]) == sign * np.inf
        assert (row["low"], row["high"], row["clear"]) == ("nan", "nan", "True")
    same = compare(one, constant(tmp_path / "same", asked, name, 0.1))
    assert not same.is_clear.any()
    assert (same.effect == 0).all()
    assert (same.high == 0).all()


def test_studies_of_other_heads_are_not_compared(client: Client, studied: Study, tmp_path: Path) -> None:
    """It would compare what is not the same."""
    other = client.study(tmp_path / "other", texts=["a", "b"], model="minilm", statistics=("sink", "entropy"))
    with pytest.raises(
        InvalidArgument, match=r"other: statistics: sink, entropy; expected entropy, sink, as .*study has it"
    ):
        compare(studied, other)
    last = client.study(tmp_path / "last", texts=["a", "b"], **MINILM, layers=[-1])
    with pytest.raises(InvalidArgument, match=r"last: layers: 11 \(3 heads\); expected 0 \(3 heads\), 1 \(3 heads\), "):
        compare(studied, last)


def test_a_comparison_that_cannot_be_made_is_refused_before_anything_is_asked(
    server: FakeServer, run: Run, studied: Study
) -> None:
    """What is counted otherwise is not comparable, be the statistics called alike; an hour later is late to say it."""
    asked = ("study", "--text", "a", "--model", "minilm", "--statistic", "entropy", "--statistic", "sink")
    calls = sum(bool(getattr(one, "attention", None)) for one in server.requests)
    done = run(*asked, "--drop-special", "-o", "other", "--against", str(studied.path))
    assert done.code == 1
    assert done.err.endswith(f"other: drop_special: true; expected false, as {studied.path} has it\n")
    assert sum(bool(getattr(one, "attention", None)) for one in server.requests) == calls


def test_the_command_writes_shows_and_compares(run: Run, tmp_path: Path) -> None:
    """A table of the extremes; drift beside the page."""
    (tmp_path / "one.txt").write_text("\n".join(TEXTS[:20]))
    (tmp_path / "two.txt").write_text("\n".join(longer(TEXTS[:20])))
    options = ("--lines", "--model", "minilm", "--statistic", "sink", "--examples", "2")
    done = run("study", "one.txt", *options, "-o", "one")
    assert done.code == 0
    assert done.err.splitlines()[-1] == "regard: wrote one/report.html"
    (line,) = [line.split() for line in done.out.splitlines() if line.startswith("sink")]
    assert line == ["sink", "layer", "11", "head", "2", "15.9", "layer", "0", "head", "0", "4.65"]
    assert run("study", "two.txt", *options, "-o", "two", "--against", "one").code == 0
    with (tmp_path / "two" / "drift.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == NUM_LAYERS * NUM_HEADS
    assert float(rows[0]["after"]) - float(rows[0]["before"]) == pytest.approx(2, rel=1e-5)
    page = (tmp_path / "two" / "report.html").read_text()
    assert "<h2>Drift</h2>" in page
    assert "<script" not in page


def test_a_command_that_the_server_ends_says_how_to_go_on(server: FakeServer, run: Run, tmp_path: Path) -> None:
    """As those do that write a file of results."""
    (tmp_path / "one.txt").write_text("\n".join(TEXTS[:300]))
    asked = 0

    def judge(request: Any, _: Any) -> Any:
        nonlocal asked
        asked += request.DESCRIPTOR.name == "EmbedRequest"
        return (grpc.StatusCode.NOT_FOUND, "gone", ()) if asked > 5 else None

    server.judge = judge
    done = run("study", "--lines", "one.txt", "--model", "minilm", "--statistic", "sink", "-o", "one")
    there = Study.open(tmp_path / "one").num_inputs
    assert (done.code, there > 0) == (1, True)
    assert f"regard: {there} inputs are in one; --resume goes on after them\n" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--statistic", "entropie"), "'entropie'; expected some of entropy, distance"),
        (("--span", "7"), "'7'; expected START-END"),
        (("--span", "9-7"), "'9-7'; expected START-END"),
        (("--box", "1,2,3"), "'1,2,3'; expected LEFT,TOP,RIGHT,BOTTOM"),
        (("--lines", "--column", "text"), "expected no --lines with it"),
        (("--against", "nowhere"), "nowhere: holds no study"),
    ],
)
def test_options_that_cannot_be_used_are_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """Before anything is asked."""
    done = run("study", "--text", "a", "--model", "minilm", "-o", "out", *arguments)
    assert done.code in (1, 2)
    assert message in " ".join(done.err.replace("│", " ").split())


def test_a_page_shows_photos_and_escapes_names(studied: Study, tmp_path: Path) -> None:
    """What an input is called may be anything; a file is shown small."""
    photo = tmp_path / "<b>.png"
    photo.write_bytes(photo_bytes())
    path = tmp_path / "photos"
    folder = Folder.begin(path, studied.folder.asked | {"kind": "images", "modality": "image"}, resume=False)
    folder.add([str(photo), "images[1] & <i>"], {}, numbers_of(["aaa", "a"]))
    folder.close()
    page = report_html(Study.open(path))
    assert "&lt;b&gt;.png" in page
    assert "images[1] &amp; &lt;i&gt;" in page
    assert "<i>" not in page
    assert page.count('<img src="data:image/webp;base64,') == 6  # of two statistics three heads each
    assert "layer 11, head 2" in page
