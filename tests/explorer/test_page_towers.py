"""Labels of the reader's own for two towers, and a second text for models of pairs: on the page and behind it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from regard import AttentionRequest, Client
from tests.explorer.browsing import Browser, expect, visiting
from tests.explorer.conftest import serving_models
from tests.explorer.running import SANDAL, Explorer, exploring, sandal
from tests.golden import GOLDEN_PAIRS, GOLDEN_TOWERS

LABELS = ["a cat", "two dogs"]
PAIR = ("the dog sat", "a dog on a mat")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of two towers, and of a model that reads pairs."""
    models = (GOLDEN_TOWERS / "tiny-clip", GOLDEN_PAIRS / "tiny-nli")
    with serving_models(tmp_path_factory.mktemp("models"), *models) as address:
        yield address


@pytest.fixture(scope="module")
def explorer(server: str) -> Iterator[Explorer]:
    """An explorer of it."""
    with exploring(server) as running:
        yield running


def test_each_of_two_towers_is_listed(explorer: Explorer) -> None:
    """Under one name, each with its own layers; what takes labels and what takes pairs is said."""
    listed = explorer.ask("GET", "/api/models").json()["models"]
    found = {(one["name"], one["modality"]): (one["takes_labels"], one["takes_pairs"]) for one in listed}
    assert found == {
        ("tiny-clip", "image"): (True, False),
        ("tiny-clip", "text"): (False, False),
        ("tiny-nli", "text"): (False, True),
    }
    assert all(one["can_show"] and one["layers"] for one in listed)


def test_labels_and_pairs_are_asked_for_as_a_client_does(explorer: Explorer, server: str) -> None:
    """And come back with the attention: of the photo, and of both texts."""
    photo = explorer.keep(sandal())
    head, numbers = explorer.attend(model="tiny-clip", photo=photo, labels="a cat, two dogs,", layers=[1]).attention()
    wanted = AttentionRequest(layers=(1,), dtype="float16")
    with Client(server) as client:
        expected = client.classify(image=sandal(), model="tiny-clip", candidate_labels=LABELS, attention=wanted)
        pair = client.classify(pair=PAIR, model="tiny-nli", attention=wanted)
    assert [(one["name"], one["probability"]) for one in head["labels"]] == [
        (one.name, pytest.approx(one.probability)) for one in expected.labels
    ]
    assert expected.attention is not None and pair.attention is not None and pair.attention.tokens is not None
    np.testing.assert_array_equal(numbers[0], expected.attention.layer(1).weights)
    assert explorer.attend(model="tiny-clip", photo=photo, layers=[1]).attention()[0]["labels"] == []
    head, numbers = explorer.attend(model="tiny-nli", text=PAIR[0], second=PAIR[1], layers=[1]).attention()
    assert [token["text"] for token in head["tokens"]] == [token.text for token in pair.attention.tokens]
    np.testing.assert_array_equal(numbers[0], pair.attention.layer(1).weights)


def test_what_belongs_to_the_other_input_is_refused(explorer: Explorer) -> None:
    """By its name; a model that has labels of its own refuses others in its server's words."""
    for fields, message in (
        ({"text": "a", "labels": "a"}, "labels: 'a'; expected none, as there is no photo"),
        ({"photo": explorer.keep(sandal()), "second": "a"}, "second: 'a'; expected none, as there is no text"),
        ({"text": "a", "words": "a"}, "words: 'a'; expected none, as there is no photo"),
        ({"text": "a", "second": 7}, "second: 7; expected a text"),
    ):
        answer = explorer.attend(model="tiny-clip", **fields)
        assert (answer.status, answer.json()["message"]) == (400, message)


def test_labels_are_compared_with_a_photo_on_the_page(browser: Browser, explorer: Explorer) -> None:
    """Best first; a link holds them; a text has no such field."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("tiny-clip", "layer 1", "mean of 2 heads")
        expect(visit.find("#labels li")).to_have_count(0)
        visit.page.fill("#candidates", ", ".join(LABELS))
        visit.page.press("#candidates", "Enter")
        expect(visit.find("#labels li")).to_have_count(2)
        shown = visit.find("#labels .name").all_inner_texts()
        assert sorted(shown) == sorted(LABELS)
        link = visit.page.url.partition("#")[2]
        visit.page.get_by_role("radio", name="Text").check()
        expect(visit.find("#candidates")).to_have_count(0)
    with visiting(browser, explorer, link) as visit:
        expect(visit.find("#labels .name")).to_have_text(shown)
        assert visit.page.input_value("#candidates") == ", ".join(LABELS)


def test_labels_are_asked_for_once(browser: Browser, explorer: Explorer) -> None:
    """With the first layer: they are the same with every other, and with none where the field is empty again."""
    with visiting(browser, explorer) as visit:
        asked = list[bool]()

        def note(request: Any) -> None:
            asked.extend(["labels" in request.post_data] if request.url.endswith("/api/attend") else [])

        visit.page.on("request", note)
        visit.give(SANDAL)
        visit.title_is("tiny-clip", "layer 1", "mean of 2 heads")
        for labels, count in ((LABELS, 2), (LABELS[:1], 1), ([], 0), (LABELS, 2)):
            visit.page.fill("#candidates", ", ".join(labels))
            visit.page.press("#candidates", "Enter")
            expect(visit.find("#labels li")).to_have_count(count)
        shown = visit.find("#labels .name").all_inner_texts()
        for layer in (0, 1, 0):
            visit.choose("layers", layer)
            visit.title_is("tiny-clip", f"layer {layer}", "mean of 2 heads")
            expect(visit.find("#labels .name")).to_have_text(shown)
        assert asked == [False, True, True, False]


def test_maps_of_words_are_asked_for_as_a_client_does(explorer: Explorer, server: str) -> None:
    """The whole text first, then each word as it was written; special tokens have no map."""
    photo = explorer.keep(sandal())
    head, (maps,) = explorer.attend(model="tiny-clip", photo=photo, words="A cat, two dogs").attention()
    with Client(server) as client:
        expected = client.align(image=sandal(), model="tiny-clip", text="A cat, two dogs")
    words = [place for place, token in enumerate(expected.tokens) if not token.special]
    assert head["words"][:3] == ["the whole text", "A", "cat"]
    np.testing.assert_array_equal(maps, [expected.text_similarities, *expected.similarities[words]])
    assert (len(head["words"]), maps.dtype.name) == (len(maps), "float32")
    grid = head["patches"]
    assert (grid["prefix_tokens"], grid["rows"] * grid["cols"]) == (0, maps.shape[1])
    refused = explorer.attend(model="tiny-nli", photo=photo, words="a")
    assert "tiny-nli cannot align" in refused.json()["message"]


def test_each_word_of_the_labels_has_a_map_on_the_page(browser: Browser, explorer: Explorer, server: str) -> None:
    """Once that is opened, with its least and largest cosine and the best patch; a link holds that it is."""
    with Client(server) as client:
        found = client.align(image=sandal(), model="tiny-clip", text="a cat, dog")
    row, column = divmod(int(found.text_similarities.argmax()), found.patches.cols)
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("tiny-clip", "layer 1", "mean of 2 heads")
        expect(visit.find("#words")).to_have_count(0)
        visit.page.fill("#candidates", "a cat, dog")
        visit.page.press("#candidates", "Enter")
        visit.find("#words summary").click()
        names = ["the whole text", "“a”", "“cat”", "“,”", "“dog”"]
        expect(visit.find(".map strong")).to_have_text(names)
        told = visit.find(".map span").first.inner_text()
        least, largest = (f"{cosine:.2g}" for cosine in (found.text_similarities.min(), found.text_similarities.max()))
        assert told == f"{least} to {largest}, most at row {row}, column {column}"
        pixels = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
        assert visit.find(".map canvas").first.evaluate(pixels) > 20
        asked = visit.asked
        visit.choose("layers", 0)
        visit.title_is("tiny-clip", "layer 0", "mean of 2 heads")
        expect(visit.find(".map strong")).to_have_text(names)
        assert visit.asked == asked + 1, "for the layer alone"
        link = visit.page.url.partition("#")[2]
        visit.page.fill("#candidates", "")
        visit.page.press("#candidates", "Enter")
        expect(visit.find("#words")).to_have_count(0)
    with visiting(browser, explorer, link) as visit:
        expect(visit.find(".map strong")).to_have_text(names)


def test_why_there_are_no_maps_is_said_in_their_place(browser: Browser, explorer: Explorer) -> None:
    """Here the words are too many together, though not label by label; the rest of the page stays."""
    with visiting(browser, explorer, refusals=True) as visit:
        visit.give(SANDAL)
        visit.page.fill("#candidates", "dog")
        visit.page.press("#candidates", "Enter")
        visit.find("#words summary").click()
        expect(visit.find(".map")).to_have_count(2)
        visit.page.fill("#candidates", ", ".join(["dog"] * 30))
        visit.page.press("#candidates", "Enter")
        expect(visit.find("#word-maps-status")).to_contain_text("INVALID_ARGUMENT: text: ")
        expect(visit.find("#word-maps-status button")).to_have_text("Try again")
        expect(visit.find(".map")).to_have_count(0)
        expect(visit.find("#labels li")).to_have_count(5)


def test_a_link_holds_what_its_model_reads(browser: Browser, explorer: Explorer) -> None:
    """A second text of a model of pairs, labels of two towers; who turns back to those has them again."""
    with visiting(browser, explorer) as visit:
        visit.type(PAIR[0])
        visit.page.select_option("#model", "tiny-nli/1/text")
        visit.page.fill("#second", PAIR[1])
        visit.button("Show attention").click()
        visit.title_is("tiny-nli", "layer 1", "mean of 2 heads")
        for key, is_pair in (("tiny-clip/1/text", False), ("tiny-nli/1/text", True)):
            visit.page.select_option("#model", key)
            visit.title_is(key.partition("/")[0], "layer 1", "mean of 2 heads")
            assert ("second=" in visit.page.url) is is_pair
        script = """async () => {
          const { START } = await import('/static/state.js');
          const { linkedState } = await import('/static/choosing.js');
          const state = { ...START, labels: 'cat', second: 'b', why: 'dog' };
          const none = { layers: [], relevance_methods: [] };
          const pairs = { ...none, takes_pairs: true, relevance_methods: ['libra'] };
          const linked = [null, { ...none, takes_labels: true }, pairs].map((model) => linkedState(state, model));
          return linked.map(({ labels, second, why }) => [labels, second, why]);
        }"""
        assert visit.page.evaluate(script) == [["cat", "b", "dog"], ["cat", "", ""], ["", "b", "dog"]]


def test_a_second_text_is_read_with_the_first_on_the_page(browser: Browser, explorer: Explorer) -> None:
    """Where the model takes pairs; its tokens stand behind those of the first."""
    with visiting(browser, explorer) as visit:
        visit.type(PAIR[0])
        visit.title_is("tiny-clip", "layer 1", "mean of 2 heads")
        expect(visit.find("#second")).to_have_count(0)
        visit.page.select_option("#model", "tiny-nli/1/text")
        visit.page.fill("#second", PAIR[1])
        visit.button("Show attention").click()
        expect(visit.find(".token span").nth(4)).to_have_text("[SEP]")
        expect(visit.find(".token span")).to_have_text(["[CLS]", *PAIR[0].split(), "[SEP]", *PAIR[1].split(), "[SEP]"])
        assert "second=a+dog+on+a+mat" in visit.page.url


def test_charts_ask_for_no_labels(browser: Browser, explorer: Explorer) -> None:
    """They show none, and each question with labels computes them all again; the question of a layer has them."""
    script = """async (model) => {
      const { START } = await import('/static/state.js');
      const { chartQuestion, questionOf } = await import('/static/asking.js');
      const state = { ...START, photo: 'a', labels: 'cat, dog' };
      return [chartQuestion(state, model, 'entropy'), questionOf(state, model, 0, 'mean')];
    }"""
    layers = [{"layer": 0, "heads": 1, "window": None}]
    model = {"name": "m", "version": "1", "modality": "image", "takes_labels": True, "layers": layers}
    model |= {"compared_layers": []}
    with visiting(browser, explorer) as visit:
        chart, layer = visit.page.evaluate(script, model)
    assert chart == {"model": "m", "version": "1", "photo": "a", "measure": "entropy"}
    assert layer["labels"] == "cat, dog"
