"""Two towers: what the clients and the command line ask of them, and read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import regard
from regard import AsyncClient, Client
from regard.pictures import word_maps
from regard.sources import choose_model, read_labels
from tests.client.conftest import Run
from tests.client.fake import WORDS, FakeServer, photo_bytes

LABELS = ["a cat", "two dogs"]


async def test_labels_of_ones_own_are_sent(client: Client, aio_client: AsyncClient, server: FakeServer) -> None:
    """With their sentence, by every way to classify; Label.name is the caller's."""
    given = {"candidate_labels": LABELS, "label_template": "a photo of {}."}
    answer = client.classify(image=photo_bytes(), **given)  # type: ignore[arg-type]
    assert [label.name for label in answer.labels] == LABELS
    many = client.classify_many(images=[photo_bytes()], **given)  # type: ignore[call-overload]
    assert [label.name for label in many[0].labels] == LABELS
    await aio_client.classify(image=photo_bytes(), **given)  # type: ignore[arg-type]
    await aio_client.classify_many(images=[photo_bytes()], **given)  # type: ignore[call-overload]
    for request in server.requests:
        assert list(request.candidate_labels) == LABELS
        assert request.label_template == "a photo of {}."
    assert server.requests[:2] == server.requests[2:]


@pytest.mark.parametrize("labels", ["a cat", ["a", 7], 7])
def test_labels_that_are_no_list_of_texts_are_refused(client: Client, labels: object) -> None:
    """Before anything is sent."""
    with pytest.raises(regard.InvalidArgument, match="candidate_labels"):
        client.classify(image=photo_bytes(), candidate_labels=labels)  # type: ignore[arg-type]


async def test_a_map_is_read(client: Client, aio_client: AsyncClient, server: FakeServer) -> None:
    """As it lies on the image; of both clients alike."""
    found = client.align(image=photo_bytes(), text="cats sitting", model="pair", truncate=True, priority=1)
    again = await aio_client.align(image=photo_bytes(), text="cats sitting", model="pair", truncate=True, priority=1)
    first, second = server.requests
    assert first == second
    assert (first.text, first.model, first.truncate, first.priority) == ("cats sitting", "pair", True, 1)
    assert [token.text for token in found.tokens] == WORDS
    np.testing.assert_array_equal(found.similarities, again.similarities)
    assert found.grid(1).tolist() == [[-0.25, 0.25, -0.25], [-0.25, -0.25, -0.25]]
    assert found.grid().tolist() == found.grid(2).tolist()
    assert (found.similarity, found.patches.image_width, found.truncated) == (0.125, 90, False)
    with pytest.raises(regard.InvalidArgument, match="image"):
        client.align(image=7, text="a")  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        found.grid(99)


def test_a_map_is_drawn_with_what_its_colours_stand_for(client: Client) -> None:
    """From the least cosine of each word to its largest."""
    found = client.align(image=photo_bytes(), text="cats sitting", model="pair")
    figure = word_maps(Image.open(io.BytesIO(photo_bytes())), found)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1:5] == [f"{name} · -0.25 to 0.25" for name in ("the whole text", "cats", "sit", "##ting")]


def test_a_model_says_what_each_tower_is(client: Client, server: FakeServer) -> None:
    """And is chosen for what either can do."""
    server.has_towers = True
    model = client.model("pair")
    assert model.towers
    assert (model.modality, model.of("text").modality, model.of("image").modality) == ("text or image", "text", "image")
    assert model.of("text").attention_layers
    assert (model.towers.activation, model.towers.logit_scale, model.towers.can_align) == ("sigmoid", 10, True)
    minilm = client.model("minilm")
    assert minilm.of("text") is minilm
    assert choose_model([model], "image", "embed") is model.towers.image
    assert choose_model([model], "text", "attend") is model.towers.text


def test_the_command_line_lists_them(run: Run, server: FakeServer) -> None:
    """What they take, can, and both depths."""
    server.has_towers = True
    line = next(line for line in run("models").out.splitlines() if line.strip().startswith("pair"))
    for words in ("text, up to 77 tokens or images", "embed (4), classify (your labels), align", "12 x 3 + 12 x 3"):
        assert words in line


def test_classify_takes_labels(run: Run, server: FakeServer, photo: Path) -> None:
    """Between commas; a model of two towers is chosen for them."""
    server.has_towers = True
    done = run("classify", photo, "--labels", " a cat, two dogs,,", "--template", "{}!")
    assert "a cat" in done.out
    assert done.err == "regard: using pair\n"
    assert list(server.requests[-1].candidate_labels) == LABELS
    assert server.requests[-1].label_template == "{}!"
    assert read_labels(" , ") == []
    refused = run("classify", "words.txt", "--lines", "--labels", "a")
    assert (refused.code, refused.err) == (1, "regard: --labels: each line is a text; expected no --lines\n")
    server.has_towers = False
    without = run("classify", photo, "--labels", "a")
    assert "no model of two towers" in without.err


def test_embed_compares_photos_with_texts(run: Run, server: FakeServer, photo: Path) -> None:
    """By a model of two towers."""
    server.has_towers = True
    done = run("embed", photo, "a cat")
    assert done.code == 0
    assert [request.model for request in server.requests[-2:]] == ["pair", "pair"]
    assert run("embed", photo, "a cat", "--model", "minilm").code == 1


def test_align_prints_the_best_patch_of_each_word(run: Run, server: FakeServer, photo: Path) -> None:
    """As a table, as JSON, and as a picture."""
    server.has_towers, server.truncated = True, True
    done = run("align", photo, "cats sitting", "-o", "words.png")
    lines = {line.split("  ")[0].strip(): line for line in done.out.splitlines()}
    assert set(lines) == {"word", "the whole text", "cats", "sit", "##ting"}
    assert "row 0, column 1" in lines["cats"]
    assert "0.2500" in lines["cats"]
    assert "using pair" in done.err
    assert "has more tokens than pair takes and was cut" in done.err
    assert (photo.parent / "words.png").read_bytes().startswith(b"\x89PNG")
    listed = json.loads(run("align", photo, "cats", "--model", "pair", "--json").out)
    assert np.shape(listed["similarities"]) == (5, 6)
    for arguments, match in (
        (("a", "b"), "a: a text; expected a photo"),
        ((photo, photo), "holiday.png: a photo; expected a text"),
        ((photo, "a", "-o", "words.txt"), "a picture ends in .png, .svg, .pdf"),
        ((photo, "a", "-o", "nowhere/words.png"), "-o nowhere/words.png: nowhere is no folder"),
    ):
        asked = len(server.requests)
        assert match in run("align", *arguments).err
        assert len(server.requests) == asked
