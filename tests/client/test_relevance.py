"""Why a label, against the fake server: what an answer says of itself, and which models can."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import regard
from regard import AsyncClient, Client, Relevance, RelevanceRequest
from regard.origin import Origin, origin_of
from regard.reasons import adds_up, names, on_patches, strongest
from tests.client.conftest import Run
from tests.client.fake import RELEVANCE_OF_IMAGE, photo_bytes


def of_text(client: Client, **asked: Any) -> Relevance:
    """Ask why of a text."""
    found = client.classify(text="cats sitting", model="photos", relevance=RelevanceRequest(**asked)).relevance
    assert found is not None
    return found


def of_image(client: Client, **asked: Any) -> Relevance:
    """Ask why of an image."""
    found = client.classify(image=photo_bytes(), model="photos", relevance=RelevanceRequest(**asked)).relevance
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (0.0, "adds up exactly"),
        (4.2e-8, "adds up within 5e-8"),
        (9.1e-7, "adds up within 1e-6"),
        (0.03, "adds up within 3e-2"),
        (1.0, "adds up within 1e0"),
    ],
)
def test_how_far_it_adds_up_is_rounded_up(client: Client, error: float, told: str) -> None:
    """So that it is never said to be nearer than it is."""
    assert adds_up(dataclasses.replace(of_text(client), relative_error=error)) == told


def test_positions_have_names(client: Client) -> None:
    """Tokens, told apart by their place where they come twice; patches; numbers where nothing is known."""
    why = of_text(client)
    assert names(why) == ["[CLS]", "cats", "sit", "##ting", "[SEP]"]
    assert names(of_text(client, drop_special=True)) == ["cats", "sit", "##ting"]
    assert why.tokens is not None
    twice = dataclasses.replace(why, tokens=(*why.tokens[:4], why.tokens[1]))
    assert names(twice) == ["[CLS]", "cats (1)", "sit", "##ting", "cats (4)"]
    assert names(of_image(client))[:3] == ["class token", "row 0, column 0", "row 0, column 1"]
    assert names(dataclasses.replace(why, tokens=None))[4] == "position 4"
    assert strongest(why)[:2] == [("##ting", 2.0), ("cats", -1.5)]


def test_patches_lie_where_they_are_on_the_image(client: Client) -> None:
    """Also where prefix tokens were left out; what does not fit the grid is refused."""
    expected = np.reshape(RELEVANCE_OF_IMAGE[1:], (2, 3))
    np.testing.assert_array_equal(on_patches(of_image(client)), expected)
    np.testing.assert_array_equal(on_patches(of_image(client, drop_special=True)), expected)
    with pytest.raises(ValueError, match="without patches"):
        on_patches(of_text(client))
    with pytest.raises(ValueError, match="position 7; expected fewer than 7"):
        on_patches(dataclasses.replace(of_image(client), values=np.ones(1, np.float32), positions=(7,)))


async def test_what_was_sent_is_kept(client: Client, aio_client: AsyncClient) -> None:
    """To draw it: of one input and of each of several."""
    expected = Origin("photos", None, photo_bytes())
    assert origin_of(of_image(client)) == expected
    for one in client.classify_many(images=[photo_bytes()] * 2, model="photos", relevance=RelevanceRequest()):
        assert one.relevance and origin_of(one.relevance) == expected
    found = await aio_client.classify(image=photo_bytes(), model="photos", relevance=RelevanceRequest())
    assert found.relevance and origin_of(found.relevance) == expected


def test_an_answer_says_its_method(client: Client) -> None:
    """With what its numbers make up: nothing where they make up none."""
    libra, genatt = of_text(client), of_text(client, method="genatt")
    integrated = of_text(client, method="integrated-gradients", steps=7)
    assert (libra.method, libra.baseline) == ("libra", None)
    assert (genatt.method, genatt.error, genatt.relative_error) == ("genatt", None, None)
    assert (integrated.method, integrated.baseline) == ("integrated-gradients", -0.25)
    assert [adds_up(why) for why in (genatt, integrated)] == [
        "genatt makes up no score",
        "integrated-gradients adds up within 5e-8",
    ]
    assert (repr(genatt), repr(libra)) == (
        "Relevance(cat: 1.5 of 5 positions, genatt)",
        "Relevance(cat: 1.5 of 5 positions, within 4e-08)",
    )


def test_several_labels_have_an_answer_each(client: Client) -> None:
    """In the order in which they were asked for; the first is `relevance`, too."""
    asked = RelevanceRequest(labels=("[dog]", "cat"))
    found = client.classify(text="cats sitting", model="photos", relevance=asked)
    assert [why.label for why in found.relevances] == ["[dog]", "cat"]
    assert found.relevance is found.relevances[0]
    alone = client.classify(text="cats sitting", model="photos", relevance=RelevanceRequest())
    assert alone.relevances == (alone.relevance,)
    (one,) = client.classify_many(texts=["a"], model="photos", relevance=RelevanceRequest(top=2))
    assert [why.label for why in one.relevances] == ["cat", "[dog]"]
    assert origin_of(one.relevances[1]).model == "photos"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "lrp"}, "relevance.method is 'lrp'; expected 'libra', 'gradient', 'integrated-gradients'"),
        ({"labels": "cat"}, "relevance.labels: 'cat'; expected a list of str"),
        ({"top": -1}, "relevance.top: -1; expected"),
        ({"steps": 1.5}, "relevance.steps: 1.5"),
        ({"by_layer": "yes"}, "relevance.by_layer: 'yes'"),
    ],
)
def test_what_cannot_be_sent_is_refused(client: Client, asked: dict[str, Any], message: str) -> None:
    """Before it is."""
    with pytest.raises(regard.InvalidArgument, match=message):
        client.classify(text="a", model="photos", relevance=RelevanceRequest(**asked))


def test_tokens_of_a_word_are_summed(client: Client) -> None:
    """Where special tokens are left out, too; what tells no words is refused."""
    for asked in ({}, {"drop_special": True}):
        words = of_text(client, **asked).by_word()
        assert [(word.start, word.end, word.value, word.tokens) for word in words] == [
            (0, 4, -1.5, (1,)),
            (5, 12, 2.5, (2, 3)),
        ]
    for why in (of_image(client), dataclasses.replace(of_text(client), words=())):
        with pytest.raises(regard.InvalidArgument, match="relevance: says no words"):
            why.by_word()


def test_each_depth_makes_up_the_score(client: Client) -> None:
    """And is relevance itself: it has names, words and HTML, and keeps what it came from."""
    for asked in ({}, {"drop_special": True}):
        why = of_text(client, by_layer=True, **asked)
        layers = why.by_layer
        assert layers is not None
        assert layers.values.shape == (3, len(why.values)) and layers.values.dtype == np.float32
        for depth in range(3):
            there = why.at_layer(depth)
            assert float(there.values.sum()) + there.unsent + there.rest == pytest.approx(why.score)
            assert (there.layer, there.by_layer, there.score) == (depth, None, why.score)
            assert there.relative_error == pytest.approx((depth + 1) * 1e-8)
    half = of_text(client, by_layer=True).at_layer(1)
    assert [word.value for word in half.by_word()] == [-0.75, 1.25]
    assert origin_of(half).model == "photos"
    assert "photos · why cat · layer 1 · score 1.5 · adds up within 2e-8 · added behind +0.938" in half._repr_html_()
    assert "photos · why cat · entering · score" in of_text(client, by_layer=True).at_layer(0)._repr_html_()
    assert repr(half) == "Relevance(cat: 1.5 of 5 positions, layer 1, within 2e-08)"
    off = dataclasses.replace(of_text(client, by_layer=True), score=2.5).at_layer(2)
    assert off.error == pytest.approx(1)


def test_layers_that_are_not_there_are_refused(client: Client) -> None:
    """None that were not asked for, and no more than the network has."""
    assert of_text(client).by_layer is None
    with pytest.raises(regard.InvalidArgument, match="relevance: not by layer; expected that of a request with by_"):
        of_text(client).at_layer(0)
    for layer in (3, -1):
        with pytest.raises(regard.InvalidArgument, match=f"layer: {layer}; expected"):
            of_text(client, by_layer=True).at_layer(layer)


def test_models_say_whether_they_explain(client: Client, run: Run) -> None:
    """In Python and in the table."""
    assert [model.name for model in client.models() if model.can_explain] == ["photos"]
    assert [model.name for model in client.models() if model.can_explain_layers] == ["photos"]
    assert {model.relevance_methods for model in client.models()} == {(), ("libra", "genatt")}
    lines = {line.split()[0]: line for line in run("models").out.splitlines()[1:7]}
    assert "classify (3), explain" in lines["photos"]
    assert "explain" not in lines["fashion"]


def test_html_tells_the_number_that_is_pointed_at(client: Client) -> None:
    """The larger the more opaque, in two colours; tokens are escaped."""
    why = of_text(client, label="<b>")
    shown = why._repr_html_()
    assert 'background:#e69f00ff;padding:1px 3px;margin:1px" title="+2">##ting<' in shown
    assert 'background:#56b4e9bf;padding:1px 3px;margin:1px" title="-1.5">cats<' in shown
    assert "photos · why &lt;b&gt; · score 1.5 · adds up within 5e-8 · no position +0.375" in shown
    photo = of_image(client, drop_special=True)._repr_html_()
    assert photo.count(" title=") == 6
    assert 'background:#56b4e9aa" title="row 0, column 1: -2"' in photo
    assert "left out +0.5 · no position -0.5" in photo
    assert "class token +0.5 · no position -0.5" in of_image(client)._repr_html_()
    bare = dataclasses.replace(why, tokens=None)
    assert "<pre>Relevance(&lt;b&gt;: 1.5" in bare._repr_html_()


def test_what_has_no_place_cannot_be_drawn(client: Client) -> None:
    """Neither tokens nor patches, or no photo."""
    pytest.importorskip("matplotlib", reason="pictures need the extra explore")
    with pytest.raises(regard.InvalidArgument, match="relevance: says neither tokens nor patches"):
        dataclasses.replace(of_text(client), tokens=None).plot()
    with pytest.raises(regard.InvalidArgument, match="photo: None; expected the image that was sent"):
        dataclasses.replace(of_image(client)).plot()
