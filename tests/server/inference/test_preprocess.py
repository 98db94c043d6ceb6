"""Texts and images of callers as inputs for the graphs."""

import io

import numpy as np
import pytest
from PIL import Image

from artifact.contract import Contract, ImageContract, PatchContract, TensorContract, read_contract
from artifact.images import ImageLimits
from artifact.text import TextReader
from server.config import EMBEDDED_MODELS
from server.errors import InvalidInput, NotPossible
from server.inference.preprocess import InputLimits, choose_outputs, preprocess, special_positions
from server.inference.request import Images, InferenceRequest, PreparedInput, Tensors, Texts
from tests.golden import GOLDEN_MODELS
from tests.server.fakes import CONTRACT, make_model

LIMITS = InputLimits(rows=8, text_bytes=100, image=ImageLimits(1000))
TEXT = make_model(CONTRACT, TextReader(GOLDEN_MODELS / "tiny-text" / "1" / "tokenizer.json", 8))
FASHION = read_contract(EMBEDDED_MODELS / "fashion" / "1" / "contract.json")
IMAGE = make_model(FASHION)


def prepare(model: object, inputs: Texts | Images | Tensors) -> PreparedInput:
    """Preprocess what somebody sent."""
    return preprocess(InferenceRequest(model, inputs, ()), LIMITS)  # type: ignore[arg-type]


def picture(grey: int, edge: int = 28) -> bytes:
    """A PNG file of one colour."""
    file = io.BytesIO()
    Image.new("L", (edge, edge), grey).save(file, "PNG")
    return file.getvalue()


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


def test_images_are_the_rows_of_the_first_input() -> None:
    """In their order; each has the positions of the model's patches."""
    contract = FASHION.model_copy(update={"inputs": (*FASHION.inputs, CONTRACT.inputs[0])})
    one, two = (prepare(make_model(contract), Images(tuple(map(picture, greys)))) for greys in ((10,), (10, 200)))
    ((name, pixels),) = two.inputs.items()
    assert name == FASHION.inputs[0].name
    assert pixels.shape == (2, 1, 28, 28)
    assert pixels[0].mean() < pixels[1].mean()
    np.testing.assert_array_equal(one.inputs[name], pixels[:1])
    assert FASHION.patches is not None
    assert (one.length, two.length) == (FASHION.patches.positions, FASHION.patches.positions)
    assert one.source is not None
    assert two.source is None
    assert special_positions(IMAGE, one) == range(1)
    with pytest.raises(
        InvalidInput, match=r"^image: 32 x 32 pixels; expected at most 1000 pixels \(the server's --max-image-pixels\)$"
    ):
        prepare(IMAGE, Images((picture(0, 32),)))


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


PATCHES = PatchContract(prefix_tokens=0, rows=2, cols=2, patch_size=2)
PIXELS = ImageContract(crop_size=4, mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize(
    ("contract", "inputs", "message"),
    [
        (FASHION, Texts(("a",), truncate=False), "text: .* takes no text; expected an image"),
        (
            CONTRACT.model_copy(update={"text": None}),
            Texts(("a",), truncate=False),
            "takes tensors only; expected its own",
        ),
        (CONTRACT, Images((b"",)), "image: .* takes no images; expected a text"),
        (CONTRACT.model_copy(update={"text": None}), Images((b"",)), "takes tensors only; expected its own inputs"),
        (CONTRACT.model_copy(update={"patches": PATCHES}), Images((b"",)), "takes no images; expected a text"),
        (CONTRACT.model_copy(update={"image": PIXELS}), Images((b"",)), "takes no images; expected a text"),
    ],
)
def test_what_a_model_does_not_take_is_refused(contract: Contract, inputs: Texts | Images, message: str) -> None:
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
    """Images take long whatever their size."""
    assert Texts(("ab", "c"), truncate=False).size_bytes == 3
    assert Images((b"", b"")).size_bytes == float("inf")
    assert Tensors({"x": np.zeros(3, dtype=np.int64)}).size_bytes == 24
