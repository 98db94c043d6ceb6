"""The command attend of a model that writes: what its tokens attend to, in the text or in what was written before."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.client.conftest import Run
from tests.client.fake import NUM_HEADS, WORDS, FakeServer

WRITTEN = ["K", "AE", "T", "(end)"]


@pytest.fixture(autouse=True)
def writes(server: FakeServer) -> None:
    """The fake server serves a model that writes."""
    server.has_writer = True


def test_the_matrix_is_of_output_by_input(run: Run, server: FakeServer) -> None:
    """Of the last layer, the mean of its heads; each row's largest share under what it attends to most."""
    done = run("attend", "cat", "--model", "g2p", "--truncate")
    title, *lines = done.out.splitlines()
    assert title == "g2p · layer 2 · mean of 3 heads · percent of attention, output attends to input"
    rows = [line.split() for line in lines[-4:]]
    assert [row[0] for row in rows] == WRITTEN
    for number, row in enumerate(rows):
        shares = list(map(int, row[1:]))
        assert len(shares) == len(WORDS)
        assert shares.index(max(shares)) == number + 1
    asked = server.requests[-1]
    assert (asked.model, asked.text, asked.num_beams, asked.truncate) == ("g2p", "cat", 1, True)
    assert (list(asked.cross_attention.layers), asked.cross_attention.head_reduction) == ([-1], 1)
    assert not asked.HasField("self_attention")


def test_layers_and_heads_are_chosen(run: Run, server: FakeServer) -> None:
    """A matrix each."""
    done = run("attend", "cat", "--model", "g2p", "--kind", "cross", "--layer", "1", "--head", "0", "--head", "2")
    asked = server.requests[-1].cross_attention
    assert (list(asked.layers), list(asked.heads), asked.head_reduction) == ([1], [0, 2], 0)
    titles = [line for line in done.out.splitlines() if line.startswith("g2p")]
    assert [title.split(" · ")[1:3] for title in titles] == [["layer 1", "head 0"], ["layer 1", "head 2"]]


def test_self_attention_is_of_output_by_what_was_written_before(run: Run, server: FakeServer) -> None:
    """Of what it begins with the server tells no tokens."""
    done = run("attend", "cat", "--model", "g2p", "--kind", "self", "--head", "0")
    title, *lines = done.out.splitlines()
    assert title == "g2p · layer 0 · head 0 · percent of attention, output attends to what was written before"
    assert [line.split() for line in lines[-4:]] == [
        ["K", "100", "·", "·", "·"],
        ["AE", "50", "50", "·", "·"],
        ["T", "33", "33", "33", "·"],
        ["(end)", "25", "25", "25", "25"],
    ]
    columns = zip(*(line.ljust(20)[8::3] for line in lines[1:-4]), strict=True)
    assert ["".join(column).strip() for column in columns] == ["(start)", "K", "AE", "T"]
    asked = server.requests[-1]
    assert (list(asked.self_attention.heads), asked.HasField("cross_attention")) == ([0], False)


def test_that_of_the_encoder_is_had_by_name(run: Run, server: FakeServer) -> None:
    """With every option that other models have; so it is of several models where one writes nothing."""
    run("attend", "cat", "--model", "g2p", "--kind", "encoder", "--measure", "rollout")
    assert type(server.requests[-1]).__name__ == "AttendRequest"
    run("attend", "cat", "--model", "minilm", "--compare", "g2p", "-o", "both.png")
    assert type(server.requests[-1]).__name__ == "GenerateRequest"
    assert Path("both.png").exists()


@pytest.mark.parametrize("view", ["matrix", "heads", "arcs"])
@pytest.mark.parametrize("suffix", ["png", "html"])
@pytest.mark.parametrize("kind", ["cross", "self"])
def test_every_view_of_it_is_written(run: Run, view: str, suffix: str, kind: str) -> None:
    """As a picture or as a page, whose tables have a row for each token that was written."""
    done = run("attend", "cat", "--model", "g2p", "--kind", kind, "--view", view, "-o", f"picture.{suffix}")
    assert (done.code, done.err.splitlines()[-1]) == (0, f"regard: wrote picture.{suffix}")
    if suffix == "png":
        with Image.open("picture.png") as picture:
            assert min(picture.size) > 200
        return
    page = Path("picture.html").read_text()
    keys = WORDS if kind == "cross" else ["(start)", "K", "AE", "T"]
    for word in (*WRITTEN, *keys):
        assert f">{word}</th>" in page


def test_json_has_both_sides(run: Run) -> None:
    """Tokens that were written, and those they attend to."""
    attention = json.loads(run("attend", "cat", "--model", "g2p", "--view", "heads", "--json").out)["attention"]
    assert [token["text"] for token in attention["tokens"]] == WRITTEN
    assert [token["text"] for token in attention["key_tokens"]] == WORDS
    (layer,) = attention["layers"]
    assert (layer["kind"], layer["axes"], len(layer["weights"])) == ("cross", ["head", "query", "key"], NUM_HEADS)


def test_it_is_said_that_a_text_was_cut(run: Run, server: FakeServer) -> None:
    """On stderr."""
    server.truncated = True
    assert "regard: cat has more tokens than g2p takes and was cut" in run("attend", "cat", "--model", "g2p").err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--view", "entropy"), "--view entropy: "),
        (("--measure", "rollout"), "--measure rollout: "),
        (("--row", "1"), "--row 1: "),
        (("--residual-share", "0.5"), "--residual-share 0.5: "),
        (("--value-weighted",), "--value-weighted: "),
        (("--drop-special",), "--drop-special: "),
        (("--top-k", "2"), "--top-k 2: "),
        (("--rows-of", "first"), "--rows-of first: "),
        (("--keys-of", "second"), "--keys-of second: "),
        (("--prompt", "query"), "--prompt query: "),
        (("--pair", "dog"), "--pair: "),
    ],
)
def test_what_only_encoders_have_is_refused(run: Run, options: tuple[str, ...], said: str) -> None:
    """Before anything is written."""
    done = run("attend", "cat", "--model", "g2p", *options)
    assert done.code == 1
    assert said in done.err
    assert "expected none, or --kind encoder" in done.err


def test_other_models_have_no_kinds(run: Run) -> None:
    """They write nothing."""
    done = run("attend", "cat", "--model", "minilm", "--kind", "self")
    assert (done.code, done.err) == (1, "regard: --kind self: minilm writes no text from a text; expected none\n")
