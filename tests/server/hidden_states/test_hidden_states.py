"""Hidden states as they are planned, and what is made of them."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.contract import Contract, PatchContract
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.hidden_states import read_hidden_states
from server.attention.planning import AttentionLimits
from server.attention.positions import Positions
from server.errors import InvalidInput, NotPossible
from server.hidden_states.plan import HiddenStatesPlan
from server.hidden_states.planning import plan_hidden_states
from server.hidden_states.reduce import ReducedStates, reduce_states
from tests.server.fakes import CONTRACT, on_device

LENGTH, DIM = 6, 32
CLS, MEAN, LAST = pb.HIDDEN_STATES_POOLING_CLS, pb.HIDDEN_STATES_POOLING_MEAN, pb.HIDDEN_STATES_POOLING_LAST
STATES = {
    f"hidden_states.{layer}": np.random.default_rng(layer).normal(size=(2, LENGTH, DIM)).astype(np.float32) * 3
    for layer in range(3)
}
RAGGED = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
Floats = NDArray[np.float32]


def plan(
    contract: Contract = CONTRACT,
    *,
    mask: Any = None,
    special: tuple[int, ...] | None = None,
    answer_bytes: int = 10**6,
    computed_bytes: int = 10**6,
    **request: Any,
) -> HiddenStatesPlan:
    """Plan a request for the states of two texts of six tokens."""
    mask = np.ones((2, LENGTH), dtype=np.int64) if mask is None else mask
    positions = Positions(2, {"seq_len": LENGTH}, LENGTH, special)
    asked, limits = read_hidden_states(pb.HiddenStatesRequest(**request)), AttentionLimits(answer_bytes, computed_bytes)
    return plan_hidden_states(asked, contract, {"input_ids": mask, "attention_mask": mask}, positions, limits)


def reduce(wanted: HiddenStatesPlan, states: Any = STATES) -> list[ReducedStates]:
    """Make what was planned."""
    return list(reduce_states(wanted, states))


def values(**request: Any) -> Floats:
    """What is sent of the last layer."""
    (one,) = reduce(plan(layers=[-1], **request))
    return one.values


def test_an_empty_request_means_every_layer_and_position() -> None:
    """As float32, as they were computed."""
    everything = plan()
    assert everything.outputs == tuple(STATES)
    assert everything.axes == ["position", "dim"]
    for reduced, state in zip(reduce(everything), STATES.values(), strict=True):
        np.testing.assert_array_equal(reduced.values, state)


def test_layers_and_positions_come_in_the_order_asked_for() -> None:
    """Negative numbers count from the end."""
    wanted = plan(layers=[-1, 0], positions=[-1, 2])
    assert (wanted.outputs, wanted.positions) == (("hidden_states.2", "hidden_states.0"), (5, 2))
    last, first = reduce(wanted)
    assert (last.state.layer, first.state.layer) == (2, 0)
    np.testing.assert_array_equal(last.values, STATES["hidden_states.2"][:, [5, 2]])


def test_special_positions_may_be_left_out() -> None:
    """The first and the last token of a text."""
    assert plan(drop_special=True, special=(0, 5)).positions == (1, 2, 3, 4)


@pytest.mark.parametrize("on_a_device", [False, True])
@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({"pooling": CLS}, lambda x: x[:, 0]),
        ({"pooling": LAST}, lambda x: np.stack([x[0, 5], x[1, 3]])),
        ({"pooling": MEAN}, lambda x: np.stack([x[0].mean(0), x[1, :4].mean(0)])),
        ({"pooling": MEAN, "positions": [3, 5]}, lambda x: np.stack([x[0, [3, 5]].mean(0), x[1, 3]])),
        ({"positions": [0, 4]}, lambda x: x[:, [0, 4]]),
    ],
)
def test_poolings_are_what_they_say_padding_left_out(request_fields: Any, expected: Any, on_a_device: bool) -> None:
    """Of a row of six positions and one of four, against float64."""
    (reduced,) = reduce(plan(layers=[1], mask=RAGGED, **request_fields), on_device(STATES) if on_a_device else STATES)
    wanted = expected(STATES["hidden_states.1"].astype(np.float64))
    assert reduced.values.dtype == np.float32
    np.testing.assert_allclose(reduced.values, wanted, rtol=0, atol=1e-6)


def test_rows_without_padding_are_pooled_over_all() -> None:
    """The mean, and the last."""
    state = STATES["hidden_states.2"].astype(np.float64)
    np.testing.assert_allclose(values(pooling=MEAN), state.mean(1), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(values(pooling=LAST), STATES["hidden_states.2"][:, -1])


def test_vectors_are_scaled_to_length_1_after_pooling() -> None:
    """One of zeros stays."""
    pooled, scaled = values(pooling=MEAN), values(pooling=MEAN, normalize=True)
    np.testing.assert_allclose(scaled * np.linalg.norm(pooled, axis=-1, keepdims=True), pooled, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(values(normalize=True), axis=-1), 1, atol=1e-6)
    (nothing,) = reduce(plan(layers=[0], normalize=True), {"hidden_states.0": np.zeros((2, LENGTH, DIM), np.float32)})
    assert not nothing.values.any()


def test_8_bits_are_steps_of_each_vector_between_its_own_ends() -> None:
    """Off by half a step at most, however large the channels of another position are."""
    state = STATES["hidden_states.0"].copy()
    state[0, 0] *= 1000
    (sent,) = reduce(plan(layers=[0], dtype=pb.DATA_TYPE_UINT8), {"hidden_states.0": state})
    assert sent.values.dtype == np.uint8
    assert sent.scales is not None
    assert sent.offsets is not None
    assert sent.scales.shape == sent.offsets.shape == (2, LENGTH)
    read = sent.values * sent.scales[..., None] + sent.offsets[..., None]
    limit = np.abs(state).max(axis=-1, keepdims=True) * 1e-6 + sent.scales[..., None] / 2
    assert (np.abs(read - state) <= limit).all()
    np.testing.assert_array_equal(sent.values.min(axis=-1), 0)
    np.testing.assert_array_equal(sent.values.max(axis=-1), 255)


def test_a_vector_of_equal_numbers_travels_in_8_bits() -> None:
    """Its step is nothing."""
    same = np.full((2, LENGTH, DIM), -7.5, dtype=np.float32)
    (sent,) = reduce(plan(layers=[0], pooling=CLS, dtype=pb.DATA_TYPE_UINT8), {"hidden_states.0": same})
    assert sent.scales is not None
    assert sent.offsets is not None
    assert not sent.values.any()
    assert (sent.scales.tolist(), sent.offsets.tolist()) == ([0, 0], [-7.5, -7.5])


def test_half_precision_is_refused_where_a_number_is_too_large_for_it() -> None:
    """Instead of an infinity in the answer."""
    half = plan(layers=[0], dtype=pb.DATA_TYPE_FLOAT16)
    (sent,) = reduce(half)
    assert sent.values.dtype == np.float16
    np.testing.assert_allclose(sent.values, STATES["hidden_states.0"], rtol=1e-3)
    with pytest.raises(InvalidInput, match=r"hidden_states.dtype: FLOAT16; expected FLOAT32: layer 0 has values above"):
        reduce(half, {"hidden_states.0": np.full((2, LENGTH, DIM), -1e5, dtype=np.float32)})


def test_each_layer_is_let_go_of_before_it_is_sent() -> None:
    """So that a large answer does not hold the states beside itself."""
    gone = list[str]()
    for number, reduced in enumerate(reduce_states(plan(), STATES, gone.append), 1):
        assert gone[-1] == reduced.state.output
        assert len(gone) == number


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [
        ({"layers": [3]}, "hidden_states.layers: 3; expected from -3 to 2"),
        ({"layers": [2, -1]}, r"hidden_states.layers: \[2, -1\]; expected each at most once"),
        ({"layers": [0] * 4}, "hidden_states.layers: 4 numbers; expected at most 3, each once"),
        ({"layers": [0] * (2**16 + 1)}, "hidden_states.layers: 65537 entries; expected at most 65536"),
        ({"positions": [6]}, "hidden_states.positions: 6; expected from -6 to 5"),
        (
            {"positions": [1], "pooling": CLS},
            r"positions: \[1\]; expected none together with HIDDEN_STATES_POOLING_CLS",
        ),
        ({"drop_special": True, "pooling": LAST}, "drop_special: true; expected none together with .*_LAST, which"),
        ({"drop_special": True, "positions": [1]}, "hidden_states.drop_special: true; expected no positions together"),
        ({"drop_special": True}, "hidden_states.drop_special: true; expected false: only a text or an image says"),
        (
            {"drop_special": True, "special": range(6)},
            "drop_special: true; expected an input with at least one position",
        ),
        ({"pooling": 9}, "hidden_states.pooling: 9; expected one of the values of HiddenStatesPooling"),
        ({"dtype": pb.DATA_TYPE_INT8}, "hidden_states.dtype: DATA_TYPE_INT8; expected FLOAT32, FLOAT16 or UINT8"),
        (
            {"pooling": MEAN, "positions": [4, 5], "mask": RAGGED},
            r"hidden_states.positions: \[4, 5\]; expected at least one that is no padding in row 1",
        ),
        ({"answer_bytes": 4607}, "hidden_states: an answer of 4608 bytes; expected at most 4607: fewer layers or"),
        (
            {"computed_bytes": 4607},
            "hidden_states: 4608 bytes to compute; expected at most 4607 .the server's --max-att",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(request_fields: dict[str, Any], message: str) -> None:
    """Names the field, its value and what was expected; of three layers of 2 x 6 x 32 float32."""
    with pytest.raises(InvalidInput, match=message):
        plan(**request_fields)


@pytest.mark.parametrize(
    ("request_fields", "size_bytes"),
    [
        ({}, 3 * 2 * 6 * 32 * 4),
        ({"layers": [1], "pooling": CLS}, 2 * 32 * 4),
        ({"layers": [1], "positions": [1, 2], "dtype": pb.DATA_TYPE_FLOAT16}, 2 * 2 * 32 * 2),
        ({"layers": [0, 1], "dtype": pb.DATA_TYPE_UINT8}, 2 * 2 * 6 * (32 + 8)),
    ],
)
def test_the_answers_size_is_known_before_anything_runs(request_fields: dict[str, Any], size_bytes: int) -> None:
    """To the byte, scales and offsets included."""
    wanted = plan(**request_fields)
    sent = [array for one in reduce(wanted) for array in (one.values, one.scales, one.offsets) if array is not None]
    assert wanted.answer_bytes(2) == size_bytes == sum(array.nbytes for array in sent)
    assert wanted.computed_bytes(2) == len(wanted.states) * 2 * 6 * 32 * 4


def test_a_model_without_states_or_class_token_says_so() -> None:
    """With what has them."""
    with pytest.raises(
        NotPossible, match="hidden_states: tiny-text was exported without hidden states; expected a mod"
    ):
        plan(CONTRACT.model_copy(update={"hidden_states": ()}))
    patches = PatchContract(prefix_tokens=0, rows=2, cols=3, patch_size=8)
    without = CONTRACT.model_copy(update={"patches": patches})
    with pytest.raises(NotPossible, match=r"hidden_states.pooling: tiny-text has no class token; expected another"):
        plan(without, pooling=CLS)
    assert plan(without, pooling=MEAN).pooling == "mean"


def test_layers_with_other_positions_than_the_input_have_no_padding() -> None:
    """Latents, say: five of them whatever the length; special tokens are none of theirs."""
    first, second, third = CONTRACT.hidden_states
    latents = CONTRACT.model_copy(update={"hidden_states": (first, replace_axis(second, 5), replace_axis(third, 5))})
    assert plan(latents, layers=[1], mask=RAGGED).real is None
    assert plan(latents, layers=[0], mask=RAGGED).real is not None
    assert plan(latents, layers=[0, 1]).counts == (6, 5)
    with pytest.raises(InvalidInput, match=r"drop_special: true; expected false, or layers whose positions are those"):
        plan(latents, drop_special=True, special=(0,))
    with pytest.raises(
        InvalidInput, match=r"hidden_states.positions: -1; expected positions counted from 0: these lay"
    ):
        plan(latents, positions=[-1])


def replace_axis(state: Any, size: int) -> Any:
    """The same layer with so many positions."""
    return state.model_copy(update={"position_axis": size})
