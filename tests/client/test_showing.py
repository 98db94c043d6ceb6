"""Attention in a notebook: pictures, HTML, arrays and tables, of what the answer itself knows."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regard
from regard import Attention, AttentionRequest, Client, LayerAttention, RegardError, Token
from regard.origin import Origin, origin_of
from tests.client.fake import photo_bytes

pytest.importorskip("matplotlib", reason="pictures need the extra explore")
TOKENS = tuple(Token(number, text, 0, 0, False) for number, text in enumerate(["[CLS]", "<b>", "sat"]))


def attention_of_text(layers: int = 2) -> Attention:
    """Return attention [2 heads, 3 queries, 3 keys] between tokens."""
    weights = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    weights /= weights.sum(-1, keepdims=True)
    found = (
        LayerAttention(number, "self", ("head", "query", "key"), (4, 7), (0, 1, 2), weights) for number in range(layers)
    )
    return Attention(tuple(found), TOKENS)


def texts_of(figure: Any) -> str:
    """Return all that is written on a figure."""
    return " ".join(text.get_text() for text in figure.findobj(match=lambda one: hasattr(one, "get_text")))


def test_a_photo_is_drawn_without_saying_anything_again(client: Client) -> None:
    """Its bytes, its grid and the model are known from the call; also as one of many, and of a stream."""
    asked = AttentionRequest(layers=(0,))
    single = client.classify(image=photo_bytes(), model="photos", attention=asked).attention
    assert single is not None
    assert "photos" in texts_of(single.plot())
    first, second = client.classify_many(images=[photo_bytes()] * 2, model="photos", attention=asked)
    assert first.attention and second.attention
    assert origin_of(second.attention) == Origin("photos", asked, photo_bytes())
    streamed = Attention.join(list(client.attend(image=photo_bytes(), model="photos", attention=asked)))
    assert "photos" in texts_of(streamed.plot(head=1))
    (one,) = client.attend_many(images=[photo_bytes()], model="photos", attention=asked)
    assert isinstance(one, Attention)
    assert "photos" in texts_of(one.plot())
    (other,) = client.classify_many(images=iter([photo_bytes()]), model="photos", attention=asked)
    assert not isinstance(other, RegardError) and other.attention
    assert origin_of(other.attention) == Origin("photos", asked, photo_bytes())


def test_a_text_is_drawn_token_by_token() -> None:
    """Each head, one of them, or their mean."""
    attention = attention_of_text()
    assert texts_of(attention.plot()).count("head") >= 2
    assert "head 7" in texts_of(attention.plot(head=7))
    assert attention.plot(view="arcs", layer=0)
    for wrong, told in (
        ({"head": 3}, "head: 3; expected one of 4, 7"),
        ({"view": "overlay"}, "view: 'overlay'; expected heads, matrix or arcs"),
        ({"view": "pie"}, "view is 'pie'; expected None, 'heads'"),
    ):
        with pytest.raises(regard.InvalidArgument, match=re.escape(told)):
            attention.plot(**wrong)
    with pytest.raises(LookupError, match="no layer 9"):
        attention.plot(layer=9)


def test_a_photo_that_is_not_there_is_asked_for(client: Client) -> None:
    """After an answer was made by hand, say; then it may be given."""
    found = client.classify(image=photo_bytes(), model="photos", attention=AttentionRequest(layers=(0,))).attention
    assert found is not None
    bare = Attention(found.layers, None, found.patches)
    with pytest.raises(regard.InvalidArgument, match="photo: None; expected the image that was sent"):
        bare.plot()
    assert bare.plot(photo=photo_bytes())
    with pytest.raises(regard.InvalidArgument, match="says neither tokens nor patches"):
        Attention(found.layers).plot()


def test_html_tells_the_number_of_the_cell_that_is_pointed_at(client: Client) -> None:
    """Tokens are escaped; a photo has a cell a patch."""
    shown = attention_of_text()._repr_html_()
    assert 'title="[CLS] → &lt;b&gt;: 0.333"' in shown
    assert "<b>" not in shown
    assert "layer 1 · mean of 2 heads · weights" in shown
    photo = client.classify(image=photo_bytes(), model="photos", attention=AttentionRequest(layers=(0,))).attention
    assert photo is not None
    assert photo._repr_html_().count(" title=") == 6
    assert "data:image/png;base64," in photo._repr_html_()
    assert "left:16.667%;top:0.000%;width:66.667%;height:100.000%" in photo._repr_html_()
    assert "<pre>" in Attention(photo.layers)._repr_html_()


def test_reprs_are_short(client: Client) -> None:
    """No numbers of arrays."""
    asked = AttentionRequest(layers=(0,))
    assert repr(client.embed(text="a", model="minilm")) == "Embedding(minilm 2: float32 [4])"
    labels = client.classify(image=photo_bytes(), model="photos", attention=asked)
    assert repr(labels) == "Classification(photos 1: cat 0.75, [dog] 0.25; attention)"
    layer = "weights [head 2, query 3, key 3]"
    assert repr(attention_of_text()) == f"Attention(layer 0: {layer}, layer 1: {layer}; 3 tokens)"


def test_layers_become_one_array() -> None:
    """Where they have one shape."""
    attention = attention_of_text()
    assert attention.to_numpy().shape == (2, 2, 3, 3)
    np.testing.assert_array_equal(attention.to_numpy()[1], attention.layer(1).weights)
    other = LayerAttention(2, "self", ("query", "key"), (4, 7), (0,), np.ones((1, 3), np.float32))
    with pytest.raises(regard.InvalidArgument, match=r"layers of shapes \[1, 3\], \[2, 3, 3\]; expected the same"):
        Attention((*attention.layers, other), TOKENS).to_numpy()


def test_axes_are_named_for_xarray() -> None:
    """With the numbers of layers, heads and positions, and what tokens say."""
    pytest.importorskip("xarray", reason="it is optional")
    found = attention_of_text().to_xarray()
    assert found.dims == ("layer", "head", "query", "key")
    assert float(found.sel(layer=1, head=7, query=2, key=0)) == pytest.approx(15 / 48)
    assert found.coords["key_token"].values.tolist() == ["[CLS]", "<b>", "sat"]


def test_numbers_are_rows_for_pandas() -> None:
    """Each with its place in words."""
    pytest.importorskip("pandas", reason="it is optional")
    found = attention_of_text().to_dataframe()
    assert list(found.columns) == ["layer", "head", "query", "query_token", "key", "key_token", "weights"]
    assert len(found) == 2 * 2 * 3 * 3
    row = found[(found.layer == 0) & (found["head"] == 7) & found.key_token.isin(["sat"]) & (found["query"] == 2)]
    assert row.weights.item() == pytest.approx(17 / 48)


def largest_of_text() -> Attention:
    """Return the two largest weights of each row, [1 head, 3 queries, 2]."""
    weights, keys = np.array([[[0.6, 0.4]] * 3], np.float32), np.array([[[2, 0], [1, 2], [0, 1]]], np.int32)
    axes = ("head", "query", "key")
    return Attention((LayerAttention(0, "self", axes, (4,), (0, 1, 2), weights, indices=keys),), TOKENS)


def test_the_largest_weights_are_of_their_own_keys() -> None:
    """Of which each row has others."""
    pytest.importorskip("xarray", reason="it is optional")
    found, table = largest_of_text().to_xarray(), largest_of_text().to_dataframe()
    words = ["sat", "[CLS]", "<b>", "sat", "[CLS]", "<b>"]
    assert found.dims == ("layer", "head", "query", "rank")
    assert found.coords["key"].values.ravel().tolist() == table["key"].tolist() == [2, 0, 1, 2, 0, 1]
    assert found.coords["key_token"].values.ravel().tolist() == table["key_token"].tolist() == words
    assert found.coords["query_token"].values.tolist() == ["[CLS]", "<b>", "sat"]


def test_attention_without_layers_is_shown() -> None:
    """In a notebook as its repr, as a table without rows; it is no array."""
    nothing = Attention((), TOKENS)
    assert nothing._repr_html_() == "<pre>Attention(; 3 tokens)</pre>"
    with pytest.raises(regard.InvalidArgument, match="layers of shapes none; expected the same"):
        nothing.to_numpy()
    pytest.importorskip("xarray", reason="it is optional")
    with pytest.raises(regard.InvalidArgument, match="layers of shapes none"):
        nothing.to_xarray()
    assert len(nothing.to_dataframe()) == 0


@pytest.mark.parametrize(("module", "method"), [("xarray", "to_xarray"), ("pandas", "to_dataframe")])
def test_what_is_not_installed_is_named(module: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=f"{method} needs {module}: pip install {module}"):
        getattr(attention_of_text(), method)()


def test_what_is_kept_is_not_written_out(run: Any, photo: Path) -> None:
    """JSON holds what the server sent."""
    done = run("attend", photo, "--json", "--model", "photos", "--layer", "0")
    assert (done.code, "_origin" in done.out, done.out.count('"heads"')) == (0, False, 1)


def test_statistics_are_named_in_tables_and_are_no_picture() -> None:
    """An axis of their own."""
    weights = np.array([[1, 2], [3, 4]], np.float32)
    layer = LayerAttention(0, "self", ("head", "statistic"), (4, 7), (), weights, statistics=("entropy", "sink"))
    attention = Attention((layer,), TOKENS)
    with pytest.raises(RegardError, match=r"attention: statistics \(entropy, sink\); expected weights to draw"):
        attention.plot()
    pytest.importorskip("xarray", reason="needs the extra tables")
    assert float(attention.to_xarray().sel(layer=0, head=7, statistic="sink")) == 4
    rows = attention.to_dataframe()
    assert rows[(rows["head"] == 4) & (rows["statistic"] == "sink")]["weights"].tolist() == [2]
