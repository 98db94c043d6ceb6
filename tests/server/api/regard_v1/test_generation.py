"""Texts that are written, through regard.v1: what the generator is asked, and what its events become."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.tensors import read_tensor
from server.attention.request import AttentionRequest
from server.errors import TooBusy
from server.generation.request import FinishReason, GeneratedText, GenerationRequest, Sampling, StepAttention
from tests.server.api.generator import CROSS, FIRST, LAST, MEAN, FakeGenerator, fields_of, whole
from tests.server.asking import refused
from tests.server.conftest import Running, Serve
from tests.server.generation.fakes import END


def asked(**fields: Any) -> api.GenerateRequest:
    """A request for a text."""
    return api.GenerateRequest(model="tiny-text", text="the cat", **fields)


async def stream(running: Running, request: api.GenerateRequest) -> list[api.GenerateResponse]:
    """All messages of a stream."""
    return [message async for message in running.stub.Generate(request)]


WANTED = {
    "cross_attention": pb.AttentionRequest(layers=[1], heads=[0, -1]),
    "self_attention": pb.AttentionRequest(layers=[-1], head_reduction=pb.HEAD_REDUCTION_MEAN),
}


async def test_a_token_is_a_message(writing: Running) -> None:
    """Behind the start, with all that is told of it; the end has the whole, its tokens not again."""
    start, first, last, end = await stream(writing, asked(alternatives=2, **WANTED))
    assert (start.start.model, start.start.version, start.start.truncated) == ("tiny-text", "1", False)
    assert [token.text for token in start.start.source.tokens] == ["[CLS]", "the", "cat", "[SEP]"]
    assert [(token.start, token.end) for token in start.start.source.tokens] == [(0, 0), (0, 3), (4, 7), (0, 0)]
    assert (first.token.token, first.token.text, first.token.log_probability) == (3, "c", -0.5)
    told = [(one.token, one.text, one.log_probability) for one in first.token.alternatives]
    assert told == [(3, "c", -0.5), (4, "d", -1.5)]
    cross, own = first.token.attention
    assert (cross.layer, cross.kind, list(cross.axes)) == (1, pb.ATTENTION_KIND_CROSS, ["head", "key"])
    assert list(cross.heads) == [0, 3]
    np.testing.assert_array_equal(read_tensor("weights", cross.weights), CROSS)
    assert (own.layer, own.kind, list(own.axes)) == (2, pb.ATTENTION_KIND_CAUSAL, ["key"])
    assert list(own.heads) == [0, 1, 2, 3]
    np.testing.assert_array_equal(read_tensor("weights", own.weights), MEAN)
    assert (last.token.token, last.token.text) == (END, "")
    (result,) = end.end.results
    assert (result.text, result.log_probability, len(result.tokens)) == ("c", -0.75, 0)
    assert result.finish_reason == api.FINISH_REASON_END
    timings = end.end.timings
    found = (timings.decode_ns, timings.encode_ns, timings.first_token_ns, timings.total_ns, timings.steps)
    assert found == (1, 2, 3, 4, 5)
    assert end.end.start == "one"


async def test_all_of_it_is_one_message(writing: Running, generator: FakeGenerator) -> None:
    """With the tokens of all results, and what each adds to its text."""
    generator.results = (whole(), GeneratedText((LAST,), "", -2.0, "length"))
    answer = await writing.stub.GenerateText(asked(num_beams=2, num_results=2, **WANTED))
    assert not generator.requests[0][2]
    assert (answer.start.model, len(answer.start.source.tokens)) == ("tiny-text", 4)
    best, other = answer.end.results
    assert [(token.token, token.text) for token in best.tokens] == [(3, "c"), (END, "")]
    np.testing.assert_array_equal(read_tensor("weights", best.tokens[0].attention[0].weights), CROSS)
    assert (other.text, other.log_probability, other.finish_reason) == ("", -2.0, api.FINISH_REASON_LENGTH)
    assert answer.end.timings.steps == 5


async def test_beams_come_with_their_tokens_at_the_end(writing: Running, generator: FakeGenerator) -> None:
    """Of a stream, too, which has sent none of them."""
    generator.tokens = ()
    _, end = await stream(writing, asked(num_beams=2))
    assert [(token.token, token.text) for token in end.end.results[0].tokens] == [(3, "c"), (END, "")]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end", api.FINISH_REASON_END),
        ("length", api.FINISH_REASON_LENGTH),
        ("stop", api.FINISH_REASON_STOP),
        ("target", api.FINISH_REASON_TARGET),
    ],
)
async def test_it_is_said_why_a_text_ends(
    writing: Running, generator: FakeGenerator, reason: FinishReason, expected: api.FinishReason
) -> None:
    """In the words of the protocol."""
    generator.results = (whole(reason),)
    answer = await writing.stub.GenerateText(asked())
    assert answer.end.results[0].finish_reason == expected


async def test_what_is_wanted_reaches_the_generator(writing: Running, generator: FakeGenerator) -> None:
    """Every field of it."""
    sampling = api.Sampling(temperature=0.5, top_k=3, top_p=0.75, seed=2**64 - 1)
    fields: dict[str, Any] = {"num_beams": 4, "num_results": 2, "length_penalty": 0.5, "stop": ["a", "b"]}
    fields |= {"alternatives": 5, "target": "K AE T", "max_tokens": 7, "start": "three", "truncate": True}
    await stream(writing, asked(sampling=sampling, priority=1, timeout_ms=60_000, **fields, **WANTED))
    found, context, streams = generator.requests[0]
    expected = GenerationRequest(
        found.model,
        "the cat",
        truncate=True,
        start="three",
        max_tokens=7,
        num_beams=4,
        num_results=2,
        length_penalty=0.5,
        sampling=Sampling(0.5, 3, 0.75, 2**64 - 1),
        stop=("a", "b"),
        target="K AE T",
        alternatives=5,
        attention={
            "cross": AttentionRequest(layers=(1,), heads=(0, -1)),
            "self": AttentionRequest(layers=(-1,), head_reduction="mean"),
        },
    )
    assert fields_of(found) == fields_of(expected)
    assert (context.priority, context.deadline is not None, streams) == (1, True, True)


async def test_what_is_not_said_is_left_open(writing: Running, generator: FakeGenerator) -> None:
    """No sampling, no penalty, no target and no attention; nor a seed where only sampling is asked for."""
    await writing.stub.GenerateText(asked())
    await writing.stub.GenerateText(asked(sampling=api.Sampling()))
    assert not (await writing.stub.GenerateText(asked())).start.source.tokens
    (plain, context, _), (sampled, _, _), _ = generator.requests
    assert fields_of(plain) == fields_of(GenerationRequest(plain.model, "the cat", attention={}))
    assert (context.priority, context.deadline) == (2, None)
    assert sampled.sampling == Sampling()


async def test_a_token_is_sent_when_it_is_there(writing: Running, generator: FakeGenerator) -> None:
    """Not with the next."""
    generator.gate = asyncio.Semaphore(1)
    call = writing.stub.Generate(asked())
    assert (await call.read()).HasField("start")
    assert (await call.read()).token.token == 3
    generator.gate.release()
    assert (await call.read()).token.token == END


async def test_who_hangs_up_wants_nothing_more(writing: Running, generator: FakeGenerator) -> None:
    """The generator is told at once, between two tokens, by both methods."""
    generator.gate = asyncio.Semaphore(1)
    call = writing.stub.Generate(asked())
    await call.read()
    await call.read()
    assert not generator.closed.is_set()
    call.cancel()
    await asyncio.wait_for(generator.closed.wait(), 30)


async def test_an_error_ends_the_stream(writing: Running, generator: FakeGenerator) -> None:
    """Behind what was sent, with its code."""
    generator.error = TooBusy("the server is full", 1.0, "held")
    call = writing.stub.Generate(asked())
    assert [message.WhichOneof("part") for message in [await call.read() for _ in range(3)]] == [
        "start",
        *["token"] * 2,
    ]
    assert await refused(call.read(), "the server is full") == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await refused(writing.stub.GenerateText(asked()), "is full") == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop": ["a"] * 1025}, r"stop: 1025 entries; expected at most 1024"),
        ({"priority": 4}, r"priority: 4; expected 1 \(first\) to 3"),
        ({"self_attention": pb.AttentionRequest(heads=[0] * 65537)}, r"self_attention.heads: 65537 entries"),
        ({"cross_attention": pb.AttentionRequest(measure=77)}, r"cross_attention.measure: 77; expected one of the"),  # type: ignore[arg-type]
        ({"cross_attention": pb.AttentionRequest(dtype=pb.DATA_TYPE_INT8)}, r"cross_attention.dtype: DATA_TYPE_INT8"),
    ],
)
async def test_fields_that_cannot_be_read_are_refused(writing: Running, fields: dict[str, Any], message: str) -> None:
    """By their own names, before anything is written."""
    assert await refused(writing.stub.GenerateText(asked(**fields)), message) == grpc.StatusCode.INVALID_ARGUMENT


async def test_models_that_are_not_there_are_refused(writing: Running) -> None:
    """As by every method."""
    call = writing.stub.GenerateText(api.GenerateRequest(model="nothing", text="a"))
    assert await refused(call, "nothing") == grpc.StatusCode.NOT_FOUND


async def test_attention_that_no_message_holds_is_refused(
    generator: FakeGenerator, start: Serve, tmp_path: Path
) -> None:
    """Of a token, and of a whole text, of which each token has a message of its own."""
    attention = (StepAttention("cross", 0, (0,), False, np.zeros((1, 20_000), dtype=np.float32)),)
    large = dataclasses.replace(FIRST, attention=attention)
    async with start(max_message_bytes=100_000) as running:
        generator.tokens = (large,)
        generator.results = (GeneratedText((large, large), "cc", -1.0, "length"),)
        assert len(await stream(running, asked(**WANTED))) == 3
        code = await refused(
            running.stub.GenerateText(asked(**WANTED)), "cross_attention: an answer of .*: Generate, which"
        )
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        generator.tokens = (dataclasses.replace(FIRST, attention=attention * 2),)
        code = await refused(
            stream(running, asked(**WANTED)), "cross_attention: an answer of .*: fewer layers or heads"
        )
        assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_attention_needs_permission(generator: FakeGenerator, start: Serve, tmp_path: Path) -> None:
    """That of either kind; a text does not."""
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.writer]\ntokens = ["a-secret-of-sixteen"]\nallow = ["infer"]\n')
    async with start(clients=clients) as running:
        metadata = (("authorization", "Bearer a-secret-of-sixteen"),)
        await running.stub.GenerateText(asked(), metadata=metadata)
        for field, wanted in WANTED.items():
            call = running.stub.GenerateText(asked(**{field: wanted}), metadata=metadata)
            code = await refused(call, f"{field}: writer may not; expected a client with 'attention'")
            assert code == grpc.StatusCode.PERMISSION_DENIED
        assert len(generator.requests) == 1


async def test_a_model_says_how_it_writes(writing: Running) -> None:
    """And the others, that they do not."""
    described = (await writing.stub.GetModel(api.GetModelRequest(model="tiny-text"))).model.generation
    assert described == pb.Generation(
        num_layers=1,
        num_heads=1,
        max_tokens=20,
        starts=["one", "three"],
        default_start="one",
        num_beams=1,
        length_penalty=1.0,
        vocab_size=12,
    )
    other = (await writing.stub.GetModel(api.GetModelRequest(model="fashion"))).model
    assert not other.HasField("generation")


async def test_streams_count_as_requests_while_they_are_written(generator: FakeGenerator, start: Serve) -> None:
    """Though some of their messages are sent: two may be in the server, and a third is refused."""
    generator.gate = asyncio.Semaphore(0)
    async with start(max_queue_size=1, max_batch_size=1) as running:
        streams = [running.stub.Generate(asked()) for _ in range(2)]
        for one in streams:
            assert (await one.read()).HasField("start")
        third = running.stub.Generate(asked())
        assert await refused(third.read(), "--max-queue-size") == grpc.StatusCode.RESOURCE_EXHAUSTED
        for _ in range(4):
            generator.gate.release()
        for one in streams:
            assert [(await one.read()).WhichOneof("part") for _ in range(3)] == ["token", "token", "end"]
