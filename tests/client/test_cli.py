"""The command line against the fake server: what it prints, writes and exits with."""

import functools
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from regard.answers import Generation
from regard.sources import InputError, choose_model, read_source
from tests.client.conftest import Run
from tests.client.fake import FakeServer, free_address, models, photo_bytes

REGARD = [sys.executable, "-c", "from regard.cli import main; main()"]


def test_models_prints_a_table(run: Run) -> None:
    """One line a model: what it takes, what it can do, layers and heads."""
    done = run("models")
    minilm = next(line for line in done.out.splitlines() if "minilm" in line)
    assert minilm.split("  ")[0].strip() == "minilm"
    for words in ("bert", "text and pairs, up to 256 tokens", "predict, embed (2, 4), rank, attend", "12 x 3"):
        assert words in minilm
    assert (done.code, done.err) == (0, "")


def test_models_says_which_versions_are_not_served_and_why(run: Run) -> None:
    """Below the table."""
    assert "words 2 is UNAVAILABLE: weights.bin: changed or damaged" in run("models").out


def test_load_and_unload_say_what_is_served_then(run: Run) -> None:
    """On stderr, as everything that is no answer."""
    name = models()[0].name
    assert f"regard: {name} {models()[0].version} is served" in run("load", name).err
    assert f"regard: {name} is no longer served" in run("unload", name).err


def test_models_as_json_holds_every_field(run: Run) -> None:
    """Ready for jq."""
    listed = json.loads(run("models", "--json").out)
    assert [model["name"] for model in listed] == ["fashion", "minilm", "photos", "tensors", "late", "words"]
    assert listed[2]["patches"]["rows"] == 2


def test_classify_draws_bars(run: Run, photo: Path) -> None:
    """Labels as the server spells them, brackets included; which model was taken stands on stderr."""
    done = run("classify", photo)
    first, second = done.out.splitlines()
    assert first.startswith("cat     75.0 %  ████")
    assert second.startswith("[dog]   25.0 %  ████")
    assert first.count("█") > second.count("█")
    assert done.err == "regard: using photos\n"


def test_classify_passes_its_options_on(run: Run, server: FakeServer) -> None:
    """With --model nothing is listed first."""
    done = run("classify", "a fine film", "--model", "photos", "--top-k", "1", "--truncate", "--json")
    (request,) = server.requests
    assert (request.text, request.model, request.top_k, request.truncate) == ("a fine film", "photos", 1, True)
    assert json.loads(done.out)["labels"] == [{"index": 0, "name": "cat", "probability": 0.75}]
    assert done.err == ""


def test_a_cut_text_is_reported(run: Run, server: FakeServer) -> None:
    """On stderr, so that the output stays clean."""
    server.truncated = True
    assert run("embed", "hm").err.endswith("regard: hm has more tokens than minilm takes and was cut\n")


def test_embed_passes_a_prompt_on(run: Run, server: FakeServer) -> None:
    """With every text."""
    run("embed", "a", "b", "--model", "minilm", "--prompt", "query")
    assert [(request.text, request.prompt) for request in server.requests] == [("a", "query"), ("b", "query")]


def test_embed_summarises_one_vector(run: Run) -> None:
    """Width, norm, first values."""
    assert run("embed", "a").out == "a: 4 wide, norm 1.0000, [0.0000, 1.0000, 0.0000, 0.0000]\n"


def test_embed_compares_several_vectors(run: Run) -> None:
    """By the cosine of every pair."""
    lines = run("embed", "a", "b", "e").out.splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["1", "a", "1.000", "0.000", "1.000"],
        ["2", "b", "0.000", "1.000", "0.000"],
        ["3", "e", "1.000", "0.000", "1.000"],
    ]


def test_embed_as_json_is_a_line_an_input(run: Run) -> None:
    """With the whole vector."""
    lines = [json.loads(line) for line in run("embed", "a", "b", "--json").out.splitlines()]
    assert [(line["input"], line["vector"]) for line in lines] == [("a", [0, 1, 0, 0]), ("b", [0, 0, 1, 0])]


def test_lines_are_asked_for_in_calls_of_what_the_server_takes(run: Run, server: FakeServer, tmp_path: Path) -> None:
    """Three here; empty ones are left out."""
    (tmp_path / "texts.txt").write_text("a\n\n b\nc\r\nd\n", encoding="utf-8-sig")
    done = run("embed", "texts.txt", "--lines", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [(line["input"], line["vector"].index(1.0)) for line in lines] == [("a", 1), (" b", 0), ("c", 3), ("d", 0)]
    asked = sorted(list(request.texts.items) for request in server.requests[2:])  # at once, in any order
    assert asked == [["a", " b", "c"], ["d"]]
    assert (done.code, done.err) == (0, "regard: using minilm\n")


def test_a_line_that_has_an_error_is_told_and_the_others_are_answered(run: Run, tmp_path: Path) -> None:
    """By its line as an editor counts; the command ends with 1 after the last."""
    (tmp_path / "texts.txt").write_bytes("a\n\nb\u2028b\r\n\fc\rbad\nd\n".encode())
    done = run("embed", "texts.txt", "--lines", "--model", "minilm")
    assert len([line for line in done.out.split("\n") if "wide" in line]) == 4
    assert done.err.splitlines() == [
        "regard: texts.txt, line 5: bad: INVALID_ARGUMENT: texts[3]: bad; expected a good one",
        "regard: 1 of 5 inputs have errors: named above",
    ]
    assert done.code == 1


def test_lines_come_from_stdin_too(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are classified, a line each."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a fine film\na bad one\n")))
    done = run("classify", "-", "--lines", "--model", "photos", "--top-k", "1", "--truncate")
    assert done.out == "a fine film: cat 75.0 %\na bad one: cat 75.0 %\n"
    request = server.requests[-1]
    assert (list(request.texts.items), request.top_k, request.truncate) == (["a fine film", "a bad one"], 1, True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
    assert json.loads(run("classify", "-", "--lines", "--model", "photos", "--json").out)["input"] == "a"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\n \n\xe2\x80\xa8\n", ": no text in it; expected texts, one a line"),
        (b"a\r\n\nb\xff", ", line 3: not UTF-8, invalid start byte at byte 1; expected texts in UTF-8"),
    ],
)
def test_a_file_without_lines_is_refused(run: Run, tmp_path: Path, content: bytes, what: str) -> None:
    """By its name."""
    (tmp_path / "texts.txt").write_bytes(content)
    done = run("embed", "texts.txt", "--lines", "--model", "minilm")
    assert (done.code, done.err) == (1, f"regard: texts.txt{what}\n")


@pytest.mark.parametrize(
    ("arguments", "option", "expected"),
    [
        (["--lines"], "--lines", "a file of texts, one a line"),
        (["--column", "text"], "--column text", "a table, .csv or .parquet"),
    ],
)
@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_file_that_is_not_there_is_said_by_its_option(
    run: Run, arguments: list[str], option: str, expected: str, name: str
) -> None:
    """With what was expected, and no number of an error."""
    done = run("classify", name, *arguments, "--model", "photos", "-o", "out.jsonl")
    assert (done.code, done.err) == (1, f"regard: {option}: {name}: No such file or directory; expected {expected}\n")


def test_stdin_without_lines_is_refused_by_its_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As what is wrong with one of its lines is."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert run("embed", "-", "--lines").err == "regard: stdin: no text in it; expected texts, one a line\n"


def test_lines_need_a_server_that_takes_several(run: Run, tmp_path: Path) -> None:
    """An older one would say that there is neither image nor text."""
    (tmp_path / "texts.txt").write_text("a\n")
    done = run("embed", "texts.txt", "--lines", "--model", "tensors")
    assert (done.code, done.err[:55]) == (1, "regard: FAILED_PRECONDITION: model: 'tensors' takes a s")


def test_photos_and_texts_are_not_compared(run: Run, photo: Path) -> None:
    """Their vectors come from different models."""
    done = run("embed", photo, "a cat")
    assert (done.code, done.err) == (1, "regard: photos and texts cannot be compared; give only photos or only texts\n")


@pytest.mark.parametrize("arguments", [["nonsense"], ["classify"], ["--timeout", "soon", "models"]])
def test_a_wrong_command_line_exits_with_2(run: Run, arguments: list[str]) -> None:
    """And explains itself on stderr."""
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Error" in done.err


def test_the_servers_error_is_one_line(run: Run, server: FakeServer) -> None:
    """Even where its message has several; exit code 1."""
    server.error = (grpc.StatusCode.INVALID_ARGUMENT, "heads: 99\nis out of range")
    assert run("classify", "hm", "--model", "photos") == (
        1,
        "",
        "regard: INVALID_ARGUMENT: heads: 99 is out of range\n",
    )


def test_no_server_is_one_line(run: Run) -> None:
    """With a hint at --server; exit code 1."""
    done = run("--server", free_address(), "models")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("regard: UNAVAILABLE: ")
    assert done.err.endswith("(is a server running there? see --server, and --ca where it has TLS)\n")


def test_a_slow_server_is_one_line(run: Run, server: FakeServer) -> None:
    """After --timeout seconds."""
    server.held = True
    done = run("--timeout", "0.05", "models")
    assert (done.code, done.err) == (1, "regard: DEADLINE_EXCEEDED: Deadline Exceeded\n")


def test_without_typer_it_says_what_to_install(server: FakeServer) -> None:
    """One line, exit code 1."""
    blocked = "import sys; sys.modules['typer'] = None; from regard.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "regard: the command line needs typer: install regard with its extra explore: pip install '.[explore]'\n",
    )


def test_a_closed_pipe_is_one_line(server: FakeServer) -> None:
    """As in `regard models | head -0`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nowhere:
        command = [*REGARD, "--server", server.address, "models"]
        done = subprocess.run(command, stdout=nowhere, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "regard: nobody reads the output any more\n")


def test_ctrl_c_ends_a_waiting_command(server: FakeServer) -> None:
    """One line, exit code 130."""
    server.held = True
    command = [*REGARD, "--server", server.address, "models"]
    pipe = subprocess.PIPE
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in the background
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed) as process:
        server.arrived.wait()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "regard: interrupted\n")


def test_stdin_is_a_photo_or_a_text(server: FakeServer) -> None:
    """Told apart by the first bytes."""
    command = [*REGARD, "--server", server.address, "classify", "-", "--model", "photos"]
    subprocess.run(command, input=photo_bytes(), capture_output=True, check=True)
    subprocess.run(command, input="Grüße\n".encode(), capture_output=True, check=True)
    assert [request.image or request.text for request in server.requests] == [photo_bytes(), "Grüße"]


@pytest.mark.parametrize("start", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP"])
def test_an_existing_photo_is_known_by_its_first_bytes(tmp_path: Path, start: bytes) -> None:
    """Whatever its name."""
    path = tmp_path / "upload"
    path.write_bytes(start)
    assert read_source(str(path)).image == start


def test_any_other_file_is_a_text(tmp_path: Path) -> None:
    """Read as UTF-8, or refused."""
    path = tmp_path / "letter"
    path.write_bytes("Grüße\n".encode())
    assert read_source(str(path)).text == "Grüße"
    path.write_bytes(b"GIF89a\xff")
    with pytest.raises(InputError, match="letter is neither a JPEG, PNG or WebP image nor UTF-8 text"):
        read_source(str(path))


@pytest.mark.parametrize("name", ["cat.jpg", "photos/cat.JPEG", "a.png", "b.webp"])
def test_a_photo_that_is_not_there_is_not_taken_for_a_text(name: str) -> None:
    """It looks like a path."""
    with pytest.raises(InputError, match=f"{name}: no such file"):
        read_source(name)


@pytest.mark.parametrize("text", ["what a film", "no. 5", "long " * 2000, "a\0b", ""])
def test_anything_else_is_the_text_itself(text: str) -> None:
    """Even what no path could be."""
    assert read_source(text).text == text


def test_the_model_is_chosen_by_what_it_takes_and_can(client: Any) -> None:
    """The embedded toy only where no other does."""
    served = client.models()
    assert choose_model(served, "image", "classify").name == "photos"
    assert choose_model(served, "image", "embed").name == "fashion"
    assert choose_model(served, "text", "attend").name == "minilm"
    writing = replace(
        next(model for model in served if model.name == "minilm"),
        name="a",
        generation=Generation(1, 1, 8, ("plain",), "plain", 1, 1.0, 9),
    )
    assert choose_model([writing, *served], "text", "attend").name == "minilm"
    assert choose_model([writing], "text", "attend") is writing
    with pytest.raises(InputError, match="no model that can classify texts"):
        choose_model(served, "text", "classify")
