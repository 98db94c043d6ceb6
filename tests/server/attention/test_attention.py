import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.contract import Contract, DerivedAxis, PatchContract, TensorContract, WindowContract
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.attention import read_attention
from server.api.regard_v1.tensors import read_tensor
from server.attention.plan import AttentionPlan
from server.attention.planning import AttentionLimits
from server.attention.reduce import Reduced, reduce_attention
from server.engine import array_ops as measures
from server.errors import InvalidInput, NotPossible
from tests.server.fakes import CONTRACT, on_device, plan_for, write_attention

LENGTH = 6
LIMITS = AttentionLimits(10**6, 10**6)
ROLLOUT, ENTROPY = pb.ATTENTION_MEASURE_ROLLOUT, pb.ATTENTION_MEASURE_ENTROPY
DISTANCE, CONTRIBUTION = pb.ATTENTION_MEASURE_DISTANCE, pb.ATTENTION_MEASURE_CONTRIBUTION
GLOBAL = pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(LENGTH), size=(2, 4, LENGTH)).astype(np.float32)


def plan(
    contract: Contract = CONTRACT, *, answer_bytes: int = 10**6, computed_bytes: int = 10**6, **request: Any
) -> AttentionPlan:
    """Plan an attention request on a text of six tokens."""
    message = pb.AttentionRequest(**request)
    limits = AttentionLimits(answer_bytes, computed_bytes)
    return plan_for(message, contract, sizes={"seq_len": LENGTH}, positions=LENGTH, limits=limits)


def test_an_empty_request_means_every_layer_head_and_row() -> None:
    """All of the attention, as float32."""
    everything = plan()
    assert everything.outputs == ("attention.0", "attention.1")
    assert (everything.heads, everything.queries, everything.dtype) == (None, None, "float32")


def test_negative_numbers_count_from_the_end() -> None:
    """-1 is the last layer, head and row."""
    last = plan(layers=[-1, 0], heads=[-1], rows=[-1, 2])
    assert last.outputs == ("attention.1", "attention.0")
    assert (last.heads, last.queries) == ((3,), (5, 2))


def test_the_class_token_is_row_0() -> None:
    """cls_only is a shorthand."""
    assert plan(cls_only=True).queries == (0,)


def test_a_network_of_patches_alone_has_no_class_token() -> None:
    """SigLIP's position 0 is a patch like any other."""
    patches = PatchContract(prefix_tokens=0, rows=2, cols=3, patch_size=8)
    with pytest.raises(NotPossible, match=r"attention.cls_only: tiny-text has no class token; expected rows, or none"):
        plan(CONTRACT.model_copy(update={"patches": patches}), cls_only=True)


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [
        ({"layers": [99]}, "attention.layers: 99; expected from -2 to 1"),
        ({"layers": [-3]}, "attention.layers: -3; expected from -2 to 1"),
        ({"heads": [4]}, "attention.heads: 4; expected from -4 to 3"),
        ({"rows": [6]}, "attention.rows: 6; expected from -6 to 5"),
        ({"layers": [1, -1]}, r"attention.layers: \[1, -1\]; expected each at most once"),
        ({"rows": [1], "cls_only": True}, r"attention.rows: \[1\]; expected no rows together with cls_only"),
        ({"dtype": pb.DATA_TYPE_INT64}, "attention.dtype: DATA_TYPE_INT64; expected FLOAT32, FLOAT16 or UINT8"),
        ({"dtype": 77}, "attention.dtype: 77; expected FLOAT32, FLOAT16 or UINT8"),
        ({"keys": [-7]}, "attention.keys: -7; expected from -6 to 5"),
        ({"top_k": -1}, "attention.top_k: -1; expected 0 for all keys, or a positive number"),
        ({"top_k": 1, "measure": ENTROPY}, "attention.top_k: 1; expected 0 with ATTENTION_MEASURE_ENTROPY"),
        ({"measure": 9}, "attention.measure: 9; expected one of the values of AttentionMeasure"),
        ({"residual_share": 0.5}, "attention.residual_share: 0.5; expected none but for a rollout"),
        ({"residual_share": 1, "measure": ROLLOUT}, "attention.residual_share: 1.0; expected at least 0 and less"),
        ({"measure": ROLLOUT, "layers": [1, 0]}, r"attention.layers: \[1, 0\]; expected rising numbers"),
        ({"drop_special": True}, "attention.drop_special: true; expected false: only a text or an image says"),
        ({"drop_special": True, "keys": [1]}, "attention.drop_special: true; expected neither rows, cls_only nor"),
        ({"head_reduction": 9}, "attention.head_reduction: 9; expected one of the values of HeadReduction"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(request_fields: dict[str, Any], message: str) -> None:
    """The message names the field, the value and what was expected."""
    with pytest.raises(InvalidInput, match=message):
        plan(**request_fields)


def test_an_answer_too_large_is_refused_before_it_is_computed() -> None:
    """2 layers x 4 heads x 6 x 6 float32 are 1152 bytes; half precision fits."""
    with pytest.raises(
        InvalidInput, match="an answer of 1152 bytes; expected at most 600: Attend, which sends each layer"
    ):
        plan(answer_bytes=600)
    assert plan(answer_bytes=600, dtype=pb.DATA_TYPE_FLOAT16).answer_bytes(1) == 576


def test_layer_by_layer_an_answer_may_be_as_large_as_it_is() -> None:
    """Each layer has a message of its own: 576 bytes of 1152."""
    how: dict[str, Any] = {"sizes": {"seq_len": LENGTH}, "positions": LENGTH, "layer_by_layer": True}
    fits = plan_for(pb.AttentionRequest(), CONTRACT, limits=AttentionLimits(600, 10**6), **how)
    assert fits.answer_bytes(1) == 1152
    with pytest.raises(InvalidInput, match="a layer of 576 bytes; expected at most 500: fewer heads or rows"):
        plan_for(pb.AttentionRequest(), CONTRACT, limits=AttentionLimits(500, 10**6), **how)


def test_weights_too_large_to_compute_are_refused_even_where_the_answer_is_small() -> None:
    """The class token's row needs the whole layer: two layers of 4 heads and 6 x 6 float32."""
    with pytest.raises(InvalidInput, match=r"1152 bytes of weights to compute; expected at most 1000 .*fewer layers"):
        plan(computed_bytes=1000, cls_only=True)
    assert plan(computed_bytes=1000, cls_only=True, layers=[-1]).computed_bytes(1) == 576


def test_a_model_without_attention_says_so() -> None:
    """FAILED_PRECONDITION, since no input would help."""
    with pytest.raises(NotPossible, match="tiny-text was exported without attention"):
        plan(CONTRACT.model_copy(update={"attention": ()}))


MIXED = CONTRACT.model_copy(
    update={
        "attention": (
            CONTRACT.attention[0],
            CONTRACT.attention[1].model_copy(update={"mixes_heads": True, "contribution": "contributions.1"}),
        )
    }
)


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("measure: ATTENTION_MEASURE_ROLLOUT; expected none", {"measure": ROLLOUT}),
        ("measure: ATTENTION_MEASURE_ENTROPY; expected none", {"measure": ENTROPY}),
        ("measure: ATTENTION_MEASURE_DISTANCE; expected none", {"measure": DISTANCE}),
        ("renormalize: true; expected false", {"renormalize": True}),
        ("dtype: UINT8; expected FLOAT32 or FLOAT16", {"dtype": pb.DATA_TYPE_UINT8}),
    ],
)
def test_mixed_heads_have_nothing_that_takes_rows_for_shares_of_1(field: str, asked: dict[str, Any]) -> None:
    """Talking heads; the other layer has all of it, and weights and contributions are had of both."""
    with pytest.raises(NotPossible, match=f"attention.{field} of layer 1, which mixes its heads: its rows need not"):
        plan(MIXED, **asked)
    assert plan(MIXED, layers=[0], **asked).indices == (0,)
    assert plan(MIXED, top_k=2, head_reduction=pb.HEAD_REDUCTION_MAX, dtype=pb.DATA_TYPE_FLOAT16).indices == (0, 1)
    further = {name: value for name, value in asked.items() if name != "measure"}
    assert plan(MIXED, layers=[1], measure=CONTRIBUTION, **further).takes_contributions


def test_a_class_token_that_patches_have_not_is_a_row_of_class_attention() -> None:
    """CaiT's last layers; of the others there is no such row."""
    layers = (
        CONTRACT.attention[0].model_copy(update={"query_axis": 6, "key_axis": 6}),
        CONTRACT.attention[1].model_copy(
            update={"query_axis": 1, "key_axis": 7, "kind": "cross", "class_attention": True}
        ),
    )
    patches = PatchContract(prefix_tokens=0, rows=2, cols=3, patch_size=8)
    contract = CONTRACT.model_copy(update={"patches": patches, "attention": layers})
    assert plan(contract, layers=[1], cls_only=True).queries == (0,)
    expected = "^attention.cls_only: layer 0 of .* has no class token; expected layers with class_attention$"
    for wanted in ([], [0], [1, 0]):
        with pytest.raises(NotPossible, match=expected):
            plan(contract, layers=wanted, cls_only=True)


NORMS = np.random.default_rng(1).uniform(0.1, 2, size=(2, 4, LENGTH)).astype(np.float32)
NORMED = CONTRACT.model_copy(
    update={
        "attention": tuple(
            layer.model_copy(update={"value_norms": f"{layer.output}.value_norms"}) for layer in CONTRACT.attention
        )
    }
)
CONTRIBUTIONS = {
    f"contributions.{layer}": np.random.default_rng(layer).uniform(0.1, 20, (2, LENGTH, LENGTH)).astype(np.float32)
    for layer in (0, 1)
}
FETCHED = {
    "attention.0": WEIGHTS,
    "attention.1": np.roll(WEIGHTS, 1, axis=1),
    "attention.0.value_norms": NORMS,
    "attention.1.value_norms": NORMS[:, ::-1],
}


def reduced(contract: Contract = NORMED, **request: Any) -> list[Reduced]:
    """Reduce the weights of both layers, or of those asked for, on the host and as on a device: both are the same."""
    planned = plan(contract, **request)
    results = list(reduce_attention(planned, FETCHED))
    for here, there in zip(results, reduce_attention(planned, on_device(FETCHED)), strict=True):
        assert (here.layer, here.queries, here.values.dtype) == (there.layer, there.queries, there.values.dtype)
        assert there.scale == pytest.approx(here.scale)
        np.testing.assert_allclose(there.values, here.values, rtol=1e-3, atol=1 if here.scale else 1e-6)
        np.testing.assert_array_equal(there.indices, here.indices)
    return results


CHOICES = [
    *({"measure": measure} for measure in (ENTROPY, DISTANCE, ROLLOUT, CONTRIBUTION, GLOBAL)),
    *({"head_reduction": pb.HEAD_REDUCTION_MEAN, "top_k": top_k} for top_k in (0, 2)),
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_rows_that_are_sent_are_named(choice: dict[str, Any]) -> None:
    """All of them, or those chosen, in that order; three texts, so that no two sizes are equal."""
    weights = {name: np.concatenate([values, values[:1]]) for name, values in {**FETCHED, **CONTRIBUTIONS}.items()}
    for rows, expected in (([], range(LENGTH)), ([4, 1], (4, 1))):
        for one in reduce_attention(plan(NORMED, rows=rows, **choice), weights):
            assert list(one.queries) == list(expected)
            assert (one.scale, one.values.shape[0]) == (0.0, 3)
            assert len(expected) in one.values.shape or choice["measure"] == DISTANCE  # which is a mean over them


@pytest.mark.parametrize("choice", [{}, {"top_k": 1}, {"measure": ENTROPY}], ids=str)
def test_the_rows_of_a_layer_are_its_own(choice: dict[str, Any]) -> None:
    """Two positions of the decoder attend to six of the encoder."""
    layer = CONTRACT.attention[0].model_copy(update={"kind": "cross", "query_axis": "target"})
    crossing, sizes = CONTRACT.model_copy(update={"attention": (layer,)}), {"seq_len": LENGTH, "target": 2}
    planned = plan_for(pb.AttentionRequest(**choice), crossing, sizes=sizes, positions=2, limits=LIMITS)
    (one,) = reduce_attention(planned, {"attention.0": WEIGHTS[:, :, :2]})
    assert list(one.queries) == [0, 1]


def test_the_largest_layer_decides_whether_each_fits_a_message() -> None:
    """Of an encoder of 6 positions and a decoder of 3, however they are ordered."""
    decoder = CONTRACT.attention[1].model_copy(update={"query_axis": "target", "key_axis": "target"})
    both = CONTRACT.model_copy(update={"attention": (CONTRACT.attention[0], decoder)})
    how: dict[str, Any] = {"sizes": {"seq_len": LENGTH, "target": 3}, "positions": LENGTH, "layer_by_layer": True}
    for layers in ([0, 1], [1, 0]):
        with pytest.raises(InvalidInput, match="a layer of 576 bytes; expected at most 575"):
            plan_for(pb.AttentionRequest(layers=layers), both, limits=AttentionLimits(575, 10**6), **how)


def test_a_rollout_names_the_last_of_its_layers() -> None:
    """Of three, the third."""
    third = NORMED.attention[1].model_copy(update={"layer": 2})
    contract = NORMED.model_copy(update={"attention": (*NORMED.attention, third)})
    (one,) = reduce_attention(plan(contract, measure=ROLLOUT), FETCHED)
    assert one.layer is third


def in_float64(layer: int, *, by_values: bool = False) -> NDArray[np.float64]:
    """One layer's weights, weighed by the lengths of the values where asked for."""
    weights = FETCHED[f"attention.{layer}"].astype(np.float64)
    return weights * FETCHED[f"attention.{layer}.value_norms"][:, :, None, :] if by_values else weights


def test_selection_equals_numpy_indexing() -> None:
    """Heads, rows and keys in the order asked for."""
    (layer,) = reduced(layers=[0], heads=[2, 0], rows=[5, 1], keys=[3, -1])
    assert np.array_equal(layer.values, WEIGHTS[:, [2, 0]][:, :, [5, 1]][..., [3, 5]])


@pytest.mark.parametrize("name", ["mean", "max", "min"])
def test_a_reduction_over_chosen_heads_equals_its_definition(name: str) -> None:
    """Against float64, within 1e-7."""
    number = pb.HeadReduction.Value(f"HEAD_REDUCTION_{name.upper()}")
    (layer,) = reduced(layers=[0], heads=[1, 3], head_reduction=number)
    expected = getattr(in_float64(0)[:, [1, 3]], name)(axis=1)
    np.testing.assert_allclose(layer.values, expected, atol=1e-7)


@pytest.mark.parametrize("by_values", [False, True])
@pytest.mark.parametrize(("share", "fusion"), [(0.5, "mean"), (0.2, "max"), (0.0, "min")])
def test_a_rollout_equals_its_definition(share: float, fusion: str, by_values: bool) -> None:
    """Abnar and Zuidema, section 3, in float64, one text at a time; whole and one row alone."""
    number = pb.HeadReduction.Value(f"HEAD_REDUCTION_{fusion.upper()}")
    request: dict[str, Any] = {
        "measure": ROLLOUT,
        "residual_share": share,
        "head_reduction": number,
        "value_weighted": by_values,
    }
    (whole,), (row,) = reduced(**request), reduced(**request, rows=[4])
    for text in range(2):
        product = np.eye(LENGTH)
        for layer in range(2):
            fused = getattr(in_float64(layer, by_values=by_values)[text], fusion)(axis=0)
            mixed = (1 - share) * fused / fused.sum(axis=1, keepdims=True) + share * np.eye(LENGTH)
            product = mixed @ product
        np.testing.assert_allclose(whole.values[text], product, atol=1e-6)
        np.testing.assert_allclose(row.values[text], product[[4]], atol=1e-6)
    np.testing.assert_allclose(whole.values.sum(axis=-1), 1, atol=1e-6)


def test_a_rollout_takes_the_mean_and_the_papers_share_unless_told_otherwise() -> None:
    """The mean over heads and half for the residual connection."""
    (plain,) = reduced(measure=ROLLOUT)
    (stated,) = reduced(measure=ROLLOUT, residual_share=0.5, head_reduction=pb.HEAD_REDUCTION_MEAN)
    assert np.array_equal(plain.values, stated.values)


def test_weights_are_multiplied_by_the_lengths_of_their_values() -> None:
    """Kobayashi et al., section 3: the length of alpha f(x), key by key."""
    (layer,) = reduced(layers=[1], heads=[2], rows=[3], value_weighted=True)
    np.testing.assert_allclose(layer.values, in_float64(1, by_values=True)[:, [2]][:, :, [3]], atol=1e-6)


def test_the_entropy_of_a_row_equals_its_definition() -> None:
    """In nats, against float64; even attention over six keys has ln 6, a single key 0."""
    (layer,) = reduced(layers=[0], measure=ENTROPY)
    weights = in_float64(0)
    np.testing.assert_allclose(layer.values, -(weights * np.log(weights)).sum(axis=-1), atol=1e-5)
    even = np.full((1, 1, 2, 6), 1 / 6, dtype=np.float32)
    np.testing.assert_allclose(measures.entropy(even), np.log(6), atol=1e-6)
    assert measures.entropy(np.eye(6, dtype=np.float32)).tolist() == [0] * 6


def test_the_distance_of_a_head_on_a_text_is_in_tokens() -> None:
    """The mean over rows of the attention-weighted |query - key|, in float64."""
    (layer,) = reduced(layers=[0], measure=DISTANCE)
    apart = np.abs(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH)))
    distances = (in_float64(0) * apart).sum(axis=-1)
    np.testing.assert_allclose(layer.values, distances.mean(axis=-1), atol=1e-5)
    (layer,) = reduced(layers=[0], rows=[4, 1], measure=DISTANCE)
    np.testing.assert_allclose(layer.values, distances[..., [4, 1]].mean(axis=-1), atol=1e-5)


def test_the_distance_of_a_head_on_an_image_is_in_pixels_between_patches() -> None:
    """Class token left out, rows divided by what is left: 2 patches of 14 pixels below, 2 beside."""
    on_image = NORMED.model_copy(update={"patches": PatchContract(prefix_tokens=2, rows=2, cols=2, patch_size=14)})
    (layer,) = reduced(on_image, layers=[0], measure=DISTANCE, head_reduction=pb.HEAD_REDUCTION_MEAN)
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    expected = np.zeros((2, 4))
    for text, head, query in np.ndindex(2, 4, 4):
        row = in_float64(0)[text, head, 2 + query, 2:]
        away = [14 * math.dist(places[query], place) for place in places]
        expected[text, head] += (row / row.sum() * away).sum() / 4
    np.testing.assert_allclose(layer.values, expected.mean(axis=1), atol=1e-4)
    assert list(layer.queries) == [2, 3, 4, 5]


def in_one_window(**further: int) -> Contract:
    """Make every layer one of a window on 2 x 3 cells of 5 pixels, of a network whose patches are others."""
    window = WindowContract.model_validate({"rows": 2, "cols": 3, "height": 2, "width": 3, "cell_size": 5, **further})
    layers = tuple(one.model_copy(update={"window": window}) for one in CONTRACT.attention)
    patches = PatchContract(prefix_tokens=0, rows=4, cols=6, patch_size=2)
    return CONTRACT.model_copy(update={"attention": layers, "patches": patches})


def test_a_window_that_is_the_whole_grid_has_distances_on_that_grid() -> None:
    """In pixels, by the cells of the layer, not by the patches of the network."""
    (layer,) = reduced(in_one_window(), layers=[0], measure=DISTANCE)
    places = [(row, col) for row in range(2) for col in range(3)]
    apart = np.array([[5 * math.dist(one, other) for other in places] for one in places])
    np.testing.assert_allclose(layer.values, (in_float64(0) * apart).sum(-1).mean(-1), atol=1e-5)


def test_windows_that_are_the_whole_grid_have_a_rollout() -> None:
    """The same as layers without one; others have none, nor distances."""
    (layer,), (expected,) = (reduced(contract, measure=ROLLOUT) for contract in (in_one_window(), CONTRACT))
    np.testing.assert_array_equal(layer.values, expected.values)
    for measure, cut in itertools.product((ROLLOUT, DISTANCE), ({"height": 1}, {"width": 1}, {"shift_cols": 1})):
        with pytest.raises(NotPossible, match="expected none of layer 0, which attends in windows"):
            plan(in_one_window(**cut), measure=measure)


def test_the_largest_of_each_row_come_with_their_keys() -> None:
    """In falling order; the numbers are positions of the input, also where keys were chosen."""
    (layer,) = reduced(layers=[0], top_k=2, keys=[5, 3, 1])
    assert layer.indices is not None
    np.testing.assert_array_equal(layer.values, np.take_along_axis(WEIGHTS, layer.indices, axis=-1))
    np.testing.assert_allclose(layer.values, -np.sort(-WEIGHTS[..., [5, 3, 1]])[..., :2])
    assert set(layer.indices.ravel().tolist()) == {1, 3, 5}


def test_more_than_there_are_gives_all_keys() -> None:
    """As top_k of classes does."""
    (layer,) = reduced(layers=[0], top_k=99)
    np.testing.assert_array_equal(layer.values, -np.sort(-WEIGHTS))


@pytest.mark.parametrize("renormalize", [False, True])
def test_special_tokens_are_dropped_and_rows_renormalised_as_asked(renormalize: bool) -> None:
    """The first and the last token; each row sums to 1 again only where that was asked for."""
    message = pb.AttentionRequest(layers=[0], drop_special=True, renormalize=renormalize)
    chosen = plan_for(message, NORMED, sizes={"seq_len": LENGTH}, positions=LENGTH, limits=LIMITS, special=[0, 5])
    (layer,) = reduce_attention(chosen, FETCHED)
    expected = in_float64(0)[:, :, 1:5, 1:5]
    expected /= expected.sum(axis=-1, keepdims=True) if renormalize else 1
    np.testing.assert_allclose(layer.values, expected, atol=1e-6)
    assert (chosen.queries, chosen.keys) == ((1, 2, 3, 4), (1, 2, 3, 4))


def test_uint8_is_off_by_half_a_step_at_most() -> None:
    """A step is 1/255 of the largest weight sent; zeros stay zeros."""
    (layer,) = reduced(layers=[0], dtype=pb.DATA_TYPE_UINT8)
    assert layer.scale == pytest.approx(WEIGHTS.max() / 255)
    assert np.abs(layer.values * layer.scale - WEIGHTS).max() <= layer.scale * 0.501
    zeros, scale = measures.to_uint8(np.zeros((2, 2), dtype=np.float32))
    assert (zeros.tolist(), scale) == ([[0, 0], [0, 0]], 1.0)


@pytest.mark.parametrize(
    "request_fields",
    [
        {},
        {"layers": [1], "heads": [1], "rows": [2], "dtype": pb.DATA_TYPE_FLOAT16},
        {"measure": ROLLOUT, "cls_only": True},
        {"measure": ENTROPY},
        {"measure": DISTANCE, "head_reduction": pb.HEAD_REDUCTION_MAX},
        {"top_k": 3, "dtype": pb.DATA_TYPE_UINT8},
        {"keys": [1, 2], "head_reduction": pb.HEAD_REDUCTION_MIN},
    ],
)
def test_the_size_of_an_answer_is_known_before_it_is_made(request_fields: dict[str, Any]) -> None:
    """What a plan foretells is what is written, indices included."""
    chosen = plan(NORMED, **request_fields)
    written = list(write_attention(chosen, FETCHED, batched=True))
    sent = sum(len(layer.weights.data) + len(layer.indices.data) for layer in written)
    assert sent == chosen.answer_bytes(2)
    for layer in written:
        assert len(layer.axes) == len(layer.weights.shape)


def test_a_layer_of_fixed_size_has_its_own_length_whatever_the_texts() -> None:
    """Cross-attention over 3 keys: there is no fourth."""
    layer = CONTRACT.attention[0].model_copy(update={"kind": "cross", "key_axis": 3})
    crossing = CONTRACT.model_copy(update={"attention": (layer,)})
    assert plan(crossing, keys=[-1], rows=[-1]).keys == (2,)
    assert plan(crossing).answer_bytes(1) == 4 * LENGTH * 3 * 4
    with pytest.raises(InvalidInput, match=r"attention.keys: 3; expected from -3 to 2"):
        plan(crossing, keys=[3])
    for measure in (ROLLOUT, DISTANCE):
        with pytest.raises(NotPossible, match="of layer 0, which is cross-attention; expected self"):
            plan(crossing, measure=measure)


def test_rows_of_sound_are_chosen_among_its_frames() -> None:
    """How many frames the samples make stands in the contract; where only a run tells, rows cannot be chosen."""
    frames = DerivedAxis(of="samples", unit=320, offset=-80)
    layer = CONTRACT.attention[0].model_copy(update={"query_axis": frames.name, "key_axis": frames.name})
    samples = TensorContract(name="input_values", dtype="float32", axes=("batch", "samples"))
    sound = CONTRACT.model_copy(update={"inputs": (samples,), "attention": (layer,), "derived_axes": (frames,)})
    sizes = sound.axis_sizes({"input_values": np.zeros((1, 16_000))})

    def on_sound(contract: Contract, **request: Any) -> AttentionPlan:
        message = pb.AttentionRequest(**request)
        return plan_for(message, contract, sizes=sizes, positions=1, limits=LIMITS)

    assert on_sound(sound).shapes == ((49, 49),)
    assert on_sound(sound, rows=[-1]).queries == (48,)
    with pytest.raises(InvalidInput, match=r"attention.rows: 49; expected from -49 to 48"):
        on_sound(sound, rows=[49])
    untold = sound.model_copy(update={"attention": (layer.model_copy(update={"query_axis": None}),)})
    with pytest.raises(InvalidInput, match=r"attention.rows: \[0\]; expected none: only a run tells how many"):
        on_sound(untold, rows=[0])


def test_each_layer_has_the_axes_of_its_own_input() -> None:
    """Six positions attend to three of a second input; special ones are those of the text alone."""
    layer = CONTRACT.attention[0].model_copy(update={"kind": "cross", "key_axis": "context"})
    crossing = CONTRACT.model_copy(update={"attention": (layer,)})
    sizes = {"seq_len": LENGTH, "context": 3}
    message = pb.AttentionRequest(keys=[-1], rows=[-1])
    chosen = plan_for(message, crossing, sizes=sizes, positions=LENGTH, limits=LIMITS)
    assert (chosen.keys, chosen.queries, chosen.shapes) == ((2,), (5,), ((LENGTH, 3),))
    message = pb.AttentionRequest(drop_special=True)
    with pytest.raises(InvalidInput, match="drop_special: true; expected layers whose queries and keys are"):
        plan_for(message, crossing, sizes=sizes, positions=LENGTH, limits=LIMITS, special=[0])


@pytest.mark.parametrize("measure", [ROLLOUT, GLOBAL])
def test_a_rollout_over_layers_of_different_sizes_is_refused(measure: pb.AttentionMeasure) -> None:
    """Those of an encoder and of its decoder have no product."""
    decoder = CONTRACT.attention[1].model_copy(update={"query_axis": "target", "key_axis": "target"})
    both = CONTRACT.model_copy(update={"attention": (CONTRACT.attention[0], decoder)})
    sizes, message = {"seq_len": LENGTH, "target": 3}, pb.AttentionRequest(measure=measure)
    with pytest.raises(InvalidInput, match=r"attention.layers: 6 x 6, 3 x 3; expected layers over the same positions"):
        plan_for(message, both, sizes=sizes, positions=LENGTH, limits=LIMITS)
    message.layers.append(1)
    chosen = plan_for(message, both, sizes=sizes, positions=LENGTH, limits=LIMITS)
    assert chosen.answer_bytes(1) == 3 * 3 * 4


def test_no_heads_means_all_of_each_layer_where_layers_have_different_numbers() -> None:
    """A layer with fewer heads does not hide those of the others; negative numbers would mean different heads."""
    smaller = NORMED.attention[1].model_copy(update={"num_heads": 2})
    contract = NORMED.model_copy(update={"attention": (NORMED.attention[0], smaller)})
    everything = plan(contract)
    sent = list(write_attention(everything, {**FETCHED, "attention.1": WEIGHTS[:, :2]}, batched=True))
    assert [list(layer.heads) for layer in sent] == [[0, 1, 2, 3], [0, 1]]
    assert everything.answer_bytes(2) == sum(len(layer.weights.data) for layer in sent)
    assert plan(contract, heads=[1]).heads == (1,)
    with pytest.raises(InvalidInput, match=r"attention.heads: 2; expected from -2 to 1"):
        plan(contract, heads=[2])
    with pytest.raises(InvalidInput, match=r"attention.heads: -1; expected heads counted from 0: these layers have 2"):
        plan(contract, heads=[-1])


def test_lengths_of_values_need_an_export_that_has_them() -> None:
    """FAILED_PRECONDITION names the layer."""
    bare = tuple(layer.model_copy(update={"value_norms": None, "contribution": None}) for layer in CONTRACT.attention)
    without = CONTRACT.model_copy(update={"attention": bare})
    with pytest.raises(NotPossible, match=r"attention.value_weighted: the export of layer 0 does not show its output"):
        plan(without, value_weighted=True)
    for measure in (CONTRIBUTION, GLOBAL):
        with pytest.raises(NotPossible, match=r"layer 0 does not show its output projection and residual; expected"):
            plan(without, measure=measure)


def test_contributions_come_from_a_graph_of_their_own() -> None:
    """Rows, keys and the largest are cut as of weights; there are no heads."""
    chosen = plan(measure=CONTRIBUTION, rows=[2, -1], keys=[0, 3], layers=[1])
    assert (chosen.outputs, chosen.axes) == (("contributions.1",), ["query", "key"])
    (one,) = reduce_attention(chosen, CONTRIBUTIONS)
    assert np.array_equal(one.values, CONTRIBUTIONS["contributions.1"][:, [2, 5]][..., [0, 3]])
    (one,) = reduce_attention(plan(measure=CONTRIBUTION, layers=[0], top_k=1, renormalize=True), CONTRIBUTIONS)
    shares = CONTRIBUTIONS["contributions.0"] / CONTRIBUTIONS["contributions.0"].sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(one.values[..., 0], shares.max(axis=-1), rtol=1e-6)


def test_a_rollout_of_contributions_is_their_product_by_rows() -> None:
    """GlobEnc, equation 12, in float64; rows are shares of 1."""
    first, second = (CONTRIBUTIONS[f"contributions.{layer}"].astype(np.float64) for layer in (0, 1))
    product = second @ first
    expected = product / product.sum(axis=-1, keepdims=True)
    (one,) = reduce_attention(plan(measure=GLOBAL, cls_only=True), CONTRIBUTIONS)
    np.testing.assert_allclose(one.values, expected[:, :1], atol=1e-6)
    (one,) = reduce_attention(plan(measure=GLOBAL), CONTRIBUTIONS)
    np.testing.assert_allclose(one.values, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("heads", [1], r"attention.heads: \[1\]; expected none with ATTENTION_MEASURE_CONTRIBUTION"),
        ("head_reduction", pb.HEAD_REDUCTION_MAX, "attention.head_reduction: max; expected none with"),
        ("value_weighted", True, "attention.value_weighted: True; expected none with"),
    ],
)
def test_what_needs_heads_does_not_go_with_contributions(field: str, value: Any, message: str) -> None:
    """They are summed before the length is taken."""
    with pytest.raises(InvalidInput, match=message):
        plan(measure=CONTRIBUTION, **{field: value})


def test_the_answer_names_its_axes_heads_and_rows() -> None:
    """What was sent can be read without knowing what was asked."""
    chosen = plan(layers=[1], heads=[3, 1], cls_only=True, dtype=pb.DATA_TYPE_FLOAT16)
    (layer,) = write_attention(chosen, {"attention.1": WEIGHTS[:1]}, batched=False)
    assert (layer.layer, layer.kind, list(layer.axes)) == (1, pb.ATTENTION_KIND_SELF, ["head", "query", "key"])
    assert (list(layer.heads), list(layer.queries), list(layer.keys)) == ([3, 1], [0], [])
    expected = WEIGHTS[0, [3, 1], :1].astype(np.float16)
    assert np.array_equal(read_tensor("weights", layer.weights), expected)


def test_predict_keeps_the_batch_axis() -> None:
    """Two rows stay two rows; a mean has no head axis; a rollout says what it covers."""
    mean = plan(layers=[0], head_reduction=pb.HEAD_REDUCTION_MEAN)
    (layer,) = write_attention(mean, {"attention.0": WEIGHTS}, batched=True)
    assert list(layer.axes) == ["batch", "query", "key"]
    assert list(layer.weights.shape) == [2, LENGTH, LENGTH]
    (layer,) = write_attention(plan(measure=ROLLOUT), FETCHED, batched=True)
    assert (list(layer.axes), list(layer.covered_layers), layer.layer) == (["batch", "query", "key"], [0, 1], 1)


@pytest.mark.parametrize(("field", "axis"), [("rows", "query_axis"), ("keys", "key_axis")])
def test_negative_positions_are_refused_where_layers_differ_in_length(field: str, axis: str) -> None:
    """An encoder of 6 positions and a decoder of 3: the last of both is not one number."""
    decoder = CONTRACT.attention[1].model_copy(update={axis: "target"})
    both = CONTRACT.model_copy(update={"attention": (CONTRACT.attention[0], decoder)})
    sizes = {"seq_len": LENGTH, "target": 3}

    def choose(*places: int, layers: tuple[int, ...] = ()) -> AttentionPlan:
        chosen: dict[str, Any] = {field: places}
        message = pb.AttentionRequest(layers=layers, **chosen)
        return plan_for(message, both, sizes=sizes, positions=LENGTH)

    with pytest.raises(InvalidInput, match=rf"attention.{field}: -1; expected {field} counted from 0: .* have 3 or 6"):
        choose(-1)
    with pytest.raises(InvalidInput, match=rf"attention.{field}: 3; expected from -3 to 2"):
        choose(3)
    assert (choose(2).queries if field == "rows" else choose(2).keys) == (2,)
    last = choose(-1, layers=(1,))
    assert (last.queries if field == "rows" else last.keys) == (2,)


@pytest.mark.parametrize("on", [dict, on_device])
def test_values_that_half_precision_cannot_hold_are_refused(on: Any) -> None:
    """Weights times value norms of a million: FLOAT32 sends them, FLOAT16 would send infinity."""
    large = {**FETCHED, "attention.0.value_norms": np.full((2, 4, LENGTH), 1e6, dtype=np.float32)}
    chosen = plan(NORMED, layers=[0], value_weighted=True)
    (layer,) = reduce_attention(chosen, on(large))
    assert np.isfinite(layer.values).all()
    half = plan(NORMED, layers=[0], value_weighted=True, dtype=pb.DATA_TYPE_FLOAT16)
    with pytest.raises(
        InvalidInput, match=r"attention.dtype: FLOAT16; expected FLOAT32: layer 0 has values above 65504"
    ):
        list(reduce_attention(half, on(large)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("on", [dict, on_device])
@pytest.mark.parametrize("largest", [1e-43, 1e-38, 1e-30])
def test_the_smallest_weights_are_rounded_to_steps_without_a_warning(on: Any, largest: float) -> None:
    """Where float32 has no step that small, everything is zero; no sum is divided by it."""
    tiny = {**FETCHED, "attention.0": np.full((2, 4, LENGTH, LENGTH), largest, dtype=np.float32)}
    (layer,) = reduce_attention(plan(layers=[0], dtype=pb.DATA_TYPE_UINT8), on(tiny))
    assert np.abs(layer.values * np.float64(layer.scale) - largest).max() <= max(largest * 0.01, 3e-36)


def test_an_answer_may_be_exactly_as_large_as_allowed() -> None:
    """1152 bytes are sent and computed; a byte less of either is refused."""
    assert plan(answer_bytes=1152, computed_bytes=1152).answer_bytes(1) == 1152
    with pytest.raises(InvalidInput, match="an answer of 1152 bytes; expected at most 1151"):
        plan(answer_bytes=1151)
    with pytest.raises(InvalidInput, match="1152 bytes of weights to compute; expected at most 1151"):
        plan(computed_bytes=1151)


def test_the_first_and_the_last_of_everything_can_be_named_from_either_end() -> None:
    """Two layers, four heads, six positions."""
    assert plan(layers=[-2]).indices == plan(layers=[0]).indices == (0,)
    assert plan(heads=[-4, 3]).heads == (0, 3)
    assert plan(rows=[-6, 5], keys=[0, -1]).queries == (0, 5)


def test_position_0_can_be_chosen_where_layers_differ_in_length() -> None:
    """It is the same position in each."""
    decoder = CONTRACT.attention[1].model_copy(update={"query_axis": "target"})
    both = CONTRACT.model_copy(update={"attention": (CONTRACT.attention[0], decoder)})
    sizes = {"seq_len": LENGTH, "target": 3}
    assert plan_for(pb.AttentionRequest(rows=[0]), both, sizes=sizes, positions=LENGTH).queries == (0,)


def test_a_distance_needs_a_row_and_a_key_that_is_a_patch() -> None:
    """The class token lies nowhere; of cross-attention nothing lies beside anything."""
    patches = PatchContract(prefix_tokens=1, rows=1, cols=5, patch_size=8)
    image = CONTRACT.model_copy(update={"patches": patches})
    assert plan(image, measure=DISTANCE, rows=[0, 1]).queries == (0, 1)
    only_the_class_token: tuple[dict[str, Any], ...] = ({"rows": [0]}, {"keys": [0]})
    for chosen in only_the_class_token:
        with pytest.raises(InvalidInput, match="at least one row and key that is a patch"):
            plan(image, measure=DISTANCE, **chosen)
    crossing = CONTRACT.attention[0].model_copy(update={"kind": "cross"})
    with pytest.raises(NotPossible, match="DISTANCE of layer 0, which is cross-attention; expected self"):
        plan(CONTRACT.model_copy(update={"attention": (crossing,)}), measure=DISTANCE)


@pytest.mark.parametrize(("field", "count"), [("layers", 2), ("heads", 4), ("rows", LENGTH), ("keys", LENGTH)])
def test_more_numbers_than_there_are_are_refused_by_their_count(field: str, count: int) -> None:
    """Whatever they are; as many as there are may be named."""
    everything: dict[str, Any] = {field: list(range(count))}
    assert plan(**everything)
    with pytest.raises(InvalidInput, match=f"attention.{field}: {count + 1} numbers; expected at most {count}, each"):
        plan(**{field: [0] * (count + 1)})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["layers", "heads", "rows", "keys"])
def test_a_list_that_is_longer_than_any_model_is_not_walked_through(field: str) -> None:
    """Sixty-five thousand numbers are read, one more is refused by the count alone."""
    message = pb.AttentionRequest()
    getattr(message, field).extend([0] * 2**16)
    assert read_attention(message)
    getattr(message, field).append(0)
    with pytest.raises(InvalidInput, match=f"attention.{field}: 65537 entries; expected at most 65536"):
        read_attention(message)
