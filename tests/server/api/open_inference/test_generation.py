"""Texts that are written, through the Open Inference Protocol: a response a token, and one of the whole."""

import asyncio
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.errors import NotPossible
from server.generation.request import GeneratedText, GenerationRequest, Sampling
from tests.server.api.generator import LAST, FakeGenerator, fields_of, whole
from tests.server.api.open_inference.messages import make_bytes_request, make_request, words
from tests.server.api.open_inference.writing import asked, read, stream
from tests.server.asking import CODES, refused
from tests.server.conftest import Running, Serve, link_models
from tests.server.generation.fakes import END

TOKEN = {"token", "text_piece", "log_probability"}
RESULT = {"generated_text", "total_log_probability", "finish_reason"}


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of few models, since some tests start a server."""
    return link_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def stub(writing: Running) -> GRPCInferenceServiceStub:
    """It, asked through the protocol."""
    return GRPCInferenceServiceStub(writing.channel)


async def test_a_token_is_a_response_and_the_last_has_the_whole(stub: GRPCInferenceServiceStub) -> None:
    """Which alone says that it is final; all have the request's id."""
    answers = [answer.infer_response for answer in await stream(stub, asked())]
    assert [answer.parameters["triton_final_response"].bool_param for answer in answers] == [False, False, True]
    assert {answer.id for answer in answers} == {"8"}
    first, last, end = map(read, answers)
    assert first == {"token": [3], "text_piece": ["c"], "log_probability": [-0.5]}
    assert last == {"token": [END], "text_piece": [""], "log_probability": [-0.25]}
    assert end == {"generated_text": ["c"], "total_log_probability": [-0.75], "finish_reason": ["end"]}


async def test_all_of_it_is_one_response_of_modelinfer(
    stub: GRPCInferenceServiceStub, generator: FakeGenerator
) -> None:
    """With the tokens of the best; of several beams so in a stream, too."""
    generator.tokens = ()
    generator.results = (whole(), GeneratedText((LAST,), "", -2.0, "length"))
    expected = {
        "token": [3, END],
        "text_piece": ["c", ""],
        "log_probability": [-0.5, -0.25],
        "generated_text": ["c", ""],
        "total_log_probability": [-0.75, -2.0],
        "finish_reason": ["end", "length"],
    }
    request = asked(num_beams=2, num_results=2)
    assert read(await stub.ModelInfer(request)) == expected
    (answer,) = await stream(stub, request)
    assert read(answer.infer_response) == expected
    assert answer.infer_response.parameters["triton_final_response"].bool_param
    assert [streams for _, _, streams in generator.requests] == [False, True]


@pytest.mark.parametrize("names", [["tokens"], ["token", "logits"]])
async def test_an_unknown_output_beside_a_text_is_told_what_there_is(
    names: list[str], stub: GRPCInferenceServiceStub
) -> None:
    """Of the graph, or else of the text that is written."""
    request = asked()
    for name in names:
        request.outputs.add(name=name)
    message = (
        rf"outputs: '{names[0]}'; expected .*logits.*, the outputs of tiny-text; or, with none of these, token, "
        "text_piece, log_probability, generated_text, total_log_probability, finish_reason of the text that it writes"
    )
    assert await refused(stub.ModelInfer(request), message) == CODES.INVALID_ARGUMENT


async def test_outputs_are_chosen_by_name(stub: GRPCInferenceServiceStub) -> None:
    """As many responses come."""
    request = asked()
    for name in ("finish_reason", "text_piece"):
        request.outputs.add(name=name)
    answers = [read(answer.infer_response) for answer in await stream(stub, request)]
    assert answers == [{"text_piece": ["c"]}, {"text_piece": [""]}, {"finish_reason": ["end"]}]


async def test_parameters_are_those_of_regard_v1(stub: GRPCInferenceServiceStub, generator: FakeGenerator) -> None:
    """Each; any of those of sampling draws."""
    fields: dict[str, Any] = {"start": "three", "max_tokens": 7, "num_beams": 4, "num_results": 2}
    fields |= {"length_penalty": 0.5, "stop": "x", "target": "K", "truncate": True}
    await stub.ModelInfer(asked(temperature=0.5, top_k=3, top_p=0.75, seed=9, priority=1, timeout=60_000_000, **fields))
    await stub.ModelInfer(asked(seed=0))
    await stub.ModelInfer(asked(triton_enable_empty_final_response=True))
    (found, context, _), (drawn, _, _), (plain, _, _) = generator.requests
    expected = GenerationRequest(
        found.model,
        "the cat",
        truncate=True,
        start="three",
        max_tokens=7,
        num_beams=4,
        num_results=2,
        length_penalty=0.5,
        sampling=Sampling(0.5, 3, 0.75, 9),
        stop=("x",),
        target="K",
        attention={},
    )
    assert fields_of(found) == fields_of(expected)
    assert (context.priority, context.deadline is not None) == (1, True)
    assert drawn.sampling == Sampling(seed=0)
    assert fields_of(plain) == fields_of(GenerationRequest(plain.model, "the cat", attention={}))


async def test_a_token_is_sent_when_it_is_there_and_others_are_answered_meanwhile(
    stub: GRPCInferenceServiceStub, generator: FakeGenerator
) -> None:
    """The stream of one text does not hold up other requests of the stream."""
    generator.gate = asyncio.Semaphore(1)
    other = make_request("tiny-text", **words(2, 3))
    other.id = "other"
    call = stub.ModelStreamInfer(iter([asked(), other]))
    found = {(await call.read()).infer_response.id for _ in range(2)}
    assert found == {"8", "other"}
    generator.gate.release()
    assert read((await call.read()).infer_response)["token"] == [END]


async def test_who_hangs_up_wants_nothing_more(stub: GRPCInferenceServiceStub, generator: FakeGenerator) -> None:
    """The generator is told between two tokens."""
    generator.gate = asyncio.Semaphore(1)
    call = stub.ModelStreamInfer(iter([asked()]))
    await call.read()
    call.cancel()
    await asyncio.wait_for(generator.closed.wait(), 30)


async def test_an_error_ends_one_text(stub: GRPCInferenceServiceStub, generator: FakeGenerator) -> None:
    """Behind its tokens, with its id."""
    generator.error = NotPossible("no more")
    answers = await stream(stub, asked())
    assert [answer.error_message for answer in answers] == ["", "", "no more"]
    assert answers[-1].infer_response.id == "8"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"attention": True}, r"parameters\[attention\]: bool_param True; expected none beside a text that is written"),
        ({"prompt": "query"}, r"parameters\[prompt\]: .* expected none beside a text that is written"),
        ({"top_k": "3"}, r"parameters\[top_k\]: .* expected an int64_param or uint64_param"),
        ({"temperature": "hot"}, r"parameters\[temperature\]: string_param 'hot'; expected a double_param"),
        ({"max_token": 3}, r"parameters: 'max_token'; expected one of"),
    ],
)
async def test_parameters_that_cannot_be_used_are_refused(
    stub: GRPCInferenceServiceStub, parameters: dict[str, Any], message: str
) -> None:
    """By name."""
    assert await refused(stub.ModelInfer(asked(**parameters)), message) == CODES.INVALID_ARGUMENT


async def test_several_texts_are_refused(stub: GRPCInferenceServiceStub) -> None:
    """As are numbers in their place, and outputs in shared memory."""
    several = make_bytes_request("tiny-text", "text", b"a", b"b")
    assert await refused(stub.ModelInfer(several), r"inputs\[text\]: 2 elements; expected 1") == CODES.INVALID_ARGUMENT
    numbers = make_request("tiny-text", text=np.zeros((1, 1), np.int64))
    assert await refused(stub.ModelInfer(numbers), r"text") == CODES.INVALID_ARGUMENT
    request = asked()
    place = request.outputs.add(name="token").parameters
    place["shared_memory_region"].string_param, place["shared_memory_byte_size"].int64_param = "there", 4
    code = await refused(stub.ModelInfer(request), r"outputs\[token\]: in shared memory; expected in the answer")
    assert code == CODES.INVALID_ARGUMENT


async def test_the_graph_still_answers_who_names_its_outputs_or_brings_tensors(stub: GRPCInferenceServiceStub) -> None:
    """Of a model that writes; parameters of a text are refused there, as by models that do not write."""
    request = asked()
    request.outputs.add(name="embedding")
    assert [output.name for output in (await stub.ModelInfer(request)).outputs] == ["embedding"]
    assert (await stub.ModelInfer(make_request("tiny-text", **words(2, 3)))).outputs[0].name != "token"
    request.parameters["max_tokens"].int64_param = 3
    message = r"parameters\[max_tokens\]: int64_param 3; expected none: it is of a text that a model writes"
    assert await refused(stub.ModelInfer(request), message) == CODES.INVALID_ARGUMENT
    image = make_bytes_request("fashion", "image", b"no image")
    image.parameters["temperature"].double_param = 0.5
    assert await refused(stub.ModelInfer(image), r"parameters\[temperature\]") == CODES.INVALID_ARGUMENT


async def test_a_model_that_writes_is_decoupled(stub: GRPCInferenceServiceStub) -> None:
    """Its outputs are listed behind those of the graph; other models have neither."""
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="tiny-text"))).config
    assert config.model_transaction_policy.decoupled
    listed = {output.name: (list(output.dims), output.data_type) for output in config.output}
    assert listed["text_piece"] == ([-1], pb.DataType.TYPE_STRING)
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny-text"))
    tensors = {output.name: (output.datatype, list(output.shape)) for output in metadata.outputs}
    assert tensors["token"] == ("INT32", [-1, -1])
    assert tensors.keys() > TOKEN | RESULT
    other = (await stub.ModelConfig(pb.ModelConfigRequest(name="fashion"))).config
    assert not other.model_transaction_policy.decoupled
    assert not {output.name for output in other.output} & (TOKEN | RESULT)


_TRITON = """
import queue, sys
import numpy as np
import tritonclient.grpc as triton

answers = queue.Queue()
with triton.InferenceServerClient(sys.argv[1]) as client:
    assert client.get_model_config("tiny-text").config.model_transaction_policy.decoupled
    client.start_stream(lambda result, error: answers.put((result, error)))
    text = triton.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"the cat"], dtype=object))
    client.async_stream_infer(
        "tiny-text", [text], request_id="9", parameters={"max_tokens": 5}, enable_empty_final_response=True
    )
    pieces, is_final = [], False
    while not is_final:
        result, error = answers.get(timeout=30)
        assert error is None, error
        is_final = result.get_response().parameters["triton_final_response"].bool_param
        piece = result.as_numpy("text_piece")
        pieces += [] if piece is None else [piece[0, 0].decode()]
    print(pieces, result.as_numpy("generated_text").tolist())
"""


@pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient is not installed")
async def test_tritonclient_reads_a_text_as_it_is_written(writing: Running, generator: FakeGenerator) -> None:
    """Unchanged, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", _TRITON, writing.started.address]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "['c', ''] [[b'c']]\n", done.stderr
    assert generator.requests[0][0].max_tokens == 5


async def test_texts_of_a_stream_count_as_requests_while_they_are_written(
    generator: FakeGenerator, start: Serve
) -> None:
    """Though some of their tokens are sent: two may be in the server, and a third is refused."""
    generator.gate, generator.tokens = asyncio.Semaphore(2), generator.tokens * 5
    async with start(max_queue_size=1, max_batch_size=1) as running:
        call = GRPCInferenceServiceStub(running.channel).ModelStreamInfer()
        for _ in range(2):
            await call.write(asked())
            assert not (await call.read()).error_message
        await call.write(asked())
        assert "--max-queue-size" in (await asyncio.wait_for(call.read(), 30)).error_message
        left = 2 * len(generator.tokens) - 2
        for _ in range(left):
            generator.gate.release()
        assert not any([(await call.read()).error_message for _ in range(left + 2)])
        await call.done_writing()
