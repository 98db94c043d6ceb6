"""Texts and arrays of callers as inputs for the graphs."""

import numpy as np
import pytest

from artifact.contract import Contract, TensorContract, read_contract
from artifact.images import ImageLimits
from artifact.text import TextReader
from server.config import EMBEDDED_MODELS
from server.errors import InvalidInput, NotPossible
from server.inference.preprocess import InputLimits, choose_outputs, preprocess, special_positions
from server.inference.request import InferenceRequest, PreparedInput, Tensors, Texts
from tests.golden import GOLDEN_MODELS
from tests.server.fakes import CONTRACT, make_model

LIMITS = InputLimits(rows=8, text_bytes=100, image=ImageLimits(1000), request_pixels=2000)
TEXT = make_model(CONTRACT, TextReader(GOLDEN_MODELS / "tiny-text" / "1" / "tokenizer.json", 8))
FASHION = read_contract(EMBEDDED_MODELS / "fashion" / "1" / "contract.json")
IMAGE = make_model(FASHION)


def prepare(model: object, inputs: Texts | Tensors) -> PreparedInput:
    """Preprocess what somebody sent."""
    return preprocess(InferenceRequest(model, inputs, ()), LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize("texts", [("the cat", "a dog ran the cat"), ("a dog ran the cat", "the cat")])
def test_texts_are_padded_to_the_longest(texts: tuple[str, ...]) -> None:
    """The mask has 1 where there is text; which positions are special is told of a single one alone."""
    found = prepare(TEXT, Texts(texts, truncate=False))
    lengths = [len(text.split()) + 2 for text in texts]
    assert (found.rows, found.length, found.source) == (2, 7, None)
    assert found.inputs["attention_mask"].tolist() == [[1] * length + [0] * (7 - length) for length in lengths]
    for row, length in zip(found.inputs["input_ids"], lengths, strict=True):
        assert (row[:length] > 0).all()
        assert (row[length:] == 0).all()
    assert special_positions(TEXT, found) is None


def test_of_a_single_text_positions_are_known() -> None:
    """[CLS] and [SEP]; it may be cut where its caller allows it."""
    found = prepare(TEXT, Texts(("the cat",), truncate=False))
    assert (found.rows, found.length, found.truncated) == (1, 4, False)
    assert special_positions(TEXT, found) == [0, 3]
    long = " ".join(["cat"] * 9)
    assert prepare(TEXT, Texts((long,), truncate=True)).truncated
    with pytest.raises(InvalidInput, match="text: 11 tokens; expected at most 8"):
        prepare(TEXT, Texts((long,), truncate=False))
    with pytest.raises(InvalidInput, match="text: 101 bytes; expected at most 100"):
        prepare(TEXT, Texts(("x" * 101,), truncate=False))


def test_arrays_have_the_rows_and_positions_that_they_have() -> None:
    """Of a text its tokens, of an image its patches; without a batch axis one of each."""
    ids = np.ones((3, 5), dtype=np.int64)
    found = prepare(TEXT, Tensors({"input_ids": ids, "attention_mask": ids}))
    assert (found.rows, found.length, found.source) == (3, 5, None)
    found = prepare(IMAGE, Tensors({FASHION.inputs[0].name: np.zeros((2, 1, 28, 28), dtype=np.float32)}))
    assert FASHION.patches is not None
    assert (found.rows, found.length) == (2, FASHION.patches.positions)
    alone = CONTRACT.model_copy(
        update={"inputs": (TensorContract(name="x", dtype="float32", axes=(4,)),), "attention": ()}
    )
    found = prepare(make_model(alone), Tensors({"x": np.zeros(4, dtype=np.float32)}))
    assert (found.rows, found.length) == (1, 1)
    batched = alone.model_copy(update={"inputs": (TensorContract(name="x", dtype="float32", axes=("batch", 4)),)})
    found = prepare(make_model(batched), Tensors({"x": np.zeros((3, 4), dtype=np.float32)}))
    assert (found.rows, found.length) == (3, 1)


@pytest.mark.parametrize(
    ("contract", "inputs", "message"),
    [
        (FASHION, Texts(("a",), truncate=False), "text: .* takes no text; expected an image"),
        (
            CONTRACT.model_copy(update={"text": None}),
            Texts(("a",), truncate=False),
            "takes tensors only; expected its own",
        ),
    ],
)
def test_what_a_model_does_not_take_is_refused(contract: Contract, inputs: Texts, message: str) -> None:
    """With what it takes."""
    with pytest.raises(NotPossible, match=message):
        prepare(make_model(contract), inputs)


def test_outputs_are_chosen_once_each() -> None:
    """None means all."""
    assert choose_outputs(TEXT, ()) == tuple(spec.name for spec in CONTRACT.outputs)
    assert choose_outputs(TEXT, ("logits", "embedding", "logits")) == ("logits", "embedding")
    with pytest.raises(InvalidInput, match=r"outputs: 'x'; expected .*, the outputs of tiny-text"):
        choose_outputs(TEXT, ("x",))


def test_how_much_there_is_to_read() -> None:
    """Characters, and bytes."""
    assert Texts(("ab", "c"), truncate=False).size_bytes == 3
    assert Tensors({"x": np.zeros(3, dtype=np.int64)}).size_bytes == 24
