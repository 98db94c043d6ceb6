"""What a request says beside its elements is understood once, and serves all that say the same."""

from typing import Any

import grpc
import numpy as np
import pytest

from server.api.open_inference.computing import head_of, remember
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.open_inference.reading import Reading
from tests.server.api.open_inference.messages import Request, make_bytes_request, make_request, read, tokens_of
from tests.server.conftest import Running


def anew(request: Request) -> Request:
    """The same, of which nothing is remembered."""
    request.parameters["priority"].int64_param = 2
    return request


async def test_others_that_say_the_same_have_their_own_elements_read(stub: GRPCInferenceServiceStub) -> None:
    """Each answer is that of a request that is read whole."""
    tokens = tokens_of()
    backwards = {**tokens, "input_ids": tokens["input_ids"][:, ::-1].copy()}
    shorter = {name: array[:, :4].copy() for name, array in tokens.items()}
    for arrays in (tokens, backwards, shorter, backwards):
        found = read(await stub.ModelInfer(make_request("tiny-text", **arrays)))
        expected = read(await stub.ModelInfer(anew(make_request("tiny-text", **arrays))))
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name])


async def test_nothing_but_elements_is_read_again(alone: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a request that says what one before it said."""
    stub = GRPCInferenceServiceStub(alone.channel)
    declared, declare = list[str](), Reading._declare

    def note(reading: Reading, request: Request, *given: Any, **more: Any) -> Any:
        declared.append(request.model_name)
        return declare(reading, request, *given, **more)

    monkeypatch.setattr(Reading, "_declare", note)
    for _ in range(3):
        await stub.ModelInfer(make_request("tiny-text", **tokens_of()))
    assert declared == ["tiny-text"]


async def test_what_says_something_else_is_understood_by_itself(stub: GRPCInferenceServiceStub) -> None:
    """Outputs, parameters, or the kind of input."""
    plain = read(await stub.ModelInfer(make_request("tiny-text", **tokens_of()))).keys()
    named, asking = (make_request("tiny-text", **tokens_of()) for _ in range(2))
    named.outputs.add(name="logits")
    asking.parameters["attention"].bool_param = True
    assert read(await stub.ModelInfer(named)).keys() == {"logits"}
    assert "attention.0" in read(await stub.ModelInfer(asking))
    assert read(await stub.ModelInfer(make_request("tiny-text", **tokens_of()))).keys() == plain


async def test_elements_are_checked_whoever_said_the_same_before(stub: GRPCInferenceServiceStub) -> None:
    """Their number and their values."""
    good, outside, short = (make_request("tiny-text", **tokens_of()) for _ in range(3))
    await stub.ModelInfer(good)
    outside.raw_input_contents[0] = np.full((1, 6), 10**6).tobytes()
    short.raw_input_contents[0] = bytes(8)
    for request, message in ((outside, "a value of 1000000"), (short, "8 bytes; expected 48")):
        with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
            await stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    await stub.ModelInfer(good)


async def test_elements_are_counted_whoever_said_the_same_before(stub: GRPCInferenceServiceStub) -> None:
    """Each input has its own, and none is left."""
    good, fewer, more = (make_request("tiny-text", **tokens_of()) for _ in range(3))
    await stub.ModelInfer(good)
    del fewer.raw_input_contents[-1]
    more.raw_input_contents.append(bytes(48))
    for request in (fewer, more):
        found, expected = len(request.raw_input_contents), len(request.inputs)
        with pytest.raises(grpc.aio.AioRpcError, match=f"{found} entries; expected {expected}, one for each") as caught:
            await stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def _make(**changes: Any) -> Request:
    request = make_request("tiny-text", **tokens_of())
    for name, value in changes.items():
        setattr(request.inputs[0], name, value)
    return request


def test_a_head_is_all_but_the_id_the_model_and_the_elements() -> None:
    """These are found, and read, for each request."""
    head, other = head_of(_make()), _make()
    other.id, other.model_name, other.raw_input_contents[0] = "8", "another", bytes(48)
    assert head_of(other) == head != ()
    placed, named = _make(), _make()
    placed.inputs[0].parameters["shared_memory_region"].string_param = "region"
    named.outputs.add(name="logits")
    twice = make_request("tiny-text", **tokens_of(5))
    others = [head_of(one) for one in (_make(name="x"), _make(datatype="INT32"), placed, named, twice)]
    assert len({head, *others}) == 6
    assert () not in others


def test_an_input_is_no_output() -> None:
    """Though their bytes are the same."""
    one, other = (Request(raw_input_contents=[b""]) for _ in range(2))
    one.inputs.add(name="x")
    one.outputs.add(name="y")
    other.inputs.add(name="x")
    other.inputs.add(name="y")
    assert head_of(one) != head_of(other)


@pytest.mark.parametrize(
    "request_",
    [
        anew(_make()),
        make_bytes_request("tiny-text", "text", b"typed"),
        Request(inputs=[{"name": "x", "contents": {"int_contents": [1]}}], raw_input_contents=[b""]),
        Request(inputs=[{"name": "x"}] * 17, raw_input_contents=[b""]),
        Request(inputs=[{"name": "x" * 1025}], raw_input_contents=[b""]),
        Request(),
    ],
    ids=["with parameters", "typed contents", "typed beside raw", "many parts", "long", "empty"],
)
def test_what_is_much_has_no_head(request_: Request) -> None:
    """Or is rare: it is read whole."""
    assert head_of(request_) == ()


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    """Callers who always say something else push out all the others."""
    heads: dict[Any, Any] = {}
    for number in range(1000):
        remember(heads, (str(number).encode(),), number)  # type: ignore[arg-type]
        assert len(heads) <= 256
        assert heads[(str(number).encode(),)] == number
