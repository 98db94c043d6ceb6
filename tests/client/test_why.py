"""`regard classify --why` against the fake server: what it prints, writes, draws and refuses."""

import json
from pathlib import Path

import grpc
import numpy as np
import pytest

from regard import InvalidArgument
from regard.console import PICTURE_SUFFIXES, Terminal
from regard.explaining import WhyOptions, why_table
from regard.reasons import in_short
from regard.relevance import Relevance
from regard.results import RESULT_SUFFIXES
from regard.v1 import types_pb2 as pb
from tests.client.conftest import Run
from tests.client.fake import RELEVANCE_OF_IMAGE, RELEVANCE_OF_TEXT, FakeServer


def test_why_is_printed_below_the_labels(run: Run, server: FakeServer) -> None:
    """The strongest first, to the right of the middle where it spoke for the label."""
    done = run("classify", "cats sitting", "--model", "photos", "--why")
    assert server.requests[-1].HasField("relevance") and not server.requests[-1].relevance.label
    lines = done.out.splitlines()
    assert lines[0].startswith("cat     75.0 %")
    assert lines[3] == "why cat · score 1.5 · adds up within 5e-8"
    assert [line.split()[:2] for line in lines[4:9]] == [
        ["##ting", "+2.0000"],
        ["cats", "-1.5000"],
        ["sit", "+0.5000"],
        ["[CLS]", "+0.2500"],
        ["[SEP]", "-0.1250"],
    ]
    assert lines[9].startswith("no position  +0.3750")
    middle = lines[4].index("█")
    assert lines[4].count("█") == 20 and lines[5].rstrip().endswith("█") and len(lines[5].rstrip()) == middle


def test_a_long_input_has_its_strongest_positions_printed(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' sum stands below them."""
    monkeypatch.setattr("regard.explaining._MOST", 2)
    done = run("classify", photo, "--why", "--model", "photos")
    lines = [line.split("█")[0].rstrip(" ▐▕▌▍▎▏▋▊▉") for line in done.out.splitlines()[4:]]
    assert lines == [
        "row 1, column 2  +3.0000",
        "row 0, column 1  -2.0000",
        "5 others         +2.5000",
        "no position      -0.5000",
    ]


def test_small_numbers_keep_four_digits(capsys: pytest.CaptureFixture[str]) -> None:
    """As those of attention's methods are, the smaller the longer the input."""
    values = np.array([0.00052314, -0.00001], np.float32)
    why = Relevance("cat", "", 1.0, values, (), 0.0, 0.0, None, None, method="gradient")
    Terminal().print(why_table(why))
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[2] == "+0.0005231"
    assert second.split()[2] == "-0.0000100"


def test_numbers_that_are_never_below_0_have_no_sign(capsys: pytest.CaptureFixture[str]) -> None:
    """Their bars begin at the left and have all the room."""
    values = np.array([0.5, 0.25], np.float32)
    why = Relevance("cat", "", 1.0, values, (), 0.0, 0.0, None, None, method="legrad")
    Terminal().print(why_table(why))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["position", "0", "0.5000", "█" * 40],
        ["position", "1", "0.2500", "█" * 20],
    ]
    assert in_short(why) == "why cat by legrad: position 0 0.5 · position 1 0.25"


def test_the_first_model_that_explains_is_taken(run: Run, photo: Path, server: FakeServer) -> None:
    """A label and another reach the server; of texts none can here."""
    done = run("classify", photo, "--why", "[dog]", "--against", "bird")
    assert (done.code, done.err) == (0, "regard: using photos\n")
    assert "why [dog] against bird · score 3" in done.out
    assert (server.requests[-1].relevance.label, server.requests[-1].relevance.against) == ("[dog]", "bird")
    assert "no model that can explain texts" in run("classify", "a text", "--why").err


def test_a_label_is_optional_wherever_why_stands(run: Run, server: FakeServer) -> None:
    """Before another option there is none; with = any is taken; behind -- it is a text."""
    for arguments, label in (
        (("--why", "--model", "photos", "hm"), ""),
        (("hm", "--model", "photos", "--why"), ""),
        (("hm", "--model", "photos", "--why=-x"), "-x"),
        (("hm", "--why", "cat", "--model", "photos"), "cat"),
    ):
        assert run("classify", *arguments).code == 0
        assert server.requests[-1].relevance.label == label
    run("classify", "--model", "photos", "--", "--why")
    assert server.requests[-1].text == "--why" and not server.requests[-1].HasField("relevance")


def test_json_has_all_of_it(run: Run) -> None:
    """Of one input and of several."""
    one = json.loads(run("classify", "cats sitting", "--model", "photos", "--why", "--json").out)
    assert one["relevance"]["values"] == list(RELEVANCE_OF_TEXT)
    assert [one["relevance"][name] for name in ("label", "score", "rest")] == ["cat", 1.5, 0.375]
    assert one["relevance"]["tokens"][3]["text"] == "##ting"
    lines = run("classify", "a b", "c d", "--model", "photos", "--why", "--json").out.splitlines()
    assert [json.loads(line)["relevance"]["values"] for line in lines] == [list(RELEVANCE_OF_TEXT)] * 2


def test_several_inputs_have_a_line_each(run: Run) -> None:
    """With the three strongest positions."""
    done = run("classify", "a b", "c d", "--model", "photos", "--why", "cat")
    assert done.out.splitlines()[1] == ("c d: cat 75.0 %, [dog] 25.0 %; why cat: ##ting +2 · cats -1.5 · sit +0.5")


def test_results_have_columns_of_it(run: Run, photo: Path, tmp_path: Path) -> None:
    """A number for each position, what they stand for, and what they add up to."""
    assert run("classify", "a b", "c d", "--model", "photos", "--why", "-o", "why.jsonl").code == 0
    found = [json.loads(line) for line in (tmp_path / "why.jsonl").read_text().splitlines()]
    assert [(one["why"], one["score"], one["relevance"]) for one in found] == [
        ("cat", 1.5, list(RELEVANCE_OF_TEXT))
    ] * 2
    assert (found[0]["tokens"][3], found[0]["rest"], found[0]["against"]) == ("##ting", 0.375, "")
    assert run("classify", photo, "--model", "photos", "--why", "-o", "why.npz").code == 0
    with np.load(tmp_path / "why.npz") as arrays:
        np.testing.assert_array_equal(arrays["relevance"], [RELEVANCE_OF_IMAGE])
        np.testing.assert_array_equal(arrays["patches"], [[1, 2, 3]])


def test_another_method_is_named(run: Run, server: FakeServer) -> None:
    """Above its numbers, with what they make up, if anything; no part is made up."""
    done = run("classify", "cats sitting", "--model", "photos", "--why", "--method", "genatt")
    assert server.requests[-1].relevance.method == pb.RELEVANCE_METHOD_GENATT
    assert "why cat · score 1.5 · genatt makes up no score" in done.out
    assert "no position" not in done.out
    options = ("--method", "integrated-gradients", "--steps", "9")
    done = run("classify", "cats sitting", "--model", "photos", "--why", *options)
    assert server.requests[-1].relevance.steps == 9
    assert "why cat · score 1.5 · integrated-gradients adds up within 5e-8" in done.out
    assert "baseline  -0.2500" in done.out


def test_layers_are_printed_below(run: Run, server: FakeServer) -> None:
    """What is at each depth, and where the most of it; nothing of it where it was not asked for."""
    done = run("classify", "cats sitting", "--model", "photos", "--why", "--by-layer")
    assert server.requests[-1].relevance.by_layer
    lines = [
        line.strip().split(maxsplit=columns)
        for line, columns in zip(done.out.rstrip().splitlines()[11:], (3, 3, 4, 4), strict=True)
    ]
    assert lines == [
        ["positions", "added", "behind", "strongest"],
        ["entering", "+1.1250", "+0.3750", "##ting +2 · cats -1.5 · sit +0.5"],
        ["layer", "1", "+0.5625", "+0.9375", "##ting +1 · cats -0.75 · sit +0.25"],
        ["layer", "2", "+1.1250", "+0.3750", "[CLS] +1.12"],
    ]
    assert "layer 1" not in run("classify", "cats sitting", "--model", "photos", "--why").out
    done = run("classify", "cats sitting", "--model", "photos", "--why-top", "2", "--by-layer")
    assert done.out.count("layer 2") == 2


def test_layers_are_in_files_and_json(run: Run, photo: Path, tmp_path: Path) -> None:
    """A row for each depth; and none where they were not asked for."""
    one = json.loads(run("classify", "cats", "--model", "photos", "--why", "--by-layer", "--json").out)
    assert one["relevance"]["by_layer"]["values"][0] == list(RELEVANCE_OF_TEXT)
    assert one["relevance"]["by_layer"]["added"] == [0.375, 0.9375, 0.375]
    assert run("classify", photo, "--model", "photos", "--why", "--by-layer", "-o", "why.npz").code == 0
    with np.load(tmp_path / "why.npz") as arrays:
        assert arrays["by_layer"].shape == (1, 3, 7)
        np.testing.assert_array_equal(arrays["by_layer"][0, 1], np.array(RELEVANCE_OF_IMAGE) / 2)
        np.testing.assert_array_equal(arrays["added"], [[-0.5, 1.25, -0.5]])
    assert run("classify", photo, "--model", "photos", "--why", "-o", "plain.npz").code == 0
    with np.load(tmp_path / "plain.npz") as arrays:
        assert "by_layer" not in arrays


def test_a_run_goes_on_by_layer_only_where_it_began_so() -> None:
    """Its columns would differ."""
    plain, layers = WhyOptions(why=("",)), WhyOptions(why=("",), by_layer=True)
    assert plain.asked != layers.asked
    assert not WhyOptions(by_layer=True).asked


def test_a_server_that_sends_no_layers_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one does not know the field."""
    monkeypatch.setattr("tests.client.fake._by_layer", lambda *_: pb.LayerRelevance())
    monkeypatch.setattr("regard.decoding._read_layers", lambda _: None)
    told = "regard: the server sent none by layer; expected one that knows RelevanceRequest.by_layer\n"
    for inputs in (("hm",), ("hm", "ha")):
        done = run("classify", *inputs, "--model", "photos", "--why", "--by-layer")
        assert (done.code, done.err) == (1, told)


def test_several_labels_are_explained_one_below_the_other(run: Run, server: FakeServer) -> None:
    """Those that are named, or the most probable."""
    done = run("classify", "cats sitting", "--model", "photos", "--why", "[dog]", "--why", "a, b")
    assert list(server.requests[-1].relevance.labels) == ["[dog]", "a, b"]
    heads = [line for line in done.out.splitlines() if line.startswith("why ")]
    assert heads == [f"why {label} · score 1.5 · adds up within 5e-8" for label in ("[dog]", "a, b")]
    done = run("classify", "cats sitting", "--model", "photos", "--why-top", "2")
    assert server.requests[-1].relevance.top == 2
    assert done.out.count("why cat · ") == done.out.count("why [dog] · ") == 1
    done = run("classify", "a b", "c d", "--model", "photos", "--why-top", "2")
    assert "; why cat: ##ting +2 · cats -1.5 · sit +0.5; why [dog]: ##ting +2" in done.out.splitlines()[0]
    found = json.loads(run("classify", "a", "--model", "photos", "--why-top", "2", "--json").out)
    assert [one["label"] for one in found["relevances"]] == ["cat", "[dog]"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--method", "genatt"], "--method genatt: given with no --why; expected it with --why"),
        (["--steps", "3"], "--steps 3: given with no --why"),
        (["--by-layer"], "--by-layer: given with no --why; expected it with --why"),
        (["--why", "--by-layer", "--method", "genatt"], "--by-layer: given with genatt; expected libra, the method"),
        (["--why", "--steps", "3"], "--steps 3: given with libra; expected integrated-gradients"),
        (["--why", "cat", "--why"], "--why: given several times and once without a label"),
        (["--why", "cat", "--why-top", "2"], "--why-top 2: given with --why; expected one of both"),
        (["--why-top", "2", "--against", "cat"], "--against cat: given with several labels; expected one --why LABEL"),
        (["--why-top", "2", "-o", "a.png"], "-o a.png: holds one explanation of an input; expected one --why, or"),
        (["--why", "--method", "lrp"], "'lrp' is not one of"),
        (["--against", "cat"], "--against cat: given with no --why; expected --why LABEL"),
        (["--against", "cat", "--why"], "--against cat: given with --why without a label"),
        (["--why", "cat", "--against", "cat"], "--against cat: the label of --why itself; expected another"),
        (["--why", "--labels", "a,b"], "--labels a,b: given with --why"),
        (["--why", "--theme", "light"], "--theme light: given without a picture"),
        (["--size", "print", "-o", "a.jsonl", "--why"], "--size print: given without a picture"),
        (["other", "-o", "a.png", "--why"], "-o a.png: a picture is of one input; expected .jsonl, .npz or .parquet"),
        (["-o", "a.png"], "(pictures with --why) in .jsonl, .npz, .parquet"),
        (["-o", "a.gif", "--why"], "a.gif: pictures and answers are written in .png"),
        (["-o", "nowhere/a.png", "--why"], "nowhere is no folder"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    run: Run, server: FakeServer, arguments: list[str], told: str
) -> None:
    """Before anything is asked."""
    done = run("classify", "hm", "--model", "photos", *arguments)
    assert done.code in (1, 2)
    assert told in " ".join(done.err.split())
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "message", "told"),
    [
        (["--why", "owl"], "relevance.label: 'owl'; expected one of cat", "--why: 'owl'; expected one of cat"),
        (["--why", "a", "--why", "b"], "relevance.labels[1]: 'b'; expected", "--why: 'b'; expected"),
        (["--why-top", "40"], "relevance.top: 40; expected 0 to 32", "--why-top: 40; expected 0 to 32"),
        (["--why", "--method", "genatt"], "relevance.method: photos was", "--method: photos was"),
        (["--why", "--by-layer"], "relevance.by_layer: photos was", "--by-layer: photos was"),
        (["--why"], "relevance: photos was", "--why: photos was"),
        (["--why", "model"], "model: 'relevance.label: x'", "model: 'relevance.label: x'"),
    ],
)
@pytest.mark.parametrize("inputs", [("hm",), ("hm", "ha")])
def test_errors_name_the_option(
    run: Run, server: FakeServer, inputs: tuple[str, ...], arguments: list[str], message: str, told: str
) -> None:
    """As the caller wrote it, not the request's field."""
    server.error = (grpc.StatusCode.INVALID_ARGUMENT, message)
    done = run("classify", *inputs, "--model", "photos", *arguments)
    assert (done.code, done.err) == (1, f"regard: INVALID_ARGUMENT: {told}\n")


def test_errors_of_single_inputs_name_the_option() -> None:
    """Where the others are answered."""
    error = InvalidArgument(grpc.StatusCode.INVALID_ARGUMENT, "relevance.against: 'owl'; expected another")
    assert list(WhyOptions(why=("cat",)).checked([error])) == [error]
    assert str(error) == "INVALID_ARGUMENT: --against: 'owl'; expected another"


def test_the_help_names_answers_and_pictures(run: Run) -> None:
    """Whatever -o may write."""
    told = run("classify", "--help").out
    assert [suffix for suffix in (*RESULT_SUFFIXES, *PICTURE_SUFFIXES) if suffix not in told.split("--output")[1]] == []


def test_a_server_that_sends_none_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one does not know the field."""
    monkeypatch.setattr("tests.client.fake._relevance", lambda request: None)
    told = "regard: the server sent no relevance; expected one that knows ClassifyRequest.relevance\n"
    for inputs in (("hm",), ("hm", "ha"), ("hm", "-o", "a.jsonl")):
        done = run("classify", *inputs, "--model", "photos", "--why")
        assert (done.code, done.err) == (1, told)
    assert run("classify", "hm", "ha", "--model", "photos").code == 0


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_command_line_writes_pictures(run: Run, photo: Path, tmp_path: Path, suffix: str) -> None:
    """Of a photo and of a text; labels are printed all the same."""
    pytest.importorskip("matplotlib", reason="pictures need the extra explore")
    for given in (photo, "cats sitting"):
        done = run("classify", given, "--model", "photos", "--why", "-o", f"why{suffix}", "--size", "print")
        assert (done.code, done.err) == (0, f"regard: wrote why{suffix}\n")
        assert "why cat" in done.out
        assert (tmp_path / f"why{suffix}").stat().st_size > 1000
        (tmp_path / f"why{suffix}").unlink()
        assert run("classify", given, "--model", "photos", "--why", "--by-layer", "-o", f"why{suffix}").code == 0
        assert (tmp_path / f"why{suffix}").stat().st_size > 1000
        (tmp_path / f"why{suffix}").unlink()


def test_size_and_theme_of_the_command_line_are_those_of_the_picture(run: Run, tmp_path: Path) -> None:
    """Light on white, dark on nearly black."""
    pytest.importorskip("matplotlib", reason="pictures need the extra explore")
    from PIL import Image

    for options, corner in ((("--size", "print"), 255), (("--size", "print", "--theme", "dark"), 16), ((), 16)):
        assert run("classify", "cats", "--model", "photos", "--why", "-o", "why.png", *options).code == 0
        with Image.open(tmp_path / "why.png") as image:
            assert image.convert("RGB").getpixel((0, 0))[0] == corner  # type: ignore[index]
