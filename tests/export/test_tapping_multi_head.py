from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from artifact.dtypes import Array
from export.errors import TapError
from export.tapping.multi_head import _REFUSED
from export.tapping.tap import tap
from tests.export.tapping import (
    MICROSOFT,
    Feed,
    by_head,
    compare_lowered,
    compare_tapped,
    graph,
    node,
    numbers,
    weigh,
)

BATCH, QUERIES, KEYS, HEADS, WIDTH, VALUE_WIDTH = 2, 4, 6, 2, 8, 6
REAL = np.array([[1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 1, 1]], dtype=np.int32)
HIDDEN = -1e4  # what ONNX Runtime adds
INPUTS = {"q": ["batch", "n", WIDTH], "k": ["batch", "m", WIDTH], "v": ["batch", "m", VALUE_WIDTH]}


def multi_head(inputs: str = "q k v", opset: int = 17, weights: Feed | None = None, **attributes: Any) -> ModelProto:
    """One MultiHeadAttention; further inputs by name: bias, mask, scores."""
    given: dict[str, Any] = dict(INPUTS)
    given |= {"mask": ("int32", ["batch", "m"]), "rows": ("int32", ["batch", "n", "m"]), "counts": ("int32", ["batch"])}
    given |= {"scores": ["batch", HEADS, "n", "m"]}
    taken = {name: axes for name, axes in given.items() if name in inputs.split()}
    one = node("MultiHeadAttention", inputs, "y", MICROSOFT, num_heads=HEADS, **attributes)
    return graph([one], taken, ["y"], weights, opset)


def feed_of(**more: Array) -> Feed:
    """Query, key and value; keys are of another length."""
    query, key = numbers(BATCH, QUERIES, WIDTH), numbers(BATCH, KEYS, WIDTH)
    return {"q": query, "k": key, "v": numbers(BATCH, KEYS, VALUE_WIDTH), **more}


def expect(feed: Feed, got: Feed, mask: Array | None = None, bias: Array | None = None, **how: Any) -> None:
    """The weights are those of float64, and weigh the values into what the fused node gives."""
    widths = (WIDTH, WIDTH, VALUE_WIDTH)
    biases = np.split(np.zeros(sum(widths)) if bias is None else bias, np.cumsum(widths)[:2])
    query, key, value = (by_head(feed[name] + one, HEADS) for name, one in zip("qkv", biases, strict=True))
    expected = weigh(query, key, mask, **how)
    np.testing.assert_allclose(got["attention.0"], expected, atol=1e-6)
    attended = got["attention.0"].astype(np.float64) @ value
    np.testing.assert_allclose(by_head(got["y"], HEADS), attended, atol=1e-5)


@pytest.mark.parametrize("opset", [11, 14, 17, 23])
@pytest.mark.parametrize("attributes", [{}, {"scale": 0.3}])
def test_the_weights_are_those_of_the_fused_node(attributes: dict[str, Any], opset: int) -> None:
    """Cross-attention, for every opset that such files have. It has no lowered form and needs none."""
    model, feed = multi_head(opset=opset, **attributes), feed_of()
    taps, got = compare_tapped(model, feed)
    assert taps[0].node == "my MultiHeadAttention"
    expect(feed, got, scale=attributes.get("scale", 0))
    assert compare_lowered(model, feed) is None


@pytest.mark.parametrize("opset", [11, 17])
def test_no_query_of_a_causal_node_looks_behind_itself(opset: int) -> None:
    """Alone, and together with a mask of keys."""
    inputs = INPUTS | {"q": INPUTS["k"], "mask": ("int32", ["batch", "m"])}
    feed = feed_of(q=numbers(BATCH, KEYS, WIDTH, seed=1), mask=REAL)
    for names, added in (("q k v", None), ("q k v - mask", np.where(REAL, 0, HIDDEN)[:, None, None])):
        one = node("MultiHeadAttention", names, "y", MICROSOFT, num_heads=HEADS, unidirectional=1)
        taken = {name: axes for name, axes in inputs.items() if name in names.split()}
        given = {name: feed[name] for name in taken}
        _, got = compare_tapped(graph([one], taken, ["y"], opset=opset), given)
        expect(given, got, added, causal=True)


def test_the_bias_of_query_key_and_value_is_added() -> None:
    """It comes as one vector; the values' part may be of another width."""
    bias, feed = numbers(2 * WIDTH + VALUE_WIDTH), feed_of()
    _, got = compare_tapped(multi_head("q k v bias", weights={"bias": bias}), feed)
    expect(feed, got, bias=bias)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(
    ("name", "mask", "added"),
    [
        ("mask", REAL, np.where(REAL, 0, HIDDEN)[:, None, None]),
        ("rows", np.stack([REAL] * QUERIES, 1), np.where(REAL, 0, HIDDEN)[:, None, None]),
        ("counts", np.array([3, 6], dtype=np.int32), np.where(np.arange(KEYS) < [[3], [6]], 0, HIDDEN)[:, None, None]),
    ],
)
def test_keys_are_hidden_by_masks_of_every_form(name: str, mask: Array, added: Array, opset: int) -> None:
    """[B, K], [B, Q, K], and counts [B]; alone, and together with a bias on the scores."""
    feed = feed_of(**{name: mask})
    _, got = compare_tapped(multi_head(f"q k v - {name}", opset), feed)
    expect(feed, got, added)
    scores = numbers(BATCH, HEADS, QUERIES, KEYS)
    feed["scores"] = scores
    _, got = compare_tapped(multi_head(f"q k v - {name} scores", opset), feed)
    expect(feed, got, added + scores)


def test_another_number_for_hidden_keys_is_kept() -> None:
    """mask_filter_value."""
    feed = feed_of(mask=REAL)
    _, got = compare_tapped(multi_head("q k v - mask", mask_filter_value=-1.5), feed)
    expect(feed, got, np.where(REAL, 0, -1.5)[:, None, None])


def test_it_is_found_behind_other_operators_of_onnx_runtime() -> None:
    """Of which ONNX's own inference knows no shapes; head widths that only a run tells are taken from it."""
    nodes = [
        node("SkipLayerNormalization", "x x gamma", "s", MICROSOFT),
        node("MultiHeadAttention", "s s s - mask", "y", MICROSOFT, num_heads=HEADS),
        node("MatMul", "y out", "z"),
    ]
    inputs = {"x": ["batch", "n", WIDTH], "mask": ("int32", ["batch", "n"])}
    weights = {"gamma": np.ones(WIDTH, np.float32), "out": numbers(WIDTH, 5)}
    model = graph(nodes, inputs, ["z", "s"], weights, opset=14)
    taps, got = compare_tapped(model, {"x": numbers(BATCH, KEYS, WIDTH), "mask": REAL})
    heads = by_head(got["s"], HEADS)
    np.testing.assert_allclose(
        got["attention.0"], weigh(heads, heads, np.where(REAL, 0, HIDDEN)[:, None, None]), atol=1e-6
    )
    assert taps[0].value_norms


@pytest.mark.parametrize(
    ("inputs", "shapes", "reason"),
    [
        ("q", {"q": ["batch", "n", HEADS, 3, 4]}, "query, key and value are packed"),
        ("q kv", {"q": INPUTS["q"], "kv": ["batch", "m", HEADS, 2, 4]}, "query, key and value are packed"),
        ("q k v", INPUTS | {name: ["batch", HEADS, "m", 4] for name in "kv"}, "or split by head already"),
        ("q k v - - - pk pv", INPUTS | {name: ["batch", HEADS, "p", 4] for name in ("pk", "pv")}, "key-value cache"),
        ("q k v b", INPUTS | {"b": [2 * WIDTH + VALUE_WIDTH]}, "its bias is computed; expected a weight"),
    ],
)
def test_what_cannot_be_tapped_is_refused_by_name(inputs: str, shapes: dict[str, Any], reason: str) -> None:
    """Packed inputs, caches, and a bias that is no weight."""
    model = graph([node("MultiHeadAttention", inputs, "y", MICROSOFT, num_heads=HEADS)], shapes, ["y"], opset=17)
    with pytest.raises(TapError, match=f"my MultiHeadAttention: .*{reason}"):
        tap(model, Path())


def test_a_causal_node_between_two_sequences_is_refused() -> None:
    """ONNX Runtime does not compute what it should."""
    with pytest.raises(TapError, match="my MultiHeadAttention: is causal between sequences of two lengths"):
        tap(multi_head(unidirectional=1), Path())


@pytest.mark.parametrize("kind", sorted(_REFUSED))
def test_a_graph_with_an_attention_that_no_rule_takes_is_refused_as_a_whole(kind: str) -> None:
    """By the node's name and with the reason, though the other could be tapped: a list with a hole would mislead."""
    nodes = [
        node("MultiHeadAttention", "q k v", "y", MICROSOFT, num_heads=HEADS),
        node(kind, "y y y", "z", MICROSOFT, num_heads=HEADS),
    ]
    with pytest.raises(TapError, match=f"my {kind}: {kind} .*{_REFUSED[kind]}: cannot be tapped"):
        tap(graph(nodes, INPUTS, ["z"], opset=17), Path())
