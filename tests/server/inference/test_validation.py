"""What a model takes of a caller's own arrays, at the edges of what its contract says."""

import numpy as np
import pytest

from artifact.contract import Contract, TensorContract
from artifact.dtypes import Array
from server.errors import InvalidInput
from server.inference.validation import check_inputs, check_shapes, count_elements
from tests.server.fakes import CONTRACT


def contract(*inputs: TensorContract, **changes: object) -> Contract:
    """The golden one with other inputs."""
    return CONTRACT.model_copy(update={"inputs": inputs, **changes})


def floats(**changes: object) -> TensorContract:
    """One input of numbers."""
    fields: dict[str, object] = {"name": "x", "dtype": "float32", "axes": ("batch", 2)}
    return TensorContract.model_validate(fields | changes)


def ids(rows: int = 1, length: int = 4, value: int = 1) -> dict[str, Array]:
    """A text of the golden model."""
    array = np.full((rows, length), value, dtype=np.int64)
    return {"input_ids": array, "attention_mask": np.ones_like(array)}


def test_values_at_the_bounds_are_taken_and_those_beyond_are_not() -> None:
    """From -1 to 2, both included; the message says what came."""
    bounded = contract(floats(minimum=-1, maximum=2))
    check_inputs({"x": np.array([[-1, 2]], dtype=np.float32)}, bounded, 8)
    for value in (-1.5, 2.5):
        with pytest.raises(InvalidInput, match=rf"inputs\[x\]: a value of {value}; expected values from -1 to 2"):
            check_inputs({"x": np.array([[0, value]], dtype=np.float32)}, bounded, 8)


def test_as_many_rows_and_tokens_as_are_allowed_are_taken_and_one_more_is_not() -> None:
    """Eight rows; the model's most tokens."""
    most = CONTRACT.text.max_tokens if CONTRACT.text else 0
    assert most > 0
    assert check_inputs(ids(8, most), CONTRACT, 8)["input_ids"].shape == (8, most)
    with pytest.raises(InvalidInput, match="inputs: 9 rows; expected at most 8 "):
        check_inputs(ids(9), CONTRACT, 8)
    with pytest.raises(InvalidInput, match=f"inputs: {most + 1} tokens; expected at most {most}"):
        check_inputs(ids(1, most + 1), CONTRACT, 8)


def test_a_symbolic_axis_has_a_limit_of_its_own() -> None:
    """Three positions along "context" are enough; an axis that no input has counts for nothing."""
    limited = contract(floats(axes=("batch", "context")), limits={"context": 3, "absent": 1})
    check_inputs({"x": np.ones((1, 3), np.float32)}, limited, 8)
    with pytest.raises(InvalidInput, match="inputs: 4 positions along context; expected at most 3"):
        check_inputs({"x": np.ones((1, 4), np.float32)}, limited, 8)


def test_one_row_is_enough_and_none_is_not() -> None:
    """Where empty arrays are allowed, it is the rows that are missing."""
    anything = contract(floats(finite=False))
    check_inputs({"x": np.ones((1, 2), np.float32)}, anything, 8)
    with pytest.raises(InvalidInput, match="inputs: no rows; expected at least one"):
        check_inputs({"x": np.ones((0, 2), np.float32)}, anything, 8)
    with pytest.raises(InvalidInput, match=r"inputs\[x\].shape: \[0, 2\]; expected at least one element"):
        check_inputs({"x": np.ones((0, 2), np.float32)}, contract(floats()), 8)


def test_what_is_not_finite_is_refused_with_its_place_unless_the_contract_takes_it() -> None:
    """The first of them, row and column."""
    array = np.array([[0, 1], [np.nan, np.inf]], dtype=np.float32)
    with pytest.raises(InvalidInput, match=r"inputs\[x\]: nan at \[1, 0\]; expected finite numbers"):
        check_inputs({"x": array}, contract(floats()), 8)
    assert check_inputs({"x": array}, contract(floats(finite=False)), 8)["x"] is array


def test_every_row_of_a_mask_needs_a_1() -> None:
    """The message says which has none; one is enough."""
    masked = contract(floats(dtype="int64", axes=("batch", "seq_len"), mask=True))
    check_inputs({"x": np.array([[0, 1], [1, 0]])}, masked, 8)
    with pytest.raises(InvalidInput, match=r"inputs\[x\]: only zeros in row 1; expected at least one 1 in every row"):
        check_inputs({"x": np.array([[0, 1], [0, 0], [0, 0]])}, masked, 8)


def test_axes_of_one_name_have_one_size() -> None:
    """The second input's message says what the first has told."""
    with pytest.raises(InvalidInput, match=r"inputs\[attention_mask\].shape: \[1, 3\]; expected .* with batch 1, seq_"):
        check_inputs(ids() | {"attention_mask": np.ones((1, 3), np.int64)}, CONTRACT, 8)
    for shape in ((4,), (1, 4, 1)):
        with pytest.raises(InvalidInput, match=r"inputs\[input_ids\].shape: .*; expected \[batch, seq_len\]$"):
            check_inputs(ids() | {"input_ids": np.ones(shape, np.int64)}, CONTRACT, 8)


def test_dtypes_are_told_in_the_protocols_words() -> None:
    """Where it has words of its own."""
    wrong = ids() | {"input_ids": np.ones((1, 4), np.int32)}
    with pytest.raises(InvalidInput, match=r"inputs\[input_ids\].dtype: int32; expected int64"):
        check_inputs(wrong, CONTRACT, 8)
    with pytest.raises(InvalidInput, match=r"inputs\[input_ids\].datatype: INT32; expected INT64"):
        check_shapes(wrong, CONTRACT, 8, {"int32": "INT32", "int64": "INT64"})
    with pytest.raises(InvalidInput, match=r"inputs\[input_ids\]: missing; expected INT64 \[batch, seq_len\]"):
        check_shapes({}, CONTRACT, 8, {"int64": "INT64"})


def test_an_unknown_input_is_refused_with_those_that_there_are() -> None:
    """By name."""
    with pytest.raises(InvalidInput, match=r"inputs: 'ids'; expected attention_mask and input_ids, the inputs of tiny"):
        check_inputs(ids() | {"ids": np.ones((1, 4))}, CONTRACT, 8)


def test_elements_are_counted_unless_no_array_could_have_that_shape() -> None:
    """2**31 beside a size of 0 is what numpy can have; one more is not."""
    assert count_elements("shape", (2, 3)) == 6
    assert count_elements("shape", (0, 2**31)) == 0
    assert count_elements("shape", (2**31, 2)) == 2**32
    with pytest.raises(InvalidInput, match=r"shape: \[0, 2147483649\]; expected a product of at most 2147483648"):
        count_elements("shape", (0, 2**31 + 1))


@pytest.mark.parametrize(("bounds", "value", "expected"), [({"minimum": 0}, -1, "from 0"), ({"maximum": 1}, 2, "to 1")])
def test_one_bound_may_be_missing(bounds: dict[str, int], value: int, expected: str) -> None:
    """The message says the one there is."""
    with pytest.raises(InvalidInput, match=rf"inputs\[x\]: a value of {value}.0; expected values {expected}$"):
        check_inputs({"x": np.array([[0, value]], dtype=np.float32)}, contract(floats(**bounds)), 8)


def test_every_row_of_a_mask_has_a_1() -> None:
    """Along its last axis, however many there are."""
    for axes, shape in ((("seq_len",), (3,)), (("batch", "seq_len"), (2, 3)), (("batch", 2, "seq_len"), (2, 2, 3))):
        masked = contract(floats(dtype="int64", axes=axes, mask=True), text=None)
        array = np.zeros(shape, dtype=np.int64)
        array[..., -1] = 1
        check_inputs({"x": array}, masked, 8)
        array[-1] = 0
        with pytest.raises(InvalidInput, match=r"only zeros in row \d; expected at least one 1 in every row"):
            check_inputs({"x": array}, masked, 8)


def test_sizes_that_an_input_does_not_have_have_no_limit() -> None:
    """Neither rows nor tokens, of a model that has limits for both."""
    fixed = contract(floats(axes=(2,)))
    check_inputs({"x": np.zeros(2, dtype=np.float32)}, fixed, 0)
    assert CONTRACT.text is not None
    none = CONTRACT.text.model_copy(update={"max_tokens": 0})
    check_inputs({"x": np.zeros((1, 2), dtype=np.float32)}, contract(floats(), text=none), 1)


def test_token_types_that_are_left_out_are_of_their_own_axes_and_dtype() -> None:
    """Whatever input comes first."""
    vectors = floats(axes=("batch", "seq_len", 8))
    types = TensorContract(name="types", dtype="int64", axes=("batch", "seq_len"), token_types=True)
    found = check_inputs({"x": np.ones((2, 3, 8), np.float32)}, contract(vectors, types), 8)["types"]
    assert (found.shape, found.dtype.name) == ((2, 3), "int64")
    assert not found.any()
