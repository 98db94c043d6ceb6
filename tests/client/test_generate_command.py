"""The command `regard generate`: what it prints as it comes, and the alignment that it draws."""

import json
import re
from pathlib import Path

import grpc
import pytest
from PIL import Image
from rich.console import Console

from regard import Client, InvalidArgument
from tests.client.conftest import Run
from tests.client.fake import WORDS, FakeServer

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SUMMARY = "regard: 4 tokens, ended by the model, log-probability -1.5000; 3.0 ms to the first, 1.0 ms each then\n"


@pytest.fixture(autouse=True)
def writes(server: FakeServer) -> None:
    """The fake server serves a model that writes."""
    server.has_writer = True


def test_a_text_is_printed_and_how_it_went(run: Run, server: FakeServer) -> None:
    """The latter on stderr; no attention is asked for where nobody sees it."""
    done = run("generate", "g2p", "cat")
    assert (done.code, done.out, done.err) == (0, "K AE T\n", SUMMARY)
    request = server.requests[-1]
    assert (request.model, request.text, request.HasField("cross_attention")) == ("g2p", "cat", False)


def test_the_alignment_is_drawn_with_align(run: Run, server: FakeServer) -> None:
    """Output by input: each row's largest share under the token that it attends to most."""
    done = run("generate", "g2p", "cat", "--align")
    lines = done.out.splitlines()
    assert lines[0] == "K AE T"
    assert lines[2] == "g2p · layer 2 · mean of 3 heads · percent of attention, output attends to input"
    rows = [line.split() for line in lines[-4:]]
    assert [row[0] for row in rows] == ["K", "AE", "T", "(end)"]
    for number, row in enumerate(rows):
        shares = list(map(int, row[1:]))
        assert len(shares) == len(WORDS)
        assert shares.index(max(shares)) == number + 1
    headings = [line[-1:] for line in lines[4:-4]]
    assert "".join(headings).strip() == "[SEP]"
    asked = server.requests[-1]
    assert (list(asked.cross_attention.layers), asked.num_beams) == ([-1], 1)


def test_layer_and_heads_are_chosen(run: Run, server: FakeServer) -> None:
    """Several heads are averaged."""
    done = run("generate", "g2p", "cat", "--align", "--layer", "1", "--head", "0", "--head", "2")
    assert "g2p · layer 1 · mean of 2 heads" in done.out
    assert "layer 1 · head 2" in run("generate", "g2p", "cat", "--align", "--layer", "1", "--head", "2").out
    assert list(server.requests[-1].cross_attention.heads) == [2]


def test_a_terminal_gets_the_alignment_unless_it_is_told_otherwise(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with several beams, of which none is told."""
    monkeypatch.setattr(Console, "is_terminal", True)
    lines = _COLOURS.sub("", run("generate", "g2p", "cat").out).splitlines()
    assert lines[0].endswith("output attends to input")
    assert [line.split()[0] for line in lines[-6:-2]] == ["K", "AE", "T", "(end)"]
    assert lines[-2:] == ["", "K AE T"]  # what the rows have told, once more
    steps = run("generate", "g2p", "cat", "--alternatives", "2").out
    assert steps.index("77.88 %") < steps.index("output attends to input")  # the whole of it, behind the steps
    assert "output attends to input" not in run("generate", "g2p", "cat", "--no-align").out
    run("generate", "g2p", "cat", "--beams", "2")
    assert not server.requests[-1].HasField("cross_attention")


def test_a_picture_is_drawn(run: Run, tmp_path: Path) -> None:
    """With as many rows as tokens; other formats are refused before anything is asked."""
    done = run("generate", "g2p", "cat", "-o", "cat.png", "--no-align")
    assert done.out == "K AE T\n"
    assert done.err.endswith("regard: wrote cat.png\n")
    with Image.open(tmp_path / "cat.png") as picture:
        assert min(picture.size) > 300
    assert run("generate", "g2p", "cat", "-o", "cat.gif").code == 2


def test_why_each_token(run: Run, server: FakeServer, tmp_path: Path) -> None:
    """The strongest of the source, and what all else did; a picture; and no attention is asked for."""
    done = run("generate", "g2p", "cat", "--why", "-o", "why.png")
    lines = done.out.splitlines()
    assert lines[0] == "K AE T"
    assert lines[2] == "g2p · why each token · adds up within 3e-8"
    rows = [line.split() for line in lines[4:]]
    assert [row[0] for row in rows] == ["K", "AE", "T", "(end)"]
    assert rows[0][1:4] == ["+3.38", "-0.50", "+0.12"]
    assert rows[0][4:] == ["cats", "+4.00", "sit", "-1.00", "##ting", "+0.50", "[SEP]", "+0.25", "others", "+0.00"]
    assert not server.requests[-1].HasField("cross_attention")
    with Image.open(tmp_path / "why.png") as picture:
        assert min(picture.size) > 200
    both = run("generate", "g2p", "cat", "--why", "--align").out
    assert both.index("output attends to input") < both.index("why each token")
    assert json.loads(run("generate", "g2p", "cat", "--why", "--json").out)["relevance"]["labels"][0] == "K"


def test_several_results_are_ranked(run: Run, server: FakeServer) -> None:
    """Below each other, with their log-probabilities."""
    done = run("generate", "g2p", "cat", "--beams", "3", "--results", "2", "--length-penalty", "0.5")
    _, best, other = (line.split(maxsplit=1) for line in done.out.splitlines())
    assert [column.strip() for column in (*best, *other)] == ["-1.5000", "K AE T", "-2.5000", "K AE"]
    request = server.requests[-1]
    assert (request.num_beams, request.num_results, request.length_penalty) == (3, 2, 0.5)


def test_the_best_of_some_beams_is_printed_when_it_is_there(run: Run) -> None:
    """Nothing was streamed of it."""
    assert run("generate", "g2p", "cat", "--beams", "3").out == "K AE T\n"


def test_a_target_is_scored_token_by_token(run: Run, server: FakeServer) -> None:
    """Each with its probability; with alternatives, those beside it."""
    done = run("generate", "g2p", "cat", "--target", "K AE T", "--alternatives", "2")
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[:3] for line in lines] == [[name, "77.88", "%"] for name in ("K", "AE", "T", "·")]
    assert lines[0][3:] == ["of", "<0>", "36.79", "%,", "<1>", "13.53", "%"]
    assert "all of the target" in done.err
    assert (server.requests[-1].target, server.requests[-1].alternatives) == ("K AE T", 2)


def test_options_of_sampling_and_others_are_passed_on(run: Run, server: FakeServer) -> None:
    """Any of those of sampling draws."""
    run("generate", "g2p", "cat", "--sample")
    assert server.requests[-1].HasField("sampling")
    run("generate", "g2p", "cat", "--temperature", "0.5", "--top-k", "3", "--top-p", "0.75", "--seed", "7")
    drawn = server.requests[-1].sampling
    assert (drawn.temperature, drawn.top_k, drawn.top_p, drawn.seed) == (0.5, 3, 0.75, 7)
    run("generate", "g2p", "cat", "--start", "plain", "--max-tokens", "5", "--stop", "a", "--stop", "b", "--truncate")
    request = server.requests[-1]
    assert (request.start, request.max_tokens, list(request.stop)) == ("plain", 5, ["a", "b"])
    assert (request.truncate, request.HasField("sampling")) == (True, False)


def test_json_holds_everything(run: Run) -> None:
    """On one line, with attention where it is asked for."""
    done = run("generate", "g2p", "cat", "--json", "--align")
    found = json.loads(done.out)
    assert [token["text"] for token in found["results"][0]["tokens"]] == ["K", " AE", " T", ""]
    assert len(found["results"][0]["tokens"][0]["attention"][0]["weights"]) == len(WORDS)
    assert [token["text"] for token in found["source"]] == WORDS
    assert found["timings"]["steps"] == 4
    assert done.err == ""


def test_a_cut_text_is_reported(run: Run, server: FakeServer) -> None:
    """As by other commands."""
    server.truncated = True
    assert "regard: cat has more tokens than g2p takes and was cut" in run("generate", "g2p", "cat", "--truncate").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("minilm", "cat"), "minilm does not write texts; expected a model that can generate"),
        (("nothing", "cat"), "NOT_FOUND: model: 'nothing' is not served"),
        (("g2p", "holiday.png"), "holiday.png: a photo; expected a text"),
        (("g2p", "cat", "--align", "--beams", "2"), "--beams 2: the alignment is of one"),
        (("g2p", "cat", "--why", "--words"), "--why: given with --words; expected one of both"),
    ],
)
def test_what_cannot_be_written_is_refused(run: Run, photo: Path, arguments: tuple[str, ...], message: str) -> None:
    """In one line."""
    assert photo.exists()
    done = run("generate", *arguments)
    assert done.code == 1
    assert message in done.err


def test_models_says_which_can_generate(run: Run) -> None:
    """With what else they can; and which can say why."""
    line = next(line for line in run("models").out.splitlines() if "g2p" in line)
    assert "predict, generate, explain" in line


def test_errors_of_why_name_the_option(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the request's field."""

    def refuse(*_: object, **__: object) -> None:
        raise InvalidArgument(grpc.StatusCode.INVALID_ARGUMENT, "relevance.tokens: 2000 tokens; expected fewer")

    monkeypatch.setattr(Client, "generate", refuse)
    done = run("generate", "g2p", "cat", "--why")
    assert done.err == "regard: INVALID_ARGUMENT: --why: 2000 tokens; expected fewer\n"
