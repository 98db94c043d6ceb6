"""Vectors cut and rounded through both protocols; equal to numpy's of the whole vector."""

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from artifact.contract import CONTRACT_FILE, EmbeddingContract
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference import open_inference_pb2 as pb2
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.messages import fill_each
from server.api.regard_v1.tensors import read_tensor
from server.api.regard_v1.vectors import Wanted, fill_vector
from server.config import EMBEDDED_MODELS
from server.context import Timings
from server.inference.request import ManyResponses
from server.inference.sparse import SparseRequest
from server.inference.vectors import VectorRequest
from server.repository.loading import LoadedModel
from tests.golden import GOLDEN_MODELS
from tests.server.api.open_inference.messages import Request, make_bytes_request, read
from tests.server.api.reference import TOLERANCE
from tests.server.asking import CODES, refused
from tests.server.conftest import Running, Serve

CLOTHING = Path(__file__).parents[3] / "examples" / "clothing"
TEXT, TEXTS = "the cat sat on the mat", ("a dog", "the cat sat on the mat", "one bad film")
INT8, BINARY, FLOAT16 = api.VECTOR_FORMAT_INT8, api.VECTOR_FORMAT_BINARY, api.VECTOR_FORMAT_FLOAT16


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vectors may be cut, and one whose vectors may not."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny-text").symlink_to(GOLDEN_MODELS / "tiny-text")
    shutil.copytree(GOLDEN_MODELS / "tiny-text", folder / "cut")
    file = folder / "cut" / "1" / CONTRACT_FILE
    contract = json.loads(file.read_text())
    contract["name"], contract["embedding"]["matryoshka_dims"] = "cut", [8, 12]
    file.write_text(json.dumps(contract))
    (folder / "fashion").symlink_to(EMBEDDED_MODELS / "fashion")
    return folder


@pytest.fixture
def stub(running: Running) -> GRPCInferenceServiceStub:
    """The server, asked through the Open Inference Protocol."""
    return GRPCInferenceServiceStub(running.channel)


def embed(text: str = TEXT, **fields: Any) -> api.EmbedRequest:
    """A call of a text."""
    return api.EmbedRequest(**{"model": "cut", "text": text} | fields)


async def whole(running: Running, text: str = TEXT) -> Any:
    """The vector as the network gives it."""
    return read_tensor("vector", (await running.stub.Embed(embed(text))).vector)


def shorten(vector: Any) -> Any:
    """The first eight numbers, of length 1."""
    return vector[:8] / np.linalg.norm(vector[:8])


async def test_a_vector_is_cut_and_rounded_as_it_is_asked_for(running: Running) -> None:
    """Each format, beside attention as well."""
    vector = await whole(running)
    cut = await running.stub.Embed(embed(dimensions=8, attention=pb.AttentionRequest(layers=[0])))
    np.testing.assert_allclose(read_tensor("v", cut.vector), shorten(vector), atol=TOLERANCE)
    assert len(cut.attention.layers) == 1 and not cut.vector_scale
    half = await running.stub.Embed(embed(vector_format=FLOAT16))
    assert half.vector.dtype == pb.DATA_TYPE_FLOAT16
    np.testing.assert_allclose(read_tensor("v", half.vector), vector, atol=1e-3)
    small = await running.stub.Embed(embed(dimensions=8, vector_format=INT8))
    found = read_tensor("v", small.vector)
    assert found.dtype == np.int8 and found.shape == (8,)
    np.testing.assert_allclose(found * small.vector_scale, shorten(vector), atol=small.vector_scale)
    bits = read_tensor("v", (await running.stub.Embed(embed(vector_format=BINARY))).vector)
    np.testing.assert_array_equal(bits, np.packbits(vector > 0))


async def test_each_of_many_has_its_own(running: Running) -> None:
    """With its own scale; one that is refused has its error."""
    request = api.EmbedRequest(model="cut", texts=pb.Texts(items=[*TEXTS, ""]), dimensions=8, vector_format=INT8)
    answer = await running.stub.Embed(request)
    for text, result in zip(TEXTS, answer.results, strict=False):
        found = read_tensor("v", result.vector) * result.vector_scale
        np.testing.assert_allclose(found, shorten(await whole(running, text)), atol=result.vector_scale)
    assert answer.results[3].error.message.startswith("texts[3]: empty")


def test_a_vector_that_does_not_fit_is_the_error_of_its_input() -> None:
    """The others are written."""
    contract = SimpleNamespace(embedding=EmbeddingContract(output="embedding", dim=2, normalized=False), late=None)
    each = [
        SimpleNamespace(
            outputs={"embedding": np.array([[1, number]], np.float32)},
            prepared=SimpleNamespace(truncated=False, num_tokens=4),
            model=SimpleNamespace(contract=contract),
            plan=None,
        )
        for number in (2.0, 1e5, 3.0)
    ]
    answer, found = api.EmbedResponse(), ManyResponses(cast("LoadedModel", None), cast("list[Any]", each), Timings())
    fill = partial(fill_vector, wanted=Wanted(VectorRequest(0, "float16"), SparseRequest()))
    fill_each(found, "texts", answer.results.add, fill)
    assert [one.HasField("error") for one in answer.results] == [False, True, False]
    assert answer.results[1].error.message == (
        "texts[1]: vector_format: float16; expected float32, as the vector has a number that is beyond it"
    )
    assert not answer.results[1].HasField("vector")
    assert [str(error) for error in found.errors] == [answer.results[1].error.message.removeprefix("texts[1]: ")]
    assert read_tensor("v", answer.results[2].vector).tolist() == [1, 3]


async def test_images_and_hidden_states_are_no_exception(running: Running) -> None:
    """An image of several has bits of its vector; hidden states beside a cut vector are whole."""
    files = [path.read_bytes() for path in sorted(CLOTHING.glob("*.png"))[:2]]
    images = pb.Images(items=files)
    answer = await running.stub.Embed(api.EmbedRequest(model="fashion", images=images, vector_format=BINARY))
    plain = await running.stub.Embed(api.EmbedRequest(model="fashion", images=images))
    for result, whole_one in zip(answer.results, plain.results, strict=True):
        expected = np.packbits(read_tensor("v", whole_one.vector) > 0)
        np.testing.assert_array_equal(read_tensor("v", result.vector), expected)
    states = pb.HiddenStatesRequest(layers=[-1], pooling=pb.HIDDEN_STATES_POOLING_CLS)
    cut = await running.stub.Embed(embed(dimensions=8, hidden_states=states))
    assert (list(cut.vector.shape), list(cut.hidden_states.layers[0].values.shape)) == ([8], [32])


async def test_answers_that_are_kept_are_of_the_whole_vector(start: Serve) -> None:
    """So that it is computed once for all formats."""
    async with start(cache_bytes=10**6) as server:
        vector = await whole(server)
        cut = read_tensor("v", (await server.stub.Embed(embed(dimensions=8))).vector)
        np.testing.assert_allclose(cut, shorten(vector), atol=TOLERANCE)
        answer = await server.stub.Embed(embed())
        np.testing.assert_array_equal(read_tensor("v", answer.vector), vector)
        assert answer.timings.compute_ns == 0


async def test_what_cannot_be_had_is_refused(running: Running) -> None:
    """With the field, its value and what was expected."""
    stub = running.stub
    expected = "dimensions: 8 of the vectors of tiny-text; expected all"
    assert await refused(stub.Embed(embed(model="tiny-text", dimensions=8)), expected) == CODES.FAILED_PRECONDITION
    assert await refused(
        stub.Embed(embed(dimensions=9)), r"dimensions: 9; expected 0 for all, or one of 8, 12, \d+"
    ) == (CODES.INVALID_ARGUMENT)
    assert await refused(stub.Embed(embed(dimensions=-8)), "dimensions: -8; expected 0") == CODES.INVALID_ARGUMENT
    unknown = embed(vector_format=9)
    assert await refused(stub.Embed(unknown), "vector_format: 9; expected one of the values of VectorFormat") == (
        CODES.INVALID_ARGUMENT
    )


async def test_an_answer_is_as_large_as_what_is_sent(start: Serve) -> None:
    """Bits of many vectors fit where their floats do not, by both protocols."""
    texts = ["a"] * 30  # 3840 bytes of float32, 120 of bits
    many = pb.Texts(items=texts)
    async with start(max_message_bytes=4000) as server:  # of which 3750 for the answer
        stub = GRPCInferenceServiceStub(server.channel)
        found = await server.stub.Embed(api.EmbedRequest(model="cut", texts=many, vector_format=BINARY))
        assert len(found.results) == 30
        await server.stub.Embed(api.EmbedRequest(model="cut", texts=many, dimensions=8, vector_format=FLOAT16))
        whole = api.EmbedRequest(model="cut", texts=many)
        match = "outputs: an answer of .* bytes for 30 inputs; expected at most 3750"
        assert await refused(server.stub.Embed(whole), match) == CODES.INVALID_ARGUMENT
        bits, floats = infer("cut", *texts, vector_format="BINARY"), infer("cut", *texts)
        for request in (bits, floats):
            request.outputs.add(name="embedding")
        assert read(await stub.ModelInfer(bits))["embedding"].shape == (30, 4)
        match = "outputs: an answer of 3840 bytes; expected at most"
        assert await refused(stub.ModelInfer(floats), match) == CODES.INVALID_ARGUMENT


async def test_models_say_how_their_vectors_may_be_cut(running: Running) -> None:
    """And those of others may not."""
    listed = {model.name: model for model in (await running.stub.ListModels(api.ListModelsRequest())).models}
    assert {name: list(model.matryoshka_dims) for name, model in listed.items()} == {
        "cut": [8, 12],
        "tiny-text": [],
        "fashion": [],
    }


def infer(model: str = "cut", *texts: str, **parameters: str | int) -> Request:
    """Texts of the Open Inference Protocol, with parameters."""
    request = make_bytes_request(model, "text", *(text.encode() for text in texts or TEXTS))
    for name, value in parameters.items():
        if isinstance(value, int):
            request.parameters[name].int64_param = value
        else:
            request.parameters[name].string_param = value
    return request


async def test_the_open_inference_protocol_does_the_same(running: Running, stub: GRPCInferenceServiceStub) -> None:
    """By parameters, for every row; the outputs beside it stay."""
    vectors = np.stack([await whole(running, text) for text in TEXTS])
    cut = read(await stub.ModelInfer(infer(vector_dimensions=8)))
    np.testing.assert_allclose(cut["embedding"], [shorten(vector) for vector in vectors], atol=TOLERANCE)
    assert len(cut["logits"]) == 3
    small = read(await stub.ModelInfer(infer(vector_format="INT8")))
    assert small["embedding"].dtype == np.int8 and small["embedding.scale"].shape == (3,)
    steps = small["embedding.scale"][:, np.newaxis]
    assert (np.abs(small["embedding"] * steps - vectors) <= steps).all()
    bits = read(await stub.ModelInfer(infer(vector_format="BINARY")))["embedding"]
    np.testing.assert_array_equal(bits, np.packbits(vectors > 0, axis=1))


async def test_the_open_inference_protocol_refuses_the_same(stub: GRPCInferenceServiceStub) -> None:
    """In the words of its own fields."""
    call = stub.ModelInfer(infer("tiny-text", vector_dimensions=8))
    match = r"parameters\[vector_dimensions\]: 8 of the vectors of tiny-text; expected all"
    assert await refused(call, match) == CODES.FAILED_PRECONDITION
    match = r"parameters\[vector_format\]: 'INT4'; expected FP32, FP16, INT8 or BINARY"
    assert await refused(stub.ModelInfer(infer(vector_format="INT4")), match) == CODES.INVALID_ARGUMENT
    odd = infer(vector_format="BINARY", vector_dimensions=12)
    match = r"parameters\[vector_format\]: BINARY; expected a multiple of 8 dimensions, not 4 more"
    assert await refused(stub.ModelInfer(odd), match) == CODES.INVALID_ARGUMENT
    by_format, by_size = infer(vector_format="INT8"), infer(vector_dimensions=8)
    for parameter, without in (("vector_format", by_format), ("vector_dimensions", by_size)):
        without.outputs.add(name="logits")
        match = rf"outputs: \['logits'\]; expected embedding among them, beside {parameter}"
        assert await refused(stub.ModelInfer(without), match) == CODES.INVALID_ARGUMENT


async def test_the_open_inference_protocol_says_the_sizes(stub: GRPCInferenceServiceStub) -> None:
    """Where there are some; the output's own shape is that of the whole vector."""
    for name, told in (("cut", "8,12"), ("tiny-text", None)):
        parameters = (await stub.ModelConfig(pb2.ModelConfigRequest(name=name))).config.parameters
        assert (parameters["matryoshka_dims"].string_value if "matryoshka_dims" in parameters else None) == told
