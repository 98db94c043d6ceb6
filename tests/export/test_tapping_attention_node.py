from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from artifact.dtypes import Array
from export.errors import TapError
from export.probe import declare_axes, find_axes, run_graph
from export.tapping.tap import tap
from export.traits import InputSpec, Traits
from tests.export.tapping import (
    by_head,
    compare_lowered,
    compare_tapped,
    graph,
    node,
    numbers,
    run,
    weigh,
)

BATCH, QUERIES, KEYS, HEADS, WIDTH = 2, 5, 7, 4, 8
PADDED = np.array([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0]], dtype=bool)[:, None, None]
SPREAD = np.broadcast_to(PADDED, (BATCH, 1, QUERIES, KEYS)).copy()


def attention(mask: str = "", mask_axes: list[Any] | None = None, opset: int = 23, **attributes: Any) -> ModelProto:
    """One Attention node on inputs that are split by head; two key heads serve four query heads."""
    inputs: dict[str, Any] = {
        "q": ["batch", HEADS, "queries", WIDTH],
        "k": ["batch", 2, "keys", WIDTH],
        "v": ["batch", 2, "keys", WIDTH],
    }
    if mask:
        inputs["mask"] = (mask, mask_axes or ["batch", 1, "queries", "keys"])
    one = node("Attention", "q k v mask" if mask else "q k v", "y", **attributes)
    return graph([one], inputs, ["y"], opset=opset)


def heads_feed(**more: Array) -> dict[str, Array]:
    """Query, key and value by head."""
    query = numbers(BATCH, HEADS, QUERIES, WIDTH)
    key, value = numbers(BATCH, 2, KEYS, WIDTH, seed=1), numbers(BATCH, 2, KEYS, WIDTH, seed=2)
    return {"q": query, "k": key, "v": value, **more}


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize(
    ("mask", "attributes"),
    [
        (None, {}),
        (None, {"scale": 0.1}),
        (None, {"is_causal": 1}),
        (SPREAD, {}),
        (SPREAD, {"is_causal": 1}),
        (np.where(SPREAD, 0, -1e9).astype(np.float32), {}),
        (numbers(BATCH, 1, QUERIES, KEYS, seed=3), {"is_causal": 1, "scale": 0.5}),
        (None, {"softcap": 0.0, "qk_matmul_output_mode": 1}),
    ],
)
def test_the_weights_are_those_of_the_formula(mask: Array | None, attributes: dict[str, Any], opset: int) -> None:
    """By group of heads, masked, causal, scaled: within 1e-6 of float64; the lowered form gives the same."""
    feed = heads_feed() if mask is None else heads_feed(mask=mask)
    kind = "" if mask is None else "bool" if mask.dtype == bool else "float32"
    model = attention(kind, opset=opset, **attributes)
    taps, got = compare_tapped(model, feed)
    expected = weigh(
        feed["q"], feed["k"], mask, causal=bool(attributes.get("is_causal")), scale=attributes.get("scale", 0)
    )
    assert [(one.output, one.layer, one.node) for one in taps] == [("attention.0", 0, "my Attention")]
    np.testing.assert_allclose(got["attention.0"], expected, atol=1e-6)
    attended = expected @ np.repeat(feed["v"].astype(np.float64), 2, axis=1)
    np.testing.assert_allclose(got["y"], attended, atol=1e-5)
    assert compare_lowered(model, feed) is not None


@pytest.mark.parametrize("opset", [23, 24])
def test_inputs_with_their_heads_in_one_axis_are_tapped(opset: int) -> None:
    """[B, N, H * d], with fewer heads of keys."""
    inputs = {"q": ["batch", "n", HEADS * WIDTH], "k": ["batch", "m", 2 * WIDTH], "v": ["batch", "m", 2 * 3]}
    one = node("Attention", "q k v", "y", q_num_heads=HEADS, kv_num_heads=2, is_causal=1)
    model = graph([one], inputs, ["y"], opset=opset)
    feed = {
        "q": numbers(BATCH, QUERIES, HEADS * WIDTH),
        "k": numbers(BATCH, KEYS, 2 * WIDTH),
        "v": numbers(BATCH, KEYS, 6, seed=1),
    }
    _, got = compare_tapped(model, feed)
    expected = weigh(by_head(feed["q"], HEADS), by_head(feed["k"], 2), causal=True)
    np.testing.assert_allclose(got["attention.0"], expected, atol=1e-6)
    assert compare_lowered(model, feed) is not None


@pytest.mark.parametrize("hidden", [None, -np.inf, np.finfo(np.float32).min])
def test_rows_that_see_no_key_are_zeros_in_both_forms(hidden: float | None) -> None:
    """As ONNX Runtime has them, whether the mask is bool or float, alone or together with a causal one."""
    mask = SPREAD.copy()
    mask[0, 0, 2], mask[1, 0, 0, 0] = False, False
    feed = heads_feed(mask=mask if hidden is None else np.where(mask, 0, hidden).astype(np.float32))
    model = attention("bool" if hidden is None else "float32", is_causal=1)
    _, got = compare_tapped(model, feed)
    assert not got["attention.0"][0, :, 2].any()
    assert not got["attention.0"][1, :, 0].any()
    np.testing.assert_allclose(got["attention.0"][0, :, 3].sum(-1), 1, atol=1e-6)
    assert compare_lowered(model, feed) is not None


def test_half_precision_gives_float32_weights() -> None:
    """Within half a thousandth."""
    model = attention()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    feed = {name: array.astype(np.float16) for name, array in heads_feed().items()}
    _, got = compare_tapped(model, feed)
    assert got["attention.0"].dtype == np.float32
    np.testing.assert_allclose(got["attention.0"], weigh(feed["q"], feed["k"]), atol=5e-4)
    assert compare_lowered(model, feed, atol=2e-3) is not None


def test_sessions_report_the_axes_and_say_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Symbolic ones by name, for any batch and length, without a word on stderr."""
    tapped, _ = tap(attention(), tmp_path)
    axes = {"q": ("batch", HEADS, "queries", WIDTH), "k": ("batch", 2, "keys", WIDTH), "v": ("batch", 2, "keys", WIDTH)}
    onnx.save_model(tapped, tmp_path / "tapped.onnx")
    traits = Traits(tuple(InputSpec(name, one) for name, one in axes.items()))
    probed = find_axes(run_graph(tmp_path / "tapped.onnx"), traits)
    found, kinds = probed.axes, probed.kinds
    assert kinds["attention.0"] == "cross"
    declare_axes(tapped, found)
    onnx.save_model(tapped, tmp_path / "tapped.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "tapped.onnx", providers=["CPUExecutionProvider"])
    assert {one.name: one.shape for one in session.get_outputs()}["attention.0"] == ["batch", HEADS, "queries", "keys"]
    for batch, queries, keys in ((1, 1, 1), (3, 2, 9)):
        feed = {
            "q": numbers(batch, HEADS, queries, WIDTH),
            "k": numbers(batch, 2, keys, WIDTH),
            "v": numbers(batch, 2, keys, WIDTH),
        }
        assert session.run(["attention.0"], feed)[0].shape == (batch, HEADS, queries, keys)
    assert capfd.readouterr().err == ""


def test_a_key_value_cache_is_refused_by_name() -> None:
    """A graph over the whole sequence is wanted."""
    inputs = {name: ["batch", HEADS, "n", WIDTH] for name in ("q", "k", "v", "past_k", "past_v")}
    model = graph([node("Attention", "q k v - past_k past_v", "y pk pv")], inputs, ["y", "pk", "pv"])
    with pytest.raises(TapError, match="my Attention: takes a key-value cache; expected a graph over the whole"):
        tap(model, Path())


def test_scores_that_a_node_gives_already_are_left_alone() -> None:
    """Another mode would change an ordinary output; weights that are one already stay one."""
    inputs = {name: ["batch", HEADS, "n", WIDTH] for name in ("q", "k", "v")}
    feed = {name: numbers(BATCH, HEADS, 3, WIDTH, seed=place) for place, name in enumerate(inputs)}
    scores = graph([node("Attention", "q k v", "y - - s", qk_matmul_output_mode=0)], inputs, ["y", "s"])
    with pytest.raises(TapError, match="my Attention: gives its scores before the softmax already"):
        tap(scores, Path())
    weights = graph([node("Attention", "q k v", "y - - s", qk_matmul_output_mode=3)], inputs, ["y", "s"])
    _, got = compare_tapped(weights, feed)
    assert np.array_equal(got["s"], got["attention.0"])


def test_a_graph_that_has_been_tapped_is_refused() -> None:
    """Its names are taken."""
    tapped, _ = tap(attention(), Path())
    with pytest.raises(TapError, match=r"my Attention: the graph has a value named attention\.0 already"):
        tap(tapped, Path())


@pytest.mark.parametrize(
    ("attributes", "inputs", "outputs"),
    [({"softcap": 5.0}, "q k v", "y"), ({}, "q k v - - - real", "y"), ({}, "q k v", "y present_k present_v")],
)
def test_what_has_no_lowered_form_is_tapped_all_the_same(attributes: dict[str, Any], inputs: str, outputs: str) -> None:
    """Capped scores, counts of real keys, and a cache that is given."""
    given: dict[str, Any] = {name: ["batch", HEADS, "n", WIDTH] for name in ("q", "k", "v")}
    feed = {name: numbers(BATCH, HEADS, 4, WIDTH, seed=place) for place, name in enumerate(given)}
    if "real" in inputs:
        given["real"], feed["real"] = ("int64", ["batch"]), np.array([4, 2])
    model = graph([node("Attention", inputs, outputs, **attributes)], given, outputs.split(), opset=24)
    _, got = compare_tapped(model, feed)
    np.testing.assert_allclose(got["attention.0"].sum(-1), 1, atol=1e-6)
    assert compare_lowered(model, feed) is None


def test_the_lowered_form_keeps_the_axes_of_its_outputs() -> None:
    """And their names, for any length."""
    model = attention("bool", is_causal=1)
    lowered = compare_lowered(model, heads_feed(mask=SPREAD))
    assert lowered is not None
    feed = {name: array[..., :3, :] for name, array in heads_feed().items()} | {"mask": np.ones((2, 1, 3, 3), bool)}
    assert {name: array.shape for name, array in run(lowered, feed).items()} == {
        "y": (BATCH, HEADS, 3, WIDTH),
        "attention.0": (BATCH, HEADS, 3, 3),
    }
