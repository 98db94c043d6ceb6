"""Hidden states through the clients and the command line, against the fake server."""

from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
import pytest

from regard import AsyncClient, Client, HiddenStateLayer, HiddenStates, HiddenStatesRequest, InvalidArgument
from regard.v1 import types_pb2 as pb
from tests.client.conftest import Run
from tests.client.fake import WORDS, FakeServer, state

INPUTS = {"x": np.zeros((1, 2), dtype=np.float32)}
HIDDEN = ["  hidden states of layer 1", "  hidden states of layer 0"]


def all_answers(client: Client, asked: HiddenStatesRequest) -> list[HiddenStates | None]:
    """What every call that takes them gives."""
    return [
        client.embed(text="a", hidden_states=asked).hidden_states,
        client.classify(text="a", hidden_states=asked).hidden_states,
        client.predict(INPUTS, hidden_states=asked).hidden_states,
        client.embed_many(texts=["a", "b"], hidden_states=asked)[1].hidden_states,
        client.classify_many(texts=["a", "b"], hidden_states=asked)[1].hidden_states,
    ]


def test_every_field_travels(client: Client, server: FakeServer) -> None:
    """By each call."""
    asked = HiddenStatesRequest(
        layers=(-1, 0), positions=(1, -2), drop_special=True, pooling="mean", normalize=True, dtype="float16"
    )
    assert all(all_answers(client, asked))
    expected = pb.HiddenStatesRequest(
        layers=[-1, 0],
        positions=[1, -2],
        drop_special=True,
        pooling=pb.HIDDEN_STATES_POOLING_MEAN,
        normalize=True,
        dtype=pb.DATA_TYPE_FLOAT16,
    )
    assert [request.hidden_states for request in server.requests] == [expected] * 5


@pytest.mark.parametrize("pooling", [None, "cls", "mean", "last"])
def test_each_pooling_has_its_number(pooling: Any, client: Client, server: FakeServer) -> None:
    """As the protocol spells it."""
    client.embed(text="a", hidden_states=HiddenStatesRequest(pooling=pooling))
    name = pb.HiddenStatesPooling.Name(server.requests[-1].hidden_states.pooling)
    assert name == f"HIDDEN_STATES_POOLING_{(pooling or 'unspecified').upper()}"


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_states_are_read_as_floats(dtype: Literal["float32", "float16", "uint8"], client: Client) -> None:
    """However they travelled; with what the positions stand for."""
    for states in all_answers(client, HiddenStatesRequest(layers=(-1, 0), positions=(0, 1, 2, 3, 4), dtype=dtype)):
        assert states
        assert [layer.layer for layer in states.layers] == [2, 0]
        assert states.layer(-1) is states.layer(2) is states.layers[0]
        for layer in states.layers:
            assert layer.values.dtype == (np.float16 if dtype == "float16" else np.float32)
            np.testing.assert_allclose(layer.values, state(layer.layer), rtol=1e-6)
            assert (layer.axes, layer.positions) == (("position", "dim"), (0, 1, 2, 3, 4))
        assert states.tokens
        assert [token.text for token in states.tokens] == WORDS
        with pytest.raises(LookupError, match=r"no layer 1 in this answer, which holds \[0, 2\]"):
            states.layer(1)


def test_who_asks_for_none_gets_none(client: Client, server: FakeServer) -> None:
    """And the field stays unset."""
    assert client.embed(text="a").hidden_states is None
    assert not server.requests[-1].HasField("hidden_states")


async def test_the_client_for_asyncio_gives_the_same(aio_client: AsyncClient, server: FakeServer) -> None:
    """By each of its calls."""
    asked = HiddenStatesRequest(layers=(1,), pooling="cls")
    answers = [
        (await aio_client.embed(text="a", hidden_states=asked)).hidden_states,
        (await aio_client.classify(text="a", hidden_states=asked)).hidden_states,
        (await aio_client.predict(INPUTS, hidden_states=asked)).hidden_states,
        (await aio_client.embed_many(texts=["a"], hidden_states=asked))[0].hidden_states,
        (await aio_client.classify_many(texts=["a"], hidden_states=asked))[0].hidden_states,
    ]
    for states in answers:
        assert states
        assert (states.tokens, states.layers[0].axes) == (None, ("dim",))
        np.testing.assert_array_equal(states.layers[0].values, state(1)[0])
    assert len(server.requests) == 5


def test_a_model_says_which_states_it_has(client: Client) -> None:
    """Layer by layer."""
    assert client.model("minilm").hidden_state_layers == tuple(HiddenStateLayer(layer, 2) for layer in range(3))
    assert client.model("tensors").hidden_state_layers == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pooling": "max"}, "hidden_states pooling is 'max'; expected None, 'cls', 'mean' or 'last'"),
        ({"dtype": "int8"}, "hidden_states dtype is 'int8'; expected 'float32', 'float16' or 'uint8'"),
        ({"layers": 3}, "hidden_states layers: 3; expected a list of int"),
        ({"positions": (2**31,)}, "hidden_states positions: 2147483648; expected a whole number"),
        ({"normalize": "yes"}, "hidden_states normalize: 'yes'; expected True or False"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused(given: dict[str, Any], message: str) -> None:
    """When it is made."""
    with pytest.raises(InvalidArgument, match=message):
        HiddenStatesRequest(**given)


def test_something_else_than_a_request_is_refused(client: Client) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidArgument, match="hidden_states: True; expected a HiddenStatesRequest"):
        client.embed(text="a", hidden_states=True)  # type: ignore[arg-type]


def test_the_command_line_saves_every_position_of_one_text(run: Run, tmp_path: Path, server: FakeServer) -> None:
    """Beside what it prints anyway."""
    done = run("embed", "a", "--model", "minilm", "--hidden-layer", "-1", "--hidden-layer", "0", "-o", "a.npz")
    assert done.out == "a: 4 wide, norm 1.0000, [0.0000, 1.0000, 0.0000, 0.0000]\n"
    assert done.err == "regard: wrote a.npz\n"
    assert list(server.requests[-1].hidden_states.layers) == [-1, 0]
    with np.load(tmp_path / "a.npz") as saved:
        assert list(saved) == ["hidden_states.2", "hidden_states.0"]
        np.testing.assert_array_equal(saved["hidden_states.2"], state(2))


@pytest.mark.parametrize("lines", [False, True])
def test_the_command_line_stacks_the_vectors_of_several(lines: bool, run: Run, tmp_path: Path) -> None:
    """One a text."""
    (tmp_path / "texts.txt").write_text("a\nb\n")
    given = ("texts.txt", "--lines") if lines else ("a", "b")
    run("embed", *given, "--model", "minilm", "--hidden-layer", "1", "--pooling", "mean", "-o", "out.npz")
    with np.load(tmp_path / "out.npz") as saved:
        np.testing.assert_array_equal(saved["hidden_states.1"], [state(1)[0]] * 2)


def test_a_line_that_has_an_error_loses_no_states_of_the_others(run: Run, tmp_path: Path) -> None:
    """They are saved with the numbers of their lines, and the command ends with 1."""
    (tmp_path / "texts.txt").write_text("a\n\nbad\nc\nd\n")
    (tmp_path / "more.txt").write_text("bad\nb\n")
    asked = ("--lines", "--model", "minilm", "--hidden-layer", "1", "--pooling", "cls", "-o", "out.npz")
    done = run("embed", "texts.txt", "more.txt", *asked)
    assert done.code == 1
    assert done.err.count("expected a good one") == 2
    assert done.err.endswith("regard: wrote out.npz\n")
    with np.load(tmp_path / "out.npz") as saved:
        np.testing.assert_array_equal(saved["hidden_states.1"], [state(1)[0]] * 4)
        assert saved["lines"].tolist() == [1, 4, 5, 2]
        assert saved["files"].tolist() == ["texts.txt"] * 3 + ["more.txt"]


def test_a_call_that_fails_loses_no_states_of_those_before(
    run: Run, tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lines a call here; the second is refused. What has no answer at all is not written."""
    embed_many = Client.embed_many

    def embed_and_refuse(client: Client, **asked: Any) -> Any:
        answers = embed_many(client, **asked)
        server.error = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return answers

    monkeypatch.setattr(Client, "embed_many", embed_and_refuse)
    (tmp_path / "texts.txt").write_text("a\nb\nc\nd\n")
    asked = ("--lines", "--model", "minilm", "--hidden-layer", "1", "--pooling", "cls", "-o")
    done = run("embed", "texts.txt", *asked, "out.npz")
    assert (done.code, done.err) == (1, "regard: wrote out.npz\nregard: RESOURCE_EXHAUSTED: full\n")
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["lines"].tolist() == [1, 2, 3]
    server.error = None
    (tmp_path / "bad.txt").write_text("bad\n")
    assert (
        "regard: none.npz is not written: no input has an answer\n" in run("embed", "bad.txt", *asked, "none.npz").err
    )
    assert not (tmp_path / "none.npz").exists()


def test_the_command_line_prints_a_line_a_layer_of_what_is_not_saved(run: Run) -> None:
    """Of one vector its size, length and first numbers; of several those of the first."""
    asked = ("--model", "minilm", "--hidden-layer", "1", "--hidden-layer", "0")
    for pooling in ((), ("--pooling", "cls")):
        lines = run("embed", "a", "b", *asked, *pooling).out.splitlines()
        assert [line.partition(":")[0] for line in lines[:6]] == ["a", *HIDDEN, "b", *HIDDEN]
        first, shape = state(1)[0], "" if pooling else " x ".join(map(str, state(1).shape)) + ", the first "
        numbers = ", ".join(f"{number:.4f}" for number in first)
        norm = np.linalg.norm(first)
        assert lines[1] == f"{HIDDEN[0]}: {shape}{len(first)} wide, norm {norm:.4f}, [{numbers}]"


def test_several_inputs_that_cannot_be_saved_are_not_asked_for(run: Run, server: FakeServer, tmp_path: Path) -> None:
    """Nor those of a file's lines."""
    (tmp_path / "texts.txt").write_text("a\nb\n")
    for given in (("a", "b"), ("texts.txt", "--lines")):
        done = run("embed", *given, "--model", "minilm", "--hidden-layer", "1", "-o", "a.npz")
        assert (done.code, done.err[:35]) == (1, "regard: -o: several inputs differ i")
    assert not [request for request in server.requests if hasattr(request, "hidden_states")]


def test_the_command_line_prints_states_as_json(run: Run) -> None:
    """With the vector."""
    assert '"hidden_states": {"layers": [{"layer": 1,' in run("embed", "a", "--hidden-layer", "1", "--json").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pooling", "mean"), "expected --hidden-layer with it"),
        (("-o", "a.txt"), "a.txt: answers are written in .jsonl, .npz, .parquet"),
        (("--hidden-layer", "1", "-o", "a.txt"), "a.txt: hidden states are saved in a .npz"),
        (("--hidden-layer", "1", "-o", "no/a.npz"), "-o no/a.npz: no is no folder"),
        (("--hidden-layer", "1", "-o", "a.npz", "b"), "-o: several inputs differ in their positions; expected one"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: tuple[str, ...], message: str, run: Run) -> None:
    """In a line."""
    done = run("embed", "a", "--model", "minilm", *arguments)
    assert done.code != 0
    assert message in " ".join(done.err.replace("│", " ").split())
