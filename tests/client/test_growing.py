"""The alignment in a terminal, a row with each token as it comes."""

from collections.abc import Iterator

import numpy as np
import pytest

from regard.attention import LayerAttention
from regard.console import Terminal
from regard.generate_calls import TokenStream
from regard.generation import Generated, GeneratedText, GeneratedToken, GenerationTimings
from regard.growing import print_rows, steps
from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb

ROWS = np.eye(4, 3, dtype=np.float32)


def token(text: str, place: int) -> rpc.GenerateResponse:
    """One that attends to one source token alone; the fourth to none."""
    weights = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[3], data=ROWS[place].tobytes())
    layer = pb.LayerAttention(layer=1, kind=pb.ATTENTION_KIND_CROSS, axes=["key"], heads=[0, 1], weights=weights)
    return rpc.GenerateResponse(token=rpc.GeneratedToken(token=place, text=text, attention=[layer]))


def start(*words: str) -> rpc.GenerateResponse:
    """What was read."""
    source = pb.TokenSequence(tokens=[pb.Token(text=word) for word in words])
    return rpc.GenerateResponse(start=rpc.GenerationStart(model="g2p", source=source))


def end(reason: rpc.FinishReason, text: str = "K AE") -> rpc.GenerateResponse:
    """The last message."""
    result = rpc.GeneratedText(text=text, finish_reason=reason)
    return rpc.GenerateResponse(end=rpc.GenerationEnd(results=[result]))


def grow(
    capsys: pytest.CaptureFixture[str], texts: list[str], reason: rpc.FinishReason, words: list[str], text: str = "K AE"
) -> list[list[str]]:
    """Return the lines that had been printed when each token came, and behind the end."""
    printed = list[list[str]]()

    def messages() -> Iterator[rpc.GenerateResponse]:
        yield start(*words)
        for place, word in enumerate(texts):
            printed.append(capsys.readouterr().out.splitlines())
            yield token(word, place)
        printed.append(capsys.readouterr().out.splitlines())
        yield end(reason, text)

    print_rows(TokenStream(messages()), "g2p", Terminal())
    return [*printed, capsys.readouterr().out.splitlines()]


def test_a_row_is_printed_when_its_token_comes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The title with the first; one without a text waits until it is known whether the text has ended with it."""
    monkeypatch.setenv("COLUMNS", "80")
    nothing, first, second, waits, later, last = grow(
        capsys, ["K", " AE", "", ""], rpc.FINISH_REASON_END, ["c", "a", "</s>"]
    )
    assert nothing == []
    assert first[0].startswith("g2p · layer 1 · mean of 2 heads · percent of attention")
    assert first[-1] == "         K 100  ·  ·"
    assert second == ["        AE   ·100  ·"]
    assert waits == []
    assert later == ["         ·   ·  ·100"]
    assert last == ["     (end)   ·  ·  ·", ""]


def test_a_text_that_is_cut_ends_where_an_end_was_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last token that leaves a character open is named as any other."""
    monkeypatch.setenv("COLUMNS", "80")
    *_, last = grow(capsys, ["K", ""], rpc.FINISH_REASON_LENGTH, ["c", "a", "</s>"], "K")
    assert last == ["     (end)   ·100  ·", ""]
    *_, last = grow(capsys, ["K", ""], rpc.FINISH_REASON_LENGTH, ["c", "a", "</s>"], "K\ufffd")
    assert last == ["         ·   ·100  ·", ""]
    assert grow(capsys, [], rpc.FINISH_REASON_LENGTH, ["c"]) == [[], []]


@pytest.mark.parametrize(
    ("width", "row"), [(40, "    K 100  ·  ·"), (12, "    K ██    "), (8, "    K attends to c 100 %")]
)
def test_rows_fit_terminals_that_are_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, row: str
) -> None:
    """With shades, or with the names of what is attended to most."""
    monkeypatch.setenv("COLUMNS", str(width))
    _, lines, _ = grow(capsys, ["K"], rpc.FINISH_REASON_LENGTH, ["c", "a", "</s>"])
    assert lines[-1].startswith(row)


def test_self_attention_begins_with_what_the_decoder_began_with() -> None:
    """Two tokens here, whose names nobody tells: the first row has two keys, each further one more."""
    rows = [[0.25, 0.75], [0.5, 0.25, 0.25]]
    tokens = tuple(
        GeneratedToken(
            place, text, -1.0, (), (LayerAttention(3, "causal", ("key",), (0, 1), (), np.array(row, np.float32)),)
        )
        for place, (text, row) in enumerate(zip(["K", " AE"], rows, strict=True))
    )
    result = GeneratedText("K AE", -2.0, "length", tokens)
    layer = result.alignment(kind="self")
    assert (layer.layer, layer.kind, layer.axes, layer.queries) == (3, "causal", ("query", "key"), (1, 2))
    np.testing.assert_array_equal(layer.weights, [[0.25, 0.75, 0.0], [0.5, 0.25, 0.25]])
    with pytest.raises(LookupError, match=r"no cross attention of layer -1 in this answer, which holds \[\]"):
        result.alignment()
    found = Generated("g2p", "1", (), False, (result,), GenerationTimings(1, 2, 3, 4, 5))
    both = steps(found, "self")
    assert both.tokens is not None and both.key_tokens is not None
    assert [token.text for token in both.tokens] == ["(start)", "K", "AE"]  # a row is named by what it wrote
    assert [token.text for token in both.key_tokens] == ["(start)", "(start)", "K"]
