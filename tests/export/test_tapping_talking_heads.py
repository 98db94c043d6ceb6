"""Talking heads: what is tapped is what multiplies the values, behind the last map over the heads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import NodeProto

from artifact.dtypes import Array
from export.errors import TapError
from export.tapping.contributions import tap_contributions
from export.tapping.tap import RULES, tap
from tests.export.cait import WIDTH as CAIT_WIDTH
from tests.export.cait import Cait, TalkingHeads
from tests.export.networks import spread, write_images
from tests.export.tapping import graph, node, numbers, run

HEADS, LENGTH, WIDTH = 3, 5, 4
INPUTS = {name: ["batch", HEADS, "n", WIDTH] for name in "qkv"}
SCORES = [node("Transpose", "k", "kt", perm=[0, 1, 3, 2]), node("MatMul", "q kt", "s")]
SOFTMAX, WEIGHED = node("Softmax", "s", "a", axis=-1), node("MatMul", "w v", "y")
WEIGHTS: dict[str, Array] = {
    "mixer": numbers(HEADS, HEADS),
    "more": numbers(HEADS, 4, seed=1),
    "kernel": numbers(HEADS, HEADS, 1, 1),
    "wide": numbers(HEADS, HEADS, 1, 3),
    "bias": numbers(HEADS),
    "bias4": numbers(HEADS, 1, 1),
    "places": numbers(LENGTH),
    "half": np.array(0.5, np.float32),
    "keys": numbers(LENGTH, LENGTH),
    "scale": np.ones(HEADS, np.float32),
    "spread": np.full(HEADS, 2, np.float32),
}
FEED = {name: numbers(2, HEADS, LENGTH, WIDTH, seed=seed) for seed, name in enumerate("qkv")}


def mixing(
    before: str, behind: str, middle: Sequence[NodeProto] = (node("MatMul", "f mixer", "m"),)
) -> list[NodeProto]:
    """Make nodes that put the heads last, do something, and put them back."""
    put_back = node("Transpose", middle[-1].output[0], behind, perm=[0, 3, 1, 2])
    return [node("Transpose", before, "f", perm=[0, 2, 3, 1]), *middle, put_back]


def tapped(nodes: Sequence[NodeProto]) -> tuple[Array, Array, bool]:
    """Tap attention written out; returns its weights, the graph's answer, and whether heads are said to be mixed."""
    taken = {name for one in nodes for name in one.input}
    weights = {name: array for name, array in WEIGHTS.items() if name in taken}
    model, taps = tap(graph(nodes, INPUTS, ["y"], weights), Path())
    given = run(model, FEED)
    assert [one.node for one in taps] == ["my Softmax"]
    return given["attention.0"], given["y"], taps[0].mixes_heads


@pytest.mark.parametrize(
    "maps",
    [
        mixing("a", "w"),
        mixing("a", "w", [node("MatMul", "f mixer", "m"), node("Add", "bias m", "b")]),
        [node("Conv", "a kernel bias", "w")],
        [node("Conv", "a kernel", "c"), node("Mul", "c half", "w")],
        [
            node("Conv", "a kernel", "c"),
            node("BatchNormalization", "c scale bias bias spread", "n"),
            node("Add", "n bias4", "w"),
        ],
        [node("Einsum", "a mixer", "w", equation="bhij,hg->bgij")],
        [node("Einsum", "mixer a", "w", equation="gh,bhij->bgij")],
        [node("Dropout", "a", "d"), *mixing("d", "e"), node("Identity", "e", "w")],
        [node("Conv", "a kernel", "e"), *mixing("e", "w")],
    ],
    ids=["product", "with a bias", "convolution", "scaled", "normalised", "einsum", "turned", "dropout", "twice"],
)
def test_weights_are_what_multiplies_the_values(maps: list[NodeProto]) -> None:
    """However the map behind the softmax is written; its rows do not sum to 1."""
    weights, answer, mixes_heads = tapped([*SCORES, SOFTMAX, *maps, WEIGHED])
    assert mixes_heads
    np.testing.assert_allclose(weights @ FEED["v"], answer, atol=1e-5)
    assert np.abs(weights.sum(-1) - 1).max() > 0.1


def test_a_map_before_the_softmax_alone_leaves_sums_of_1() -> None:
    """The scores are mixed, the weights are a softmax's."""
    for maps in (mixing("s", "t"), [node("Conv", "s kernel bias", "c"), node("Mul", "c half", "t")]):
        nodes = [*SCORES, *maps, node("Softmax", "t", "w", axis=-1), WEIGHED]
        weights, answer, mixes_heads = tapped(nodes)
        assert not mixes_heads
        np.testing.assert_allclose(weights @ FEED["v"], answer, atol=1e-5)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_there_may_be_more_heads_behind_a_map_than_before() -> None:
    """Shazeer et al. 2020 have as many as one likes; here 4 of 3, of which values have as many."""
    feed = {**FEED, "v": numbers(2, 4, LENGTH, WIDTH, seed=7)}
    nodes = [*SCORES, SOFTMAX, *mixing("a", "w", [node("MatMul", "f more", "m")]), WEIGHED]
    inputs = {**INPUTS, "v": ["batch", 4, "n", WIDTH]}
    model, taps = tap(graph(nodes, inputs, ["y"], {"more": WEIGHTS["more"]}), Path())
    given = run(model, feed)
    assert taps[0].mixes_heads
    assert given["attention.0"].shape == (2, 4, LENGTH, LENGTH)
    np.testing.assert_allclose(given["attention.0"] @ feed["v"], given["y"], atol=1e-5)


@pytest.mark.parametrize(
    "maps",
    [
        mixing("a", "w", [node("MatMul", "f mixer", "m"), node("Relu", "m", "r")]),
        mixing("a", "w", [node("MatMul", "f mixer", "m"), node("LayerNormalization", "m scale", "r", axis=-1)]),
        [*mixing("a", "e"), node("Add", "e places", "w")],
        [*mixing("a", "e"), node("Mul", "e s", "w")],
        [node("Conv", "a wide", "w", pads=[0, 1, 0, 1])],
        [node("MatMul", "a keys", "w")],
    ],
    ids=["an activation", "a norm", "a bias of keys", "a gate", "a convolution of keys", "a product over keys"],
)
def test_what_is_no_map_over_heads_is_refused(maps: list[NodeProto]) -> None:
    """A layer before them is tapped; the file is refused all the same."""
    first = node("Attention", "q k v", "z")
    nodes = [first, *SCORES, SOFTMAX, *maps, WEIGHED]
    weights = {name: array for name, array in WEIGHTS.items() if name in {name for one in nodes for name in one.input}}
    inputs = {name: ["batch", HEADS, LENGTH, WIDTH] for name in "qkv"}
    with pytest.raises(TapError, match="my Softmax: is a Softmax between two products, as attention is"):
        tap(graph(nodes, inputs, ["y", "z"], weights), Path())


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", "s kernel", "t"), node("Softmax", "t", "w", axis=-1)],
        [SOFTMAX, node("Conv", "a kernel", "w")],
    ],
    ids=["before", "behind"],
)
def test_heads_that_are_mixed_between_channels_are_refused_by_name(nodes: list[NodeProto]) -> None:
    """As XCiT's without a map: positions come last, [B, H, d, N]."""
    inputs = {name: ["batch", HEADS, WIDTH, "n"] for name in "qkv"}
    nodes = [*SCORES, *nodes, node("MatMul", "w v", "z"), node("Transpose", "z", "y", perm=[0, 3, 1, 2])]
    with pytest.raises(TapError, match="my Softmax: is attention between channels; expected it between positions"):
        tap(graph(nodes, inputs, ["y"], {"kernel": WEIGHTS["kernel"]}), Path())


@pytest.mark.parametrize("summands", ["rel c", "c rel"])
@pytest.mark.parametrize("behind", [[], [node("Conv", "a kernel", "m")]], ids=["eager", "mixed again"])
def test_a_bias_that_is_a_product_leaves_one_layer(summands: str, behind: list[NodeProto]) -> None:
    """Relative positions behind the map: both summands are products, of which one is mixed."""
    weights = "m" if behind else "a"
    nodes = [*SCORES, node("Conv", "s kernel", "c"), node("MatMul", "v kt", "rel"), node("Add", summands, "t")]
    nodes += [node("Softmax", "t", "a", axis=-1), *behind, node("MatMul", f"{weights} v", "y")]
    given, answer, mixes_heads = tapped(nodes)
    assert mixes_heads == bool(behind)
    np.testing.assert_allclose(given @ FEED["v"], answer, atol=1e-5)


@pytest.mark.parametrize(
    "scaling",
    [
        [node("Mul", "a half", "w")],
        [node("Add", "a bias4", "w")],
        [node("BatchNormalization", "a scale bias bias spread", "w")],
    ],
    ids=["scaled", "shifted", "normalised"],
)
def test_a_scale_behind_the_softmax_without_a_map_is_refused(scaling: list[NodeProto]) -> None:
    """Rows would sum to another number than 1, in heads that are not mixed; so with a map before the softmax."""
    for maps, scores in (([node("Conv", "s kernel", "t")], "t"), ([], "s")):
        nodes = [*SCORES, *maps, node("Softmax", scores, "a", axis=-1), *scaling, WEIGHED]
        with pytest.raises(TapError, match="my Softmax: is a Softmax between two products, as attention is"):
            tapped(nodes)


@pytest.mark.parametrize(("axis", "taken"), [(1, False), (2, True)])
def test_axes_may_stand_turned_between_the_maps(axis: int, taken: bool) -> None:
    """As ONNX Runtime's optimizer leaves them, [B, Q, K, H]; the softmax runs over the keys, or the file is refused."""
    nodes = [
        node("Attention", "q k v", "z"),
        *SCORES,
        node("Transpose", "s", "f", perm=[0, 2, 3, 1]),
        node("MatMul", "f mixer", "m"),
        node("Softmax", "m", "a", axis=axis),
        node("MatMul", "a mixer", "n"),
        node("Transpose", "n", "w", perm=[0, 3, 1, 2]),
        WEIGHED,
    ]
    model = graph(nodes, INPUTS, ["y", "z"], {"mixer": WEIGHTS["mixer"]})
    if taken:
        tapped_model, taps = tap(model, Path())
        given = run(tapped_model, FEED)
        assert [one.mixes_heads for one in taps] == [False, True]
        np.testing.assert_allclose(given["attention.1"] @ FEED["v"], given["y"], atol=1e-5)
    else:
        with pytest.raises(TapError, match=r"my Softmax: is a Softmax .*between two products"):
            tap(model, Path())


@pytest.mark.parametrize("opset", [13, 17])
def test_cait_is_tapped_as_torch_computes_it(opset: int) -> None:
    """Two layers of talking heads over the patches, then two of one query: the class token's."""
    network = spread(Cait())
    model, taps = tap(write_images(network, opset), Path())
    pixels = torch.from_numpy(numbers(3, 3, 32, 32))
    given = run(model, {"pixel_values": pixels.numpy()})
    with torch.inference_mode():
        logits, weights = network.explain(pixels)
    assert [one.mixes_heads for one in taps] == [True, True, False, False]
    assert [given[one.output].shape[1:] for one in taps] == [(4, 16, 16)] * 2 + [(4, 1, 17)] * 2
    np.testing.assert_allclose(given["logits"], logits.numpy(), atol=1e-4)
    for one, expected in zip(taps, weights, strict=True):
        np.testing.assert_allclose(given[one.output], expected.numpy(), atol=1e-4)


def test_value_norms_and_contributions_are_of_mixed_weights() -> None:
    """Computed in float64 from torch's own values: every vector that a patch adds to another, the residual included."""
    network, pixels = spread(Cait()), torch.from_numpy(numbers(2, 3, 32, 32))
    plain = write_images(network, 17)
    model, taps = tap(plain, Path())
    norms = run(model, {"pixel_values": pixels.numpy()})[str(taps[0].value_norms)]
    model, outputs = tap_contributions(plain, Path(), RULES, [0, 1])
    assert list(outputs) == [0, 1]
    given = run(model, {"pixel_values": pixels.numpy()})
    network.double()
    block = network.blocks[0]
    assert isinstance(block, TalkingHeads)
    with torch.inference_mode():
        x = network.patch_embed(pixels.double()).flatten(2).transpose(1, 2) + network.pos_embed
        seen = network.norms[0](x)
        _, weights = block(seen)
        values = block.qkv(seen)[..., 2 * CAIT_WIDTH :].unflatten(-1, (4, -1)).transpose(1, 2)  # [B, H, K, d]
        vectors = torch.einsum("bhkd,ehd->bhke", values, block.proj.weight.unflatten(1, (4, -1)))
        np.testing.assert_allclose(norms, vectors.norm(dim=-1).numpy(), rtol=1e-4)
        added = torch.einsum("bhqk,bhke->bqke", weights, vectors) * network.gammas[0]
        whole = added + torch.diag_embed(x.transpose(1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(given[outputs[0]], whole.norm(dim=-1).numpy(), rtol=1e-3, atol=1e-3)
