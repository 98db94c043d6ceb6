"""Which view is taken, what does not fit, and what is asked of the server for it."""

import dataclasses
from typing import Any

import pytest

from regard import AttentionRequest, Client, PatchGrid
from regard.answers import AttentionLayer
from regard.sources import InputError
from regard.views import Wish, choose_view, request_for


@pytest.mark.parametrize(
    ("wish", "of_photo", "of_text"),
    [
        (Wish(), "heads", "matrix"),
        (Wish(heads=(1,)), "overlay", "matrix"),
        (Wish(heads=(1, 2)), "heads", "heads"),
        (Wish(heads=(1, 2), reduce="max"), "overlay", "matrix"),
        (Wish(rows=(3,)), "heads", "matrix"),
        (Wish(rows=(3, 4)), "queries", "matrix"),
        (Wish(measure="rollout"), "overlay", "matrix"),
        (Wish(measure="contribution"), "overlay", "matrix"),
        (Wish(measure="contribution_rollout"), "overlay", "matrix"),
        (Wish(measure="entropy"), "entropy", "entropy"),
        (Wish(measure="distance"), "distance", "distance"),
        (Wish(view="entropy"), "entropy", "entropy"),
    ],
)
def test_the_view_follows_from_the_input_and_what_was_asked(wish: Wish, of_photo: str, of_text: str) -> None:
    """Unless one was named."""
    assert (choose_view(wish, is_photo=True), choose_view(wish, is_photo=False)) == (of_photo, of_text)


@pytest.mark.parametrize(
    ("wish", "is_photo", "message"),
    [
        (
            Wish(view="arcs"),
            True,
            "--view arcs does not show a photo; expected heads, overlay, queries, entropy, distance",
        ),
        (Wish(view="queries"), False, "--view queries does not show a text; expected matrix, heads, arcs, entropy"),
        (Wish(view="entropy", measure="rollout"), True, "--view entropy does not show --measure rollout"),
        (Wish(view="heads", measure="entropy"), True, "--measure entropy is shown by --view entropy, not heads"),
        (Wish(view="heads", measure="rollout"), False, "rollout is one of all heads"),
        (Wish(view="heads", reduce="max"), False, "shows each head; expected no --reduce max"),
        (Wish(view="overlay", rows=(1, 2)), True, "--view overlay shows one row, not 2; --view queries"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(wish: Wish, is_photo: bool, message: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(InputError) as refused:
        choose_view(wish, is_photo=is_photo)
    assert message in str(refused.value)


PHOTO_PATCHES = (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("view", "wish", "asked"),
    [
        ("heads", Wish(), {"layers": (-1,), "cls_only": True}),
        ("overlay", Wish(), {"layers": (-1,), "cls_only": True, "reduce_heads": "mean"}),
        ("overlay", Wish(heads=(2,), rows=(4,)), {"layers": (-1,), "heads": (2,), "rows": (4,)}),
        ("queries", Wish(), {"layers": (-1,), "rows": PHOTO_PATCHES, "reduce_heads": "mean"}),
        (
            "overlay",
            Wish(measure="rollout", reduce="min"),
            {"measure": "rollout", "cls_only": True, "reduce_heads": "min"},
        ),
        ("entropy", Wish(view="entropy"), {"measure": "entropy"}),
        ("distance", Wish(measure="distance", layers=(0, 1)), {"measure": "distance", "layers": (0, 1)}),
        (
            "heads",
            Wish(drop_special=True, top_k=2),
            {"layers": (-1,), "cls_only": True, "keys": PHOTO_PATCHES, "renormalize": True, "top_k": 2},
        ),
        ("entropy", Wish(drop_special=True), {"measure": "entropy", "drop_special": True, "renormalize": True}),
    ],
)
def test_a_photos_view_asks_for_just_what_it_shows(
    view: Any, wish: Wish, asked: dict[str, Any], client: Client
) -> None:
    """One row a map; without prefix tokens by naming the patches, since rows are chosen too."""
    assert request_for(view, wish, client.model("photos")) == AttentionRequest(**asked)


@pytest.mark.parametrize(
    ("view", "wish", "asked"),
    [
        ("matrix", Wish(), {"layers": (-1,), "reduce_heads": "mean"}),
        ("matrix", Wish(measure="contribution"), {"layers": (-1,), "measure": "contribution"}),
        ("arcs", Wish(measure="contribution_rollout"), {"measure": "contribution_rollout"}),
        ("matrix", Wish(layers=(0, 2), heads=(1,)), {"layers": (0, 2), "heads": (1,)}),
        ("heads", Wish(heads=(0, 1)), {"layers": (-1,), "heads": (0, 1)}),
        ("arcs", Wish(), {"layers": (-1,), "reduce_heads": "mean"}),
        ("arcs", Wish(heads=(0, 1)), {"layers": (-1,), "heads": (0, 1)}),
        (
            "matrix",
            Wish(measure="rollout", residual_share=0.2, value_weighted=True),
            {"measure": "rollout", "residual_share": 0.2, "value_weighted": True},
        ),
        (
            "matrix",
            Wish(drop_special=True),
            {"layers": (-1,), "reduce_heads": "mean", "drop_special": True, "renormalize": True},
        ),
    ],
)
def test_a_texts_view_asks_for_just_what_it_shows(view: Any, wish: Wish, asked: dict[str, Any], client: Client) -> None:
    """All rows, heads reduced unless each is shown."""
    assert request_for(view, wish, client.model("minilm")) == AttentionRequest(**asked)


@pytest.mark.parametrize("view", ["heads", "overlay"])
def test_without_a_class_token_all_rows_are_asked_for(view: Any, client: Client) -> None:
    """A server refuses cls_only there; a chosen patch still looks alone."""
    model = dataclasses.replace(client.model("photos"), patches=PatchGrid(0, 2, 3, 16))
    asked, chosen = request_for(view, Wish(), model), request_for(view, Wish(rows=(4,)), model)
    assert (asked.cls_only, asked.rows, chosen.rows) == (False, (), (4,))


MIXED = (AttentionLayer(0, "self", 3), AttentionLayer(1, "cross", 2), AttentionLayer(2, "causal", 3, False, True))


@pytest.mark.parametrize(
    ("wish", "layers"),
    [
        (Wish(measure="distance"), (0, 2)),
        (Wish(measure="rollout"), (0, 2)),
        (Wish(measure="contribution_rollout"), (2,)),
        (Wish(measure="entropy"), ()),
        (Wish(measure="distance", layers=(1,)), (1,)),
    ],
)
def test_only_layers_that_can_answer_are_asked(wish: Wish, layers: tuple[int, ...], client: Client) -> None:
    """Cross-attention has neither distances nor rollouts; who names a layer gets the server's own refusal."""
    model = dataclasses.replace(client.model("minilm"), attention_layers=MIXED)
    assert request_for(choose_view(wish, is_photo=False), wish, model).layers == layers


def test_a_model_of_cross_attention_alone_has_no_distances(client: Client) -> None:
    """It is said before the server is asked."""
    model = dataclasses.replace(client.model("minilm"), attention_layers=MIXED[1:2])
    with pytest.raises(InputError, match="--measure distance: minilm has cross-attention alone"):
        request_for("distance", Wish(view="distance"), model)
