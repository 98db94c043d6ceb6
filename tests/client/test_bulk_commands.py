"""Many inputs on the command line: what is taken, what is written, and that an interruption harms nothing."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regard import pace
from regard.gathering import Gathering
from regard.results import Results
from regard.sources import InputError, Source, read_source
from tests.client.conftest import Run
from tests.client.fake import FakeServer, Refusal, photo_bytes
from tests.client.test_cli import REGARD

MINILM = ("--model", "minilm")
TEXTS = ["a", "b", "c", "bad", "e", "f", "g"]


def direction(text: str) -> list[float]:
    """Return what the fake server makes of a text."""
    return [float(place == ord(text[0]) % 4) for place in range(4)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A file of lines, one of which the server refuses."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two photos, a file that is none, and a note."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.jpg"):
        (folder / name).write_bytes(photo_bytes())
    (folder / "note.md").write_text("no photo")
    return folder


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_vectors_are_written_in_order_with_errors_in_a_column(run: Run, texts: Path, tmp_path: Path) -> None:
    """And the command ends with 1."""
    done = run("embed", "--lines", texts, *MINILM, "-o", "out.jsonl")
    assert (done.code, done.out) == (1, "")
    told = 'regard: 1 of 7 inputs have errors: see the column "error"; --retry-errors asks for them again\n'
    assert done.err == f"regard: wrote out.jsonl\n{told}"
    found = read_lines(tmp_path / "out.jsonl")
    assert [(one["input"], one["line"]) for one in found] == [(text, at) for at, text in enumerate(TEXTS, 1)]
    assert found[3]["error"] == "INVALID_ARGUMENT: texts[3]: bad; expected a good one"
    assert [one["vector"] for one in found if not one["error"]] == [direction(text) for text in TEXTS if text != "bad"]
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_npz_has_an_array_a_column(run: Run, texts: Path, tmp_path: Path) -> None:
    """An input without a vector has NaN."""
    assert run("embed", "--lines", texts, *MINILM, "-o", "out.npz").code == 1
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["input"].tolist() == TEXTS
        assert saved["vector"].dtype == np.float32
        assert saved["vector"][[0, 4]].tolist() == [direction("a"), direction("e")]
        assert np.isnan(saved["vector"][3]).all()
        assert [bool(error) for error in saved["error"]] == [text == "bad" for text in TEXTS]


def test_parquet_is_read_and_written(run: Run, tmp_path: Path) -> None:
    """A column of texts goes in, vectors come out as lists."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra tables")
    pytest.importorskip("pyarrow.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "text": TEXTS[2:5]}), tmp_path / "in.parquet")
    assert run("embed", "in.parquet", "--column", "text", *MINILM, "-o", "out.parquet").code == 1
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [one["vector"] for one in found] == [direction("c"), None, direction("e")]
    assert [one["input"] for one in found] == TEXTS[2:5]
    assert run("classify", "in.parquet", "--column", "text", "--model", "photos", "-o", "labels.parquet").code == 0
    first = pyarrow.parquet.read_table(tmp_path / "labels.parquet").to_pylist()[0]
    assert (first["labels"], first["probabilities"]) == (["cat", "[dog]"], [0.75, 0.25])
    refused = run("embed", "in.parquet", "--column", "texts", *MINILM, "-o", "out.npz")
    assert "--column texts: in.parquet has no such column; expected one of id, text" in refused.err
    pictures = pyarrow.table({"photo": [photo_bytes(), b"broken"]})
    pyarrow.parquet.write_table(pictures, tmp_path / "photos.parquet")
    assert run("classify", "photos.parquet", "--column", "photo", "--model", "photos", "-o", "p.npz").code == 0


def test_parquet_needs_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is asked."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = run("embed", "a", *MINILM, "-o", "out.parquet")
    assert "Parquet files need pyarrow: install regard with its extra tables" in done.err


def test_columns_of_csv_files_are_taken(run: Run, tmp_path: Path) -> None:
    """With quoted line ends; or as paths with --file."""
    (tmp_path / "in.csv").write_text('id,text\n1,"a\nb"\n2,c\n', encoding="utf-8-sig")
    assert run("embed", "in.csv", "--column", "text", *MINILM, "-o", "out.jsonl").code == 0
    assert [(one["input"], one["line"]) for one in read_lines(tmp_path / "out.jsonl")] == [("a\nb", 1), ("c", 2)]
    (tmp_path / "p.png").write_bytes(photo_bytes())
    (tmp_path / "files.csv").write_text("path\np.png\nq.png\n")
    done = run("classify", "files.csv", "--column", "path", "--file", "--model", "photos", "-o", "out.jsonl")
    assert done.code == 1
    assert [bool(one["error"]) for one in read_lines(tmp_path / "out.jsonl")] == [False, True]
    (tmp_path / "latin.csv").write_bytes(b"text\n\xe4\n")
    done = run("embed", "latin.csv", "--column", "text", *MINILM, "-o", "other.jsonl")
    assert (done.code, "latin.csv: 'utf-8' codec" in done.err) == (1, True)
    assert "in.csv: a table; expected --column" in run("embed", "in.csv", *MINILM).err


@pytest.mark.parametrize("given", ["photos", "photos/*.[jp][pn]g", "photos/"])
def test_a_folder_or_a_pattern_is_its_photos(run: Run, photos: Path, tmp_path: Path, given: str) -> None:
    """By name, without what is none."""
    assert run("classify", given, "--model", "photos", "-o", "out.jsonl").code == 0
    assert [one["input"] for one in read_lines(tmp_path / "out.jsonl")] == ["photos/a.jpg", "photos/b.png"]
    assert run("classify", "photos/a.jpg", "photos/b.png", "--model", "photos", "-o", "named.jsonl").code == 0
    assert (tmp_path / "named.jsonl").read_text() == (tmp_path / "out.jsonl").read_text()
    shown = run("classify", given, "--model", "photos", "--top-k", "1")
    assert shown.out == "photos/a.jpg: cat 75.0 %\nphotos/b.png: cat 75.0 %\n"


def test_attention_of_many_is_written(run: Run, photos: Path, tmp_path: Path) -> None:
    """An array a layer; what a view needs, as for one."""
    assert run("attend", photos, "--model", "photos", "--layer", "0", "--head", "1", "-o", "out.npz").code == 0
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["weights.0"].shape[0] == 2
        assert saved["patches"].tolist() == [[1, 2, 3]] * 2
    assert run("attend", "cats", "dogs sit", *MINILM, "-o", "out.jsonl").code == 0
    assert [one["tokens"] for one in read_lines(tmp_path / "out.jsonl")] == [["a"], ["a"]]


def test_photos_by_a_pattern_are_drawn_as_one_sheet(run: Run, photos: Path, tmp_path: Path) -> None:
    """As those of a folder; texts are written."""
    assert run("attend", "photos/*.png", photos / "a.jpg", "--model", "photos", "-o", "sheet.pdf").code == 0
    assert (tmp_path / "sheet.pdf").read_bytes().startswith(b"%PDF")
    assert "a text; expected photos, or -o with .jsonl" in run("attend", "a cat", "a dog", *MINILM).err


def test_a_run_that_was_killed_goes_on(server: FakeServer, tmp_path: Path, run: Run) -> None:
    """What is written is whole, in order and each input once; the one cut off in the middle is asked for again."""
    texts = [f"{'abcd'[number % 4]} {number}" for number in range(60)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))

    def hold_back(request: Any, _: grpc.ServicerContext) -> None:
        if hasattr(request, "texts") and any(text.endswith(" 40") for text in request.texts.items):
            server.released.wait(60)

    server.judge = hold_back
    partial, asked = tmp_path / "out.jsonl.partial", ("embed", "--lines", "texts.txt", *MINILM, "-o", "out.jsonl")
    process = subprocess.Popen([*REGARD, "--server", server.address, *asked], cwd=tmp_path, env=os.environ)
    while process.poll() is None and (not partial.exists() or partial.read_bytes().count(b"\n") < 31):
        server.arrived.wait(0.01)  # its lines are what is waited for
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    server.released.set()
    written = partial.read_bytes()
    there = written.count(b"\n") - 1  # the first line says what is asked
    assert 30 <= there <= 40
    with partial.open("ab") as file:
        file.write(b'{"input": "a 4')  # the kernel had no more
    refused = run(*asked)
    assert (refused.code, refused.err) == (
        1,
        "regard: out.jsonl.partial: of an interrupted run; expected --resume to go on, or remove it\n",
    )
    server.requests = []
    assert run(*asked, "--resume").code == 0
    found = read_lines(tmp_path / "out.jsonl")
    assert [one["input"] for one in found] == texts
    assert [one["vector"] for one in found] == [direction(text) for text in texts]
    again = [text for request in server.requests if hasattr(request, "texts") for text in request.texts.items]
    assert sorted(again) == sorted(texts[there:])
    assert run(*asked, "--resume").err == "regard: out.jsonl is whole already\n"


def test_a_run_goes_on_with_the_same_inputs_alone(tmp_path: Path) -> None:
    """Else the answers would stand beside others."""
    results = Results(tmp_path / "out.npz", resume=True)
    with results:
        results.add({"input": "a", "error": None})
        results.add({"input": "b", "error": "oh"})

    def sources(*names: str) -> Iterator[Source]:
        return (Source(name, None, name) for name in names)

    with Results(tmp_path / "out.npz", resume=True) as later:
        assert (later.count, later.errors) == (2, 1)
        assert [source.name for source in later.skip(sources("a", "b", "c"))] == ["c"]
        with pytest.raises(InputError, match="input 2: 'b'; got 'x': --resume wants the same inputs"):
            list(later.skip(sources("a", "x")))
        with pytest.raises(InputError, match="input 1: 'a'; got nothing"):
            list(later.skip(sources()))


def test_a_run_goes_on_with_the_same_options_alone(run: Run, texts: Path, tmp_path: Path) -> None:
    """Else vectors of two kinds would stand in one file."""
    asked = ("embed", "--lines", texts, *MINILM, "-o", "out.jsonl")
    partial = tmp_path / "out.jsonl.partial"
    assert run(*asked).code == 1
    with Results(tmp_path / "out.jsonl", asked={"task": "embed", "model": "minilm", "dimensions": 0}) as results:
        results.add({"input": "a", "error": None})
    done = run(*asked, "--dimensions", "2", "--resume")
    assert (done.code, "dimensions: 2; expected 0, as before: --resume wants the same options" in done.err) == (1, True)
    partial.write_bytes(b'{}\n{"input": "a"\n')
    with pytest.raises(InputError, match="line 2: damaged; expected what"):
        Results(tmp_path / "out.jsonl", resume=True).__enter__()


def test_a_run_that_wrote_nothing_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """The next one needs no --resume."""
    assert run("embed", "--lines", "none.txt", *MINILM, "-o", "out.jsonl").code == 1
    (tmp_path / "some.txt").write_text("a")
    assert run("embed", "--lines", "some.txt", "--model", "none", "-o", "out.jsonl").code == 1
    assert run("embed", "--lines", "some.txt", *MINILM, "-o", "out.jsonl").code == 0
    (tmp_path / "folder.npz").mkdir()
    assert "folder.npz: a folder; expected a file" in run("embed", "a", *MINILM, "-o", "folder.npz").err


def test_one_run_at_a_time_writes_a_file(tmp_path: Path) -> None:
    """Another one is refused, with --resume too, and leaves it as it is."""
    pytest.importorskip("fcntl", reason="this system locks no files")
    with Results(tmp_path / "out.npz") as first:
        first.add({"input": "a", "error": None})
        with pytest.raises(InputError, match="another run is writing it"):
            Results(tmp_path / "out.npz", resume=True).__enter__()
        first.add({"input": "b", "error": None})
    with Results(tmp_path / "out.npz", resume=True) as later:
        assert later.count == 2


def test_a_line_that_is_not_written_whole_is_an_error(tmp_path: Path) -> None:
    """A disk that is full takes part of a line; the next run asks for that input again."""
    resource = pytest.importorskip("resource", reason="this system limits no files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    results = Results(tmp_path / "out.npz")
    with pytest.raises(OSError, match="large"), results:
        results.add({"input": "a", "error": None})
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            results.add({"input": "b" * 20_000, "error": None})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Results(tmp_path / "out.npz", resume=True) as later:
        assert later.count == 1


def test_arrays_of_several_shapes_stand_flat_with_offsets(tmp_path: Path) -> None:
    """In .npz; their numbers are what came, bit by bit."""
    results = Results(tmp_path / "out.npz")
    arrays = [np.arange(6, dtype=np.float16).reshape(2, 3), np.array([[np.pi]], np.float16)]
    with results:
        for array in arrays:
            results.add({"input": "a", "error": None, "weights": array, "tokens": ["x"] * len(array)})
        results.add({"input": "b", "error": "oh"})
    results.finish()
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["weights"].tolist() == [*range(6), float(np.float16(np.pi))]
        assert saved["weights.offsets"].tolist() == [0, 6, 7, 7]
        assert saved["weights.shapes"].tolist() == [[2, 3], [1, 1], [0, 0]]
        assert (saved["tokens"].tolist(), saved["tokens.offsets"].tolist()) == (["x"] * 3, [0, 2, 3, 3])


@pytest.mark.parametrize(
    "name", ["letter.txt", "data.csv", "notes/today", "his/her", "my holiday.jpg", "https://example.com/a.jpg"]
)
def test_a_mistyped_file_name_is_no_text(run: Run, name: str) -> None:
    """Unless it is said to be one; nor is a text that is said to be a file."""
    if not name.endswith(".csv"):
        done = run("embed", name, *MINILM)
        assert (done.code, f"regard: {name}: no such file; expected one, or --text" in done.err) == (1, True)
    assert run("embed", "--text", name, *MINILM).out.startswith(f"{name}: 4 wide")
    assert run("embed", "--file", "cat", *MINILM).err == "regard: cat: no such file\n"
    assert read_source("either his or her/their one").text
    assert read_source("What is that?").text


def test_texts_and_photos_are_not_mixed(run: Run, photos: Path, tmp_path: Path) -> None:
    """A model takes one or the other."""
    done = run("embed", photos, "a text", "--model", "photos", "-o", "out.npz")
    assert (done.code, "a text: a text beside a photo" in done.err) == (1, True)


def test_stdin_is_endless(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its lines are taken one by one; other options want what they are of."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\r\n\rb\n\nc")))
    assert run("embed", "--lines", "-", *MINILM, "-o", "out.jsonl").code == 0
    assert [(one["input"], one["line"]) for one in read_lines(tmp_path / "out.jsonl")] == [("a", 1), ("b", 3), ("c", 5)]
    for arguments, told in (
        (("--resume",), "expected -o with a .jsonl, .npz or .parquet"),
        (("--lines", "--column", "a"), "expected no --lines with it"),
    ):
        done = run("embed", "a", *arguments)
        assert (done.code, told in done.err) == (2, True)


def test_inputs_are_counted_for_the_bar(photos: Path, texts: Path) -> None:
    """Where that is quickly known."""
    assert Gathering().count([str(photos), "a text"]) == 3
    assert Gathering(lines=True).count([str(texts), str(texts)]) == 14
    assert Gathering(lines=True).count(["-"]) is None


def test_a_pipe_is_read_once(run: Run, tmp_path: Path) -> None:
    """Not counted first: then nothing would be left of it."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("a\nb\n",))
    writer.start()
    assert run("embed", "--lines", "pipe", *MINILM, "-o", "out.jsonl").code == 0
    writer.join()
    assert [one["input"] for one in read_lines(tmp_path / "out.jsonl")] == ["a", "b"]


@pytest.mark.parametrize("suffix", ["jsonl", "npz", "parquet"])
def test_inputs_that_have_errors_are_asked_for_again(
    run: Run, server: FakeServer, texts: Path, tmp_path: Path, suffix: str
) -> None:
    """They alone, and their answers take their places; until then a file that is whole ends with 1 again."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra tables")
    output, broken = tmp_path / f"out.{suffix}", {"b", "f"}

    def judge(request: Any, _: grpc.ServicerContext) -> Refusal | None:
        asked = set(request.texts.items) if hasattr(request, "texts") else set()
        return (grpc.StatusCode.INTERNAL, "oh", ()) if asked & broken else None

    server.judge = judge
    asked = ("embed", "--lines", texts, *MINILM, "-o", output)
    assert run(*asked).code == 1
    before, journal = output.read_bytes(), tmp_path / f"out.{suffix}.journal"
    again = run(*asked, "--resume")
    assert (again.code, "3 of 7 inputs have errors" in again.err, output.read_bytes()) == (1, True, before)
    refused = run(*asked, "--retry-errors", "--dimensions", "2")
    assert (refused.code, "dimensions: 2; expected 0" in refused.err, journal.exists()) == (1, True, True)
    server.requests, broken = [], {"f"}
    some = run(*asked, "--retry-errors")
    assert (some.code, "2 of 7 inputs have errors" in some.err) == (1, True)
    sent = {text for request in server.requests if hasattr(request, "texts") for text in request.texts.items}
    assert sent == {"b", "bad", "f"}
    broken = set()
    texts.write_text(texts.read_text().replace("bad", "d"))
    other = run(*asked, "--retry-errors")
    assert "input 4: 'bad'; got 'd': --resume wants the same inputs" in other.err
    assert run(*asked, "--resume").code == 1


def test_a_file_that_is_retried_is_as_one_that_had_no_errors(run: Run, server: FakeServer, tmp_path: Path) -> None:
    """Byte by byte, and nothing is left beside it; also where the retry was interrupted."""
    (tmp_path / "some.txt").write_text("\n".join("abcdef"))
    asked, gone = ("embed", "--lines", "some.txt", *MINILM), {"b", "e"}

    def judge(request: Any, _: grpc.ServicerContext) -> Refusal | None:
        found = set(request.texts.items) if hasattr(request, "texts") else set()
        return (grpc.StatusCode.INTERNAL, "oh", ()) if found & gone else None

    server.judge = judge
    assert run(*asked, "-o", "out.jsonl").code == 1
    gone = {"e"}
    with Results(tmp_path / "out.jsonl", asked=_asked(tmp_path / "out.jsonl.journal"), retry=True) as results:
        assert (results.count, results.total, results.errors) == (4, 6, 2)
        sources = (Source(name, None, name, file="some.txt", number=at) for at, name in enumerate("abcdef", 1))
        assert next(results.skip(sources)).name == "b"
        results.add({"input": "b", "source": "some.txt", "line": 2, "error": "again"})
    assert run(*asked, "-o", "out.jsonl").err.startswith("regard: out.jsonl.partial: of an interrupted run")
    gone = set()
    assert run(*asked, "-o", "out.jsonl", "--retry-errors").code == 0
    assert run(*asked, "-o", "good.jsonl").code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "good.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.jsonl", "out.jsonl", "some.txt"]
    assert run(*asked, "-o", "out.jsonl", "--retry-errors").err == "regard: out.jsonl is whole already\n"


def _asked(journal: Path) -> dict[str, Any]:
    """What a run has asked for."""
    with journal.open() as lines:
        asked: dict[str, Any] = json.loads(next(lines))
    return asked


def test_a_retry_needs_a_file(run: Run) -> None:
    """As going on does."""
    assert "expected -o with a .jsonl" in run("embed", "a", *MINILM, "--retry-errors").err


def test_a_server_that_hangs_ends_the_run(
    run: Run, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1; what was answered is there, and the run can go on."""
    (tmp_path / "some.txt").write_text("\n".join(f"a {number}" for number in range(200)))
    hangs = True

    def judge(request: Any, _: grpc.ServicerContext) -> Refusal | None:
        late = hasattr(request, "texts") and any(int(text[2:]) >= 40 for text in request.texts.items)
        return (grpc.StatusCode.DEADLINE_EXCEEDED, "late", ()) if hangs and late else None

    server.judge = judge
    monkeypatch.setattr(pace, "SILENT_CALLS", 0)
    asked = ("embed", "--lines", "some.txt", *MINILM, "-o", "out.jsonl")
    done = run(*asked)
    assert (done.code, "several times its timeout: the server hangs" in done.err) == (1, True)
    assert "out.jsonl.partial; --resume goes on after them" in done.err
    assert 1 < (tmp_path / "out.jsonl.partial").read_text().count("\n") <= 41
    hangs = False
    assert run(*asked, "--resume").code == 0
    assert len(read_lines(tmp_path / "out.jsonl")) == 200
