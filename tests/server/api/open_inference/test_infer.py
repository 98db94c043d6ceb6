import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as regard
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.open_inference.shared_memory import SharedMemory
from server.api.open_inference.tensors import read_shapes, read_tensors
from server.api.regard_v1.tensors import read_tensor, write_tensor
from server.errors import InvalidInput
from tests.golden import BARE_ONNX_MODELS, CONSTANT
from tests.server.api.open_inference.messages import (
    DATATYPES,
    Request,
    make_bytes_request,
    make_request,
    read,
    tokens_of,
)
from tests.server.api.reference import TOLERANCE, run_alone, run_graph
from tests.server.conftest import Running, Serve

CLOTHING = Path(__file__).parents[4] / "examples" / "clothing" / "sandal.png"


async def test_an_answer_is_what_regards_own_protocol_gives(stub: GRPCInferenceServiceStub, running: Running) -> None:
    """Every ordinary output, raw, with model, version and the request's id."""
    response = await stub.ModelInfer(make_request("tiny-text", **tokens_of()))
    assert (response.model_name, response.model_version, response.id) == ("tiny-text", "1", "7")
    tensors = {name: write_tensor(array) for name, array in tokens_of().items()}
    own = await running.stub.Predict(api.PredictRequest(model="tiny-text", inputs=tensors))
    found = read(response)
    assert found.keys() == own.outputs.keys()
    for name, tensor in own.outputs.items():
        np.testing.assert_allclose(found[name], read_tensor(name, tensor), atol=TOLERANCE)


async def test_outputs_come_as_asked_and_in_that_order(stub: GRPCInferenceServiceStub) -> None:
    """Each with its raw contents, by position."""
    request = make_request("tiny-text", **tokens_of())
    for name in ("attention.1", "logits", "attention.-2"):
        request.outputs.add(name=name)
    response = await stub.ModelInfer(request)
    assert [output.name for output in response.outputs] == ["attention.1", "logits", "attention.-2"]
    found = read(response)
    assert found["attention.1"].shape == (1, 4, 6, 6)
    np.testing.assert_allclose(found["attention.1"].sum(axis=-1), 1, atol=TOLERANCE)
    assert not np.allclose(found["attention.1"], found["attention.-2"])


async def test_attention_is_asked_for_by_parameters_as_in_regards_own_protocol(
    stub: GRPCInferenceServiceStub, running: Running
) -> None:
    """Layers, heads, rows, mean, float16; beside the ordinary outputs, which cost nothing more."""
    request = make_bytes_request("tiny-text", "text", b"the cat sat on the mat")
    request.parameters["attention_layers"].string_param = "-1"
    request.parameters["attention_heads"].string_param = "1, 3"
    request.parameters["attention_rows"].string_param = "cls"
    request.parameters["attention_dtype"].string_param = "FP16"
    found = read(await stub.ModelInfer(request))
    wanted = regard.AttentionRequest(layers=[-1], heads=[1, 3], cls_only=True, dtype=regard.DATA_TYPE_FLOAT16)
    embed = api.EmbedRequest(model="tiny-text", text="the cat sat on the mat", attention=wanted)
    own = await running.stub.Embed(embed)
    weights = read_tensor("weights", own.attention.layers[0].weights)
    assert found.keys() == {"last_hidden_state", "embedding", "logits", "attention.1"}
    np.testing.assert_array_equal(found["attention.1"][0], weights)
    request.parameters["attention_reduce"].string_param = "mean"
    reduced = read(await stub.ModelInfer(request))["attention.1"]
    np.testing.assert_allclose(reduced[0], weights.astype(np.float32).mean(axis=0), atol=1e-3)


def name_output(request: Request, name: str) -> Request:
    """Ask for an output."""
    request.outputs.add(name=name)
    return request


def ask(request: Request, **parameters: bool | int | float | str) -> None:
    """Set parameters of attention, each of the kind that its value has."""
    kinds: dict[type, str] = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in parameters.items():
        setattr(request.parameters[f"attention_{name}"], kinds[type(value)], value)


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        (
            {"measure": "rollout", "residual_share": 0.25, "reduce": "max", "rows": "cls"},
            {
                "measure": regard.ATTENTION_MEASURE_ROLLOUT,
                "residual_share": 0.25,
                "head_reduction": regard.HEAD_REDUCTION_MAX,
                "cls_only": True,
            },
        ),
        ({"measure": "entropy", "reduce": "min"}, {"measure": regard.ATTENTION_MEASURE_ENTROPY, "head_reduction": 3}),
        ({"measure": "distance", "drop_special": True}, {"measure": 3, "drop_special": True}),
        ({"keys": "1,-1", "renormalize": True}, {"keys": [1, -1], "renormalize": True}),
        ({"statistics": "entropy, sink,induction"}, {"statistics": [1, 7, 12]}),
    ],
)
async def test_measures_are_the_same_by_parameters_as_in_regards_own_protocol(
    stub: GRPCInferenceServiceStub, running: Running, parameters: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """Rollout, entropy, distance, keys: the numbers of regard.v1."""
    request = make_bytes_request("tiny-text", "text", b"the cat sat on the mat")
    ask(request, **parameters)
    embed = api.EmbedRequest(
        model="tiny-text", text="the cat sat on the mat", attention=regard.AttentionRequest(**wanted)
    )
    own = (await running.stub.Embed(embed)).attention.layers
    found = read(await stub.ModelInfer(request))
    names = ["attention.rollout"] if "residual_share" in parameters else ["attention.0", "attention.1"]
    assert [name for name in found if name.startswith("attention")] == names
    for name, layer in zip(names, own, strict=True):
        np.testing.assert_array_equal(found[name][0], read_tensor("weights", layer.weights))


async def test_the_largest_weights_come_in_eight_bits_with_their_keys_and_scale(
    stub: GRPCInferenceServiceStub,
) -> None:
    """Beside attention.1: attention.1.indices, INT32, and attention.1.scale, FP32."""
    request = make_bytes_request("tiny-text", "text", b"the cat sat on the mat")
    ask(request, layers="1", top_k=2, dtype="UINT8")
    found, whole = read(await stub.ModelInfer(request)), run_alone("the cat sat on the mat")["attention.1"]
    values = found["attention.1"] * found["attention.1.scale"]
    np.testing.assert_allclose(values, -np.sort(-whole)[..., :2], atol=float(found["attention.1.scale"][0]))
    np.testing.assert_allclose(
        values,
        np.take_along_axis(whole, found["attention.1.indices"], axis=-1),
        atol=float(found["attention.1.scale"][0]),
    )


async def test_attention_equals_the_graphs_own(stub: GRPCInferenceServiceStub) -> None:
    """All of it, for a text."""
    request = make_bytes_request("tiny-text", "text", b"a dog")
    request.parameters["attention"].bool_param = True
    found, alone = read(await stub.ModelInfer(request)), run_alone("a dog")
    assert found.keys() == alone.keys()
    for name, array in alone.items():
        np.testing.assert_allclose(found[name], array, atol=TOLERANCE)


async def test_texts_and_images_are_taken_as_bytes(stub: GRPCInferenceServiceStub, running: Running) -> None:
    """Several at a time, typed or raw, as Embed takes them."""
    texts = [b"the cat", b"the dog sat on one mat"]
    typed = read(await stub.ModelInfer(make_bytes_request("tiny-text", "text", *texts)))
    raw = Request(model_name="tiny-text")
    raw.inputs.add(name="text", datatype="BYTES", shape=[2, 1])
    raw.raw_input_contents.append(b"".join(struct.pack("<I", len(text)) + text for text in texts))
    np.testing.assert_array_equal(typed["embedding"], read(await stub.ModelInfer(raw))["embedding"])
    for text, vector in zip(texts, typed["embedding"], strict=True):
        own = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text=text.decode()))
        np.testing.assert_allclose(vector, read_tensor("vector", own.vector), atol=TOLERANCE)
    jpeg = io.BytesIO()
    Image.open(CLOTHING).convert("L").save(jpeg, "JPEG")
    logits = read(await stub.ModelInfer(make_bytes_request("fashion", "image", jpeg.getvalue(), CLOTHING.read_bytes())))
    label = await running.stub.Classify(api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes()))
    assert int(logits["logits"][1].argmax()) == label.labels[0].index


async def test_every_type_comes_back_as_it_was_sent(stub: GRPCInferenceServiceStub) -> None:
    """To the last bit."""
    random = np.random.default_rng(0)
    arrays = {f"in_{key}": random.integers(0, 2, (2, 3)).astype(dtype) for key, (_, dtype, _) in DATATYPES.items()}
    response = await stub.ModelInfer(make_request("every-type", **arrays))
    found, datatypes = read(response), {output.name: output.datatype for output in response.outputs}
    for key, (datatype, _, _) in DATATYPES.items():
        assert datatypes[f"out_{key}"] == datatype
        np.testing.assert_array_equal(found[f"out_{key}"], arrays[f"in_{key}"])


@pytest.mark.parametrize(("datatype", "dtype", "field"), [kind for kind in DATATYPES.values() if kind[2]])
def test_typed_contents_are_read_as_raw_ones(datatype: str, dtype: Any, field: str) -> None:
    """Of every type that has a field."""
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    request = Request()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[2, 3])
    getattr(tensor.contents, field).extend(array.reshape(-1).tolist())
    found = read_tensors(request, SharedMemory(10**6), read_shapes(request, 10**6))["x"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_travels_raw_only(datatype: str) -> None:
    """The protocol has no field for it."""
    request = Request()
    request.inputs.add(name="x", datatype=datatype, shape=[1])
    with pytest.raises(InvalidInput, match="expected raw_input_contents"):
        read_tensors(request, SharedMemory(10**6), read_shapes(request, 10**6))


async def test_strings_come_back_as_they_were_sent(stub: GRPCInferenceServiceStub) -> None:
    """As BYTES with their lengths."""
    response = await stub.ModelInfer(make_bytes_request("words", "x", b"one", "zwölf".encode(), b""))
    assert list(response.outputs[0].shape) == [3]
    assert response.raw_output_contents[0] == b"\3\0\0\0one\6\0\0\0zw\xc3\xb6lf\0\0\0\0"


async def test_a_graph_without_a_batch_axis_is_run_as_it_is(stub: GRPCInferenceServiceStub) -> None:
    """Its outputs may be of any shape."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = read(await stub.ModelInfer(make_request("fixed", x=array)))
    np.testing.assert_array_equal(found["y"], array + CONSTANT)
    assert (found["s"].shape, float(found["s"])) == ((), 15.0)


def no_inputs(request: Request) -> None:
    """Leave them out."""
    del request.inputs[:], request.raw_input_contents[:]


def reshape(request: Request, *sizes: int) -> None:
    """Say that both inputs have other sizes."""
    for tensor in request.inputs:
        tensor.shape[:] = sizes


def few_typed(request: Request) -> None:
    """Fewer elements than the shape has."""
    del request.raw_input_contents[:]
    request.inputs[0].contents.int64_contents.extend([1, 2, 3])


def typed_elsewhere(request: Request) -> None:
    """In the field of another datatype."""
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.append(1)


def layers_but_no_attention(request: Request) -> None:
    """Parameters that contradict each other."""
    request.parameters["attention"].bool_param = False
    request.parameters["attention_layers"].int64_param = 0


def lost_region(request: Request) -> None:
    """Shared memory that nobody registered."""
    request.inputs[0].parameters["shared_memory_region"].string_param = "gone"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 48
    request.raw_input_contents.pop()


BAD: dict[str, tuple[Callable[[Request], object], str]] = {
    "no model": (lambda r: r.ClearField("model_name"), "model: empty; expected one of"),
    "an unknown parameter": (lambda r: r.parameters["attention_layer"].SetInParent(), "parameters: 'attention_layer'"),
    "a priority of 4": (lambda r: setattr(r.parameters["priority"], "uint64_param", 4), r"priority\]: 4; expected 1"),
    "a priority as text": (lambda r: setattr(r.parameters["priority"], "string_param", "1"), "string_param '1'"),
    "a negative timeout": (lambda r: setattr(r.parameters["timeout"], "int64_param", -1), r"timeout\]: -1; expected"),
    "attention as text": (lambda r: setattr(r.parameters["attention"], "string_param", "yes"), "a bool_param"),
    "no attention and layers": (
        layers_but_no_attention,
        r"parameters\[attention\]: false; expected true beside attention_layers",
    ),
    "layers in words": (
        lambda r: setattr(r.parameters["attention_layers"], "string_param", "last"),
        r"attention_layers\]: 'last'; expected integers",
    ),
    "a layer that is not there": (
        lambda r: setattr(r.parameters["attention_layers"], "int64_param", 2),
        r"parameters\[attention_layers\]: 2; expected from -2 to 1",
    ),
    "an unknown reduction": (
        lambda r: setattr(r.parameters["attention_reduce"], "string_param", "median"),
        r"attention_reduce\]: 'median'; expected none, mean, max or min",
    ),
    "an unknown statistic": (
        lambda r: ask(r, statistics="entropy,region"),
        r"attention_statistics\]: 'region'; expected some of entropy, distance, first",
    ),
    "a statistic of tokens that nobody knows": (
        lambda r: ask(r, statistics="induction"),
        r"parameters\[attention_statistics\]: ATTENTION_STATISTIC_INDUCTION; expected it for a text",
    ),
    "a rollout of named layers": (
        lambda r: ask(name_output(r, "attention.0"), measure="rollout"),
        r"attention_measure\]: 'rollout'; expected attention_layers instead of outputs",
    ),
    "more inputs than a graph has": (
        lambda r: [r.inputs.add() for _ in range(1025)],
        "inputs: 1027 entries; expected at most 1024",
    ),
    "more outputs than a graph has": (
        lambda r: [r.outputs.add() for _ in range(1025)],
        "outputs: 1025 entries; expected at most 1024",
    ),
    "more contents than inputs": (
        lambda r: r.raw_input_contents.extend([b""] * 1024),
        "raw_input_contents: 1026 entries; expected at most 1024",
    ),
    "more layers than a model has": (
        lambda r: ask(r, layers=",".join(["0"] * 65_537)),
        r"parameters\[attention_layers\]: 65537 entries; expected at most 65536",
    ),
    "rows in words": (
        lambda r: ask(r, rows="class"),
        r"attention_rows\]: 'class'; expected integers separated by commas or \"cls\" or \"all\"",
    ),
    "keys in the words of rows": (
        lambda r: ask(r, keys="cls"),
        r"attention_keys\]: 'cls'; expected integers separated by commas or \"all\"",
    ),
    "a negative top_k": (lambda r: ask(r, top_k=-1), r"attention_top_k\]: -1; expected 0 for all keys"),
    "a share that is no double": (
        lambda r: ask(r, measure="rollout", residual_share="half"),
        r"attention_residual_share\]: string_param 'half'; expected a double_param",
    ),
    "special tokens that nobody knows": (
        lambda r: ask(r, drop_special=True),
        r"parameters\[attention_drop_special\]: true; expected false: only a text or an image",
    ),
    "an unknown output": (lambda r: r.outputs.add(name="nope"), "outputs: 'nope'; expected last_hidden_state, "),
    "an attention output in words": (lambda r: r.outputs.add(name="attention.x"), r"outputs\[attention.x\]: 'x'"),
    "an output twice": (lambda r: [r.outputs.add(name="logits") for _ in range(2)], r"outputs\[logits\]: given twice"),
    "an output parameter": (
        lambda r: setattr(r.outputs.add(name="logits").parameters["classification"], "int64_param", 1),
        r"outputs\[logits\].parameters: 'classification'; expected one of shared_memory_region",
    ),
    "no inputs": (no_inputs, r"inputs\[input_ids\]: missing; expected INT64 \[batch, seq_len\]"),
    "an unknown input": (lambda r: setattr(r.inputs[0], "name", "ids"), "inputs: 'ids'; expected attention_mask and"),
    "an input twice": (lambda r: setattr(r.inputs[1], "name", "input_ids"), r"inputs\[input_ids\]: given twice"),
    "an unknown datatype": (
        lambda r: setattr(r.inputs[0], "datatype", "INT"),
        r"datatype: 'INT'; expected one of BOOL",
    ),
    "another datatype": (lambda r: setattr(r.inputs[0], "datatype", "UINT64"), r"datatype: UINT64; expected INT64"),
    "a negative size": (lambda r: r.inputs[0].shape.__setitem__(0, -1), r"shape: \[-1, 6\]; expected at most 16 sizes"),
    "an overflowing shape": (
        lambda r: reshape(r, 2**62, 2**62),
        "inputs: 4611686018427387904 rows; expected at most 32 ",
    ),
    "nothing of too large a shape": (
        lambda r: reshape(r, 2**63 - 1, 0),
        r"shape: \[9223372036854775807, 0\]; expected a product of at most 2147483648 beside a size of 0",
    ),
    "another shape": (lambda r: reshape(r, 1, 5), r"input_ids\]: 48 bytes; expected 40 for 5 elem"),
    "more rows than it has elements for": (lambda r: reshape(r, 33, 5), "inputs: 33 rows; expected at most 32 "),
    "too few raw contents": (lambda r: r.raw_input_contents.pop(), "raw_input_contents: 1 entries; expected 2"),
    "raw and typed": (lambda r: r.inputs[0].contents.int64_contents.append(1), "contents: given beside raw contents"),
    "too few typed elements": (few_typed, r"contents: 3 elements; expected 6 for the shape \[1, 6\]"),
    "typed in another field": (
        typed_elsewhere,
        "contents: fp32_contents; expected int64_contents alone, for INT64",
    ),
    "a token that is none": (
        lambda r: r.raw_input_contents.__setitem__(0, np.full(6, -1).tobytes()),
        r"inputs\[input_ids\]: a value of -1; expected values from 0",
    ),
    "a region that is not there": (
        lost_region,
        r"inputs\[input_ids\].shared_memory_region: 'gone'; expected a registered region",
    ),
}


@pytest.mark.parametrize(("harm", "message"), BAD.values(), ids=BAD)
async def test_a_malformed_request_is_told_what_is_wrong(
    stub: GRPCInferenceServiceStub, harm: Callable[[Request], object], message: str
) -> None:
    """It names the field, what came and what was expected; the next request is answered."""
    request = make_request("tiny-text", **tokens_of())
    harm(request)
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        await stub.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    await stub.ModelInfer(make_request("tiny-text", **tokens_of()))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (make_bytes_request("tiny-text", "text"), "0 elements; expected 1 to 32"),
        (make_bytes_request("tiny-text", "text", b"\xff"), r"inputs\[text\]\[0\]: byte 0: 0xff; expected UTF-8"),
        (make_bytes_request("fashion", "image", b"no image"), r"inputs\[image\]: 8 bytes that start with"),
        (make_bytes_request("words", "x", b"\xff"), "byte 0: 0xff; expected UTF-8"),
    ],
)
async def test_bytes_that_cannot_be_read_are_refused(
    stub: GRPCInferenceServiceStub, request_: Request, message: str
) -> None:
    """As the model's contract says."""
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        await stub.ModelInfer(request_)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("wrong", [128, -129])
def test_typed_integers_out_of_range_are_refused(wrong: int) -> None:
    """The field is wider than the type."""
    request = Request()
    request.inputs.add(name="x", datatype="INT8", shape=[3]).contents.int_contents.extend([5, wrong, 7])
    with pytest.raises(InvalidInput, match=f"{wrong}; expected values from -128 to 127, for INT8"):
        read_tensors(request, SharedMemory(10**6), read_shapes(request, 10**6))


def test_typed_contents_longer_than_a_slice_are_whole() -> None:
    """They are made into arrays a slice at a time."""
    values = np.arange(40_000) * 10**6
    request = Request()
    request.inputs.add(name="x", datatype="INT64", shape=[40_000]).contents.int64_contents.extend(values.tolist())
    np.testing.assert_array_equal(read_tensors(request, SharedMemory(10**6), read_shapes(request, 10**6))["x"], values)


async def test_elements_of_bytes_are_bounded_by_what_is_said_of_them(start: Serve) -> None:
    """Of a model that takes any number of them; raw contents could have millions of nothing."""
    request = Request(model_name="words", raw_input_contents=[bytes(12_000)])
    request.inputs.add(name="x", datatype="BYTES", shape=[3000, 1])
    async with start(models=BARE_ONNX_MODELS, max_message_fields=2999) as running:
        with pytest.raises(grpc.aio.AioRpcError, match=r"shape: .*; expected at most 2999 elements of BYTES in a req"):
            await GRPCInferenceServiceStub(running.channel).ModelInfer(request)


def test_elements_of_bytes_are_added_up_over_the_inputs() -> None:
    """Those of other types are not."""
    request = Request()
    for name in ("x", "y"):
        request.inputs.add(name=name, datatype="BYTES", shape=[1500])
    request.inputs.add(name="z", datatype="FP32", shape=[9000])
    assert read_shapes(request, 3000)["y"].shape == (1500,)
    with pytest.raises(InvalidInput, match=r"inputs\[y\].shape: .*; expected at most 2999 elements of BYTES"):
        read_shapes(request, 2999)


async def test_a_request_without_rows_is_refused(stub: GRPCInferenceServiceStub) -> None:
    """By a graph without a contract, too."""
    with pytest.raises(grpc.aio.AioRpcError, match="inputs: no rows; expected at least one"):
        await stub.ModelInfer(make_request("free", x=np.zeros((0, 2), np.float32)))


async def test_equal_pointers_are_not_equal_strings(start: Serve) -> None:
    """The answer cache knows strings and bfloat16 by what they say."""
    async with start(cache_bytes=10**6) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        for number in range(300):
            answer = await stub.ModelInfer(make_bytes_request("words", "x", b"text number %d" % number))
            assert answer.raw_output_contents[0].endswith(b"text number %d" % number)
        arrays = {f"in_{key}": np.ones((1, 3)).astype(dtype) for key, (_, dtype, _) in DATATYPES.items()}
        assert (await stub.ModelInfer(make_request("every-type", **arrays))).outputs


async def test_an_answer_too_large_for_a_stream_is_its_own_error(start: Serve) -> None:
    """The others are answered; outputs alone are told before they are computed, with attention when it is written."""
    async with start(max_message_bytes=6000) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        larger, large, small = (make_request("tiny-text", **tokens_of(count)) for count in (60, 42, 4))
        larger.id, large.id, small.id = "larger", "large", "small"
        ask(large, layers="0", rows="0", reduce="mean")
        requests = iter([larger, large, small])
        answers = {one.infer_response.id: one.error_message async for one in stub.ModelStreamInfer(requests)}
        assert not answers["small"]
        assert answers["larger"].startswith("outputs: an answer of 7816 bytes")
        assert "too large (the server's --max-message-bytes)" in answers["large"]


async def test_broken_lengths_of_bytes_are_refused(stub: GRPCInferenceServiceStub) -> None:
    """An element that ends after the contents, or one too many."""
    request = Request(model_name="words", raw_input_contents=[b"\5\0\0\0abc"])
    request.inputs.add(name="x", datatype="BYTES", shape=[1])
    with pytest.raises(grpc.aio.AioRpcError, match="element 0 ends after the 7 bytes"):
        await stub.ModelInfer(request)
    request.raw_input_contents[0] = b"\0\0\0\0" * 2
    with pytest.raises(grpc.aio.AioRpcError, match="2 elements; expected 1 for its shape"):
        await stub.ModelInfer(request)


async def test_a_deadline_and_a_timeout_reach_the_scheduler(start: Serve) -> None:
    """One that cannot be met is refused, in either way."""
    async with start() as running:
        stub = GRPCInferenceServiceStub(running.channel)
        request = make_request("tiny-text", **tokens_of())
        request.parameters["timeout"].int64_param = 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        request.parameters["timeout"].int64_param = 60_000_000
        request.parameters["priority"].uint64_param = 1
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        assert (await stub.ModelInfer(request)).id == "7"


async def test_a_stream_answers_each_request_and_an_error_is_its_own(stub: GRPCInferenceServiceStub) -> None:
    """With the id; in whatever order they are ready."""
    bad = make_request("tiny-text", **tokens_of())
    bad.inputs[0].name = "nope"
    bad.id = "bad"
    good = [make_request("tiny-text", **tokens_of(count)) for count in (3, 9, 5)]
    for index, request in enumerate(good):
        request.id = str(index)
    call = stub.ModelStreamInfer(iter([good[0], bad, *good[1:]]))
    answers = {answer.infer_response.id: answer async for answer in call}
    assert answers.keys() == {"0", "1", "2", "bad"}
    assert answers["bad"].error_message.startswith("inputs: 'nope'")
    for index, length in enumerate((3, 9, 5)):
        assert not answers[str(index)].error_message
        assert read(answers[str(index)].infer_response)["last_hidden_state"].shape[:2] == (1, length)


async def test_contributions_are_a_measure_like_the_others(stub: GRPCInferenceServiceStub) -> None:
    """By parameter; over all layers they are attention.rollout."""
    request = make_bytes_request("tiny-text", "text", b"a good film")
    ask(request, measure="contribution", layers="0")
    graph = run_graph("a good film", "contributions.onnx")
    found = read(await stub.ModelInfer(request))
    np.testing.assert_allclose(found["attention.0"], graph["contributions.0"], rtol=1e-4)
    request = make_bytes_request("tiny-text", "text", b"a good film")
    ask(request, measure="contribution_rollout")
    np.testing.assert_allclose(
        read(await stub.ModelInfer(request))["attention.rollout"].sum(axis=-1), 1, atol=TOLERANCE
    )
