"""Which view is taken, what does not fit, and what is asked of the server for it."""

import dataclasses
from typing import Any

import pytest

from regard import AttentionRequest, Client, PatchGrid
from regard.answers import AttentionLayer
from regard.sources import InputError
from regard.views import ViewOptions, choose_view, request_for


@pytest.mark.parametrize(
    ("options", "of_photo", "of_text"),
    [
        (ViewOptions(), "heads", "matrix"),
        (ViewOptions(heads=(1,)), "overlay", "matrix"),
        (ViewOptions(heads=(1, 2)), "heads", "heads"),
        (ViewOptions(heads=(1, 2), reduce="max"), "overlay", "matrix"),
        (ViewOptions(rows=(3,)), "heads", "matrix"),
        (ViewOptions(rows=(3, 4)), "queries", "matrix"),
        (ViewOptions(measure="rollout"), "overlay", "matrix"),
        (ViewOptions(measure="contribution"), "overlay", "matrix"),
        (ViewOptions(measure="contribution_rollout"), "overlay", "matrix"),
        (ViewOptions(measure="entropy"), "entropy", "entropy"),
        (ViewOptions(measure="distance"), "distance", "distance"),
        (ViewOptions(view="entropy"), "entropy", "entropy"),
    ],
)
def test_the_view_follows_from_the_input_and_what_was_asked(options: ViewOptions, of_photo: str, of_text: str) -> None:
    """Unless one was named."""
    assert (choose_view(options, is_photo=True), choose_view(options, is_photo=False)) == (of_photo, of_text)


@pytest.mark.parametrize(
    ("options", "is_photo", "message"),
    [
        (
            ViewOptions(view="arcs"),
            True,
            "--view arcs does not show a photo; expected heads, overlay, queries, entropy, distance",
        ),
        (
            ViewOptions(view="queries"),
            False,
            "--view queries does not show a text; expected matrix, heads, arcs, entropy",
        ),
        (ViewOptions(view="entropy", measure="rollout"), True, "--view entropy does not show --measure rollout"),
        (ViewOptions(view="heads", measure="entropy"), True, "--measure entropy is shown by --view entropy, not heads"),
        (ViewOptions(view="heads", measure="rollout"), False, "rollout is one of all heads"),
        (ViewOptions(view="heads", reduce="max"), False, "shows each head; expected no --reduce max"),
        (ViewOptions(view="overlay", rows=(1, 2)), True, "--view overlay shows one row, not 2; --view queries"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(options: ViewOptions, is_photo: bool, message: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(InputError) as refused:
        choose_view(options, is_photo=is_photo)
    assert message in str(refused.value)


PHOTO_PATCHES = (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("view", "options", "asked"),
    [
        ("heads", ViewOptions(), {"layers": (-1,), "cls_only": True}),
        ("overlay", ViewOptions(), {"layers": (-1,), "cls_only": True, "reduce_heads": "mean"}),
        ("overlay", ViewOptions(heads=(2,), rows=(4,)), {"layers": (-1,), "heads": (2,), "rows": (4,)}),
        ("queries", ViewOptions(), {"layers": (-1,), "rows": PHOTO_PATCHES, "reduce_heads": "mean"}),
        (
            "overlay",
            ViewOptions(measure="rollout", reduce="min"),
            {"measure": "rollout", "cls_only": True, "reduce_heads": "min"},
        ),
        ("entropy", ViewOptions(view="entropy"), {"measure": "entropy"}),
        ("distance", ViewOptions(measure="distance", layers=(0, 1)), {"measure": "distance", "layers": (0, 1)}),
        (
            "heads",
            ViewOptions(drop_special=True, top_k=2),
            {"layers": (-1,), "cls_only": True, "keys": PHOTO_PATCHES, "renormalize": True, "top_k": 2},
        ),
        ("entropy", ViewOptions(drop_special=True), {"measure": "entropy", "drop_special": True, "renormalize": True}),
    ],
)
def test_a_photos_view_asks_for_just_what_it_shows(
    view: Any, options: ViewOptions, asked: dict[str, Any], client: Client
) -> None:
    """One row a map; without prefix tokens by naming the patches, since rows are chosen too."""
    assert request_for(view, options, client.model("photos")) == AttentionRequest(**asked)


@pytest.mark.parametrize(
    ("view", "options", "asked"),
    [
        ("matrix", ViewOptions(), {"layers": (-1,), "reduce_heads": "mean"}),
        ("matrix", ViewOptions(measure="contribution"), {"layers": (-1,), "measure": "contribution"}),
        ("arcs", ViewOptions(measure="contribution_rollout"), {"measure": "contribution_rollout"}),
        ("matrix", ViewOptions(layers=(0, 2), heads=(1,)), {"layers": (0, 2), "heads": (1,)}),
        ("heads", ViewOptions(heads=(0, 1)), {"layers": (-1,), "heads": (0, 1)}),
        ("arcs", ViewOptions(), {"layers": (-1,), "reduce_heads": "mean"}),
        ("arcs", ViewOptions(heads=(0, 1)), {"layers": (-1,), "heads": (0, 1)}),
        (
            "matrix",
            ViewOptions(measure="rollout", residual_share=0.2, value_weighted=True),
            {"measure": "rollout", "residual_share": 0.2, "value_weighted": True},
        ),
        (
            "matrix",
            ViewOptions(drop_special=True),
            {"layers": (-1,), "reduce_heads": "mean", "drop_special": True, "renormalize": True},
        ),
    ],
)
def test_a_texts_view_asks_for_just_what_it_shows(
    view: Any, options: ViewOptions, asked: dict[str, Any], client: Client
) -> None:
    """All rows, heads reduced unless each is shown."""
    assert request_for(view, options, client.model("minilm")) == AttentionRequest(**asked)


@pytest.mark.parametrize("view", ["heads", "overlay"])
def test_without_a_class_token_all_rows_are_asked_for(view: Any, client: Client) -> None:
    """A server refuses cls_only there; a chosen patch is still the only query."""
    model = dataclasses.replace(client.model("photos"), patches=PatchGrid(0, 2, 3, 16))
    asked, chosen = request_for(view, ViewOptions(), model), request_for(view, ViewOptions(rows=(4,)), model)
    assert (asked.cls_only, asked.rows, chosen.rows) == (False, (), (4,))


MIXED = (AttentionLayer(0, "self", 3), AttentionLayer(1, "cross", 2), AttentionLayer(2, "causal", 3, False, True))


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        (ViewOptions(measure="distance"), (0, 2)),
        (ViewOptions(measure="rollout"), (0, 2)),
        (ViewOptions(measure="contribution_rollout"), (2,)),
        (ViewOptions(measure="entropy"), ()),
        (ViewOptions(measure="distance", layers=(1,)), (1,)),
    ],
)
def test_only_layers_that_can_answer_are_asked(options: ViewOptions, layers: tuple[int, ...], client: Client) -> None:
    """Cross-attention has neither distances nor rollouts; who names a layer gets the server's own refusal."""
    model = dataclasses.replace(client.model("minilm"), attention_layers=MIXED)
    assert request_for(choose_view(options, is_photo=False), options, model).layers == layers


def test_a_model_of_cross_attention_alone_has_no_distances(client: Client) -> None:
    """It is said before the server is asked."""
    model = dataclasses.replace(client.model("minilm"), attention_layers=MIXED[1:2])
    with pytest.raises(InputError, match="--measure distance: minilm has cross-attention alone"):
        request_for("distance", ViewOptions(view="distance"), model)
