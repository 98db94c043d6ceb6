"""Texts that are written: what both clients send, and how they hand on what comes, as it comes."""

import dataclasses
from typing import Any

import grpc
import numpy as np
import pytest

from regard import (
    Alternative,
    AsyncClient,
    AttentionRequest,
    Client,
    Generated,
    Generation,
    GenerationTimings,
    InvalidArgument,
    RegardError,
    ResourceExhausted,
    Sampling,
)
from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb
from tests.client.fake import OF_TOKENS, WORDS, FakeServer, step_weights

CROSS = AttentionRequest(layers=(-1,), reduce_heads="mean")
TEXTS = ["K", " AE", " T", ""]


def check_whole(found: Generated, results: int = 1) -> None:
    """What the fake server has written, however it was sent."""
    assert (found.model, found.version, found.truncated, found.text) == ("g2p", "1", False, "K AE T")
    assert len(found.results) == results
    best = found.results[0]
    assert (best.text, best.log_probability, best.finish_reason) == ("K AE T", -1.5, "end")
    assert [token.text for token in best.tokens] == TEXTS
    assert [token.token for token in best.tokens] == [3, 4, 5, 6]
    assert found.timings == GenerationTimings(1, 2, 3_000_000, 6_000_000, 4)
    assert found.start == "plain"


def test_tokens_come_one_by_one_and_then_the_whole(client: Client) -> None:
    """Which has them all, once more."""
    tokens = client.generate("cat", model="g2p")
    assert [token.text for token in tokens] == TEXTS
    assert next(tokens, None) is None
    check_whole(tokens.finish())
    assert tokens.finish() is tokens.finish()


def test_why_tokens_were_written(client: Client, server: FakeServer) -> None:
    """Tokens by source, by word, and by what was before; arrays cannot be written to."""
    found = client.generate("cat", model="g2p", relevance=True).finish()
    assert server.requests[-1].relevance == rpc.GenerationRelevanceRequest()
    why = found.relevance
    assert why is not None
    assert (why.tokens, why.labels) == ((0, 1, 2, 3), ("K", "AE", "T", "</s>"))
    np.testing.assert_array_equal(why.source, OF_TOKENS)
    assert why.target_tokens == ("<s>", "K", "AE", "T")
    np.testing.assert_allclose(why.source.sum(1) + why.target.sum(1) + why.rest, why.score)
    assert [token.text for token in why.source_tokens] == WORDS
    words, sums = why.by_word()
    assert [word.tokens for word in words] == [(1,), (2, 3)]
    np.testing.assert_allclose(sums, np.stack([OF_TOKENS[:, 1], OF_TOKENS[:, 2:4].sum(1)], axis=1))
    with pytest.raises(ValueError, match="read-only"):
        why.score[0] = 1
    with pytest.raises(LookupError, match="but a sound"):
        dataclasses.replace(why, source_tokens=()).by_word()


async def test_some_tokens_are_explained_or_none(client: Client, aio_client: AsyncClient, server: FakeServer) -> None:
    """As they are named; what is no list of tokens is refused before it is sent."""
    found = await aio_client.generate_text("cat", model="g2p", relevance=[1, 3])
    assert found.relevance is not None
    assert found.relevance.tokens == (1, 3)
    for nothing in (None, False):
        assert client.generate_text("cat", model="g2p", relevance=nothing).relevance is None
        assert not server.requests[-1].HasField("relevance")
    for wrong in ([], "1", [1.5], 3):
        with pytest.raises(InvalidArgument, match="relevance"):
            client.generate("cat", model="g2p", relevance=wrong)  # type: ignore[arg-type]


async def test_the_asyncio_client_does_so_too(aio_client: AsyncClient) -> None:
    """With the same names."""
    tokens = aio_client.generate("cat", model="g2p", cross_attention=CROSS)
    assert [token.text async for token in tokens] == TEXTS
    assert [token.text for token in tokens.source] == WORDS
    check_whole(await tokens.finish())
    check_whole(await aio_client.generate_text("cat", model="g2p"))
    async with aio_client.generate("cat") as others:
        check_whole(await others.finish())


def test_a_token_is_there_before_the_next(client: Client, server: FakeServer) -> None:
    """The server waits before the third."""
    server.held = True
    with client.generate("cat") as tokens:
        assert (next(tokens).text, next(tokens).text) == ("K", " AE")
        server.released.set()
        assert next(tokens).text == " T"


def test_whoever_closes_a_stream_gets_no_more_of_it(client: Client, server: FakeServer) -> None:
    """The call is cancelled, and has no whole."""
    server.held = True
    with client.generate("cat") as tokens:
        next(tokens)
    with pytest.raises(RegardError, match="CANCELLED"):
        tokens.finish()


def test_the_end_may_be_waited_for_at_once(client: Client) -> None:
    """Or after some tokens; nothing is lost."""
    check_whole(client.generate("cat").finish())
    tokens = client.generate("cat")
    next(tokens)
    check_whole(tokens.finish())


def test_several_beams_come_with_their_tokens_at_the_end(client: Client) -> None:
    """By both calls."""
    tokens = client.generate("cat", num_beams=3, num_results=2)
    assert list(tokens) == []
    for found in (tokens.finish(), client.generate_text("cat", num_beams=3, num_results=2)):
        check_whole(found, results=2)
        other = found.results[1]
        assert (other.text, other.finish_reason, len(other.tokens)) == ("K AE", "length", 2)


def test_what_each_step_attends_to_comes_as_arrays(client: Client) -> None:
    """Of a reduction [K], else [H, K]; together they are the alignment."""
    tokens = client.generate("cat", cross_attention=CROSS, self_attention=AttentionRequest())
    assert not tokens.source
    first = next(tokens)
    assert [token.text for token in tokens.source] == WORDS
    cross, own = first.attention
    assert (cross.kind, cross.layer, cross.axes, own.kind) == ("cross", 2, ("key",), "causal")
    np.testing.assert_array_equal(cross.weights, step_weights(0).mean(axis=0))
    assert own.weights.shape == (1, 1)
    layer = tokens.finish().results[0].alignment()
    assert (layer.layer, layer.kind, layer.axes, layer.queries) == (2, "cross", ("query", "key"), (0, 1, 2, 3))
    np.testing.assert_array_equal(layer.weights, [step_weights(step).mean(axis=0) for step in range(4)])


def test_the_alignment_has_an_axis_of_heads_where_none_were_reduced(client: Client) -> None:
    """Before that of the queries, as everywhere."""
    asked = AttentionRequest(layers=(1,), heads=(2, 0))
    found = client.generate_text("cat", cross_attention=asked).results[0]
    layer = found.alignment(1)
    assert (layer.axes, layer.heads, layer.weights.shape) == (("head", "query", "key"), (2, 0), (2, 4, 5))
    np.testing.assert_array_equal(layer.weights[0, 1], step_weights(1)[2])
    with pytest.raises(LookupError, match=r"no cross attention of layer 0 in this answer, which holds \[1\]"):
        found.alignment(0)
    with pytest.raises(LookupError, match=r"which holds \[\]"):
        client.generate_text("cat").results[0].alignment()


def test_every_argument_is_sent(client: Client, server: FakeServer) -> None:
    """By both calls alike."""
    options: dict[str, Any] = {"model": "g2p", "version": "1", "truncate": True, "start": "plain", "max_tokens": 7}
    options |= {"num_beams": 1, "num_results": 1, "length_penalty": 0.5, "stop": ["a", "b"], "priority": 1}
    options |= {"sampling": Sampling(0.5, 3, 0.75, 2**64 - 1), "target": "K", "alternatives": 2}
    options |= {"cross_attention": CROSS, "self_attention": AttentionRequest(heads=(1,)), "timeout": 30}
    found = client.generate("cat", **options).finish()
    client.generate_text("cat", **options)
    expected = rpc.GenerateRequest(
        model="g2p",
        version="1",
        text="cat",
        truncate=True,
        start="plain",
        max_tokens=7,
        num_beams=1,
        num_results=1,
        length_penalty=0.5,
        sampling=rpc.Sampling(temperature=0.5, top_k=3, top_p=0.75, seed=2**64 - 1),
        stop=["a", "b"],
        target="K",
        alternatives=2,
        cross_attention=pb.AttentionRequest(
            layers=[-1], head_reduction=pb.HEAD_REDUCTION_MEAN, dtype=pb.DATA_TYPE_FLOAT32
        ),
        self_attention=pb.AttentionRequest(heads=[1], dtype=pb.DATA_TYPE_FLOAT32),
        priority=1,
    )
    assert server.requests == [expected, expected]
    assert found.results[0].finish_reason == "target"
    assert found.results[0].tokens[0].alternatives == (Alternative(0, "<0>", -1.0), Alternative(1, "<1>", -2.0))


def test_what_is_not_said_is_not_sent(client: Client, server: FakeServer) -> None:
    """The server then takes the model's own."""
    client.generate_text("cat")
    client.generate_text("cat", sampling=Sampling())
    plain, sampled = server.requests
    assert plain == rpc.GenerateRequest(text="cat", num_results=1)
    assert not sampled.sampling.HasField("seed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": -1}, "max_tokens: -1; expected a whole number from 0 to 4294967295"),
        ({"num_beams": 1.5}, "num_beams: 1.5; expected a whole number"),
        ({"length_penalty": "1"}, "length_penalty: '1'; expected a number"),
        ({"stop": "a"}, "stop: 'a'; expected a list of str"),
        ({"target": ""}, "target: ''; expected a text with something in it, or None"),
        ({"sampling": 0.5}, "sampling: 0.5; expected a Sampling"),
        ({"self_attention": "all"}, "self_attention: 'all'; expected an AttentionRequest"),
        ({"beams": 3}, "beams: 'given'; expected only model, version, truncate"),
    ],
)
def test_arguments_that_cannot_be_sent_are_refused(client: Client, options: dict[str, Any], message: str) -> None:
    """At once, by both calls, and nothing is sent."""
    for call in (client.generate, client.generate_text):
        with pytest.raises(InvalidArgument, match=message):
            call("cat", **options)


@pytest.mark.parametrize(("seed", "top_k"), [(-1, 0), (2**64, 0), (0.5, 0), (None, -1)])
def test_draws_that_cannot_be_are_refused(seed: Any, top_k: int) -> None:
    """When they are made."""
    with pytest.raises(InvalidArgument, match=r"sampling (seed|top_k): "):
        Sampling(seed=seed, top_k=top_k)


async def test_errors_are_those_of_other_calls(client: Client, aio_client: AsyncClient, server: FakeServer) -> None:
    """Raised when the first token is asked for."""
    server.error = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the server is full")
    tokens = client.generate("cat")
    with pytest.raises(ResourceExhausted, match="the server is full"):
        next(tokens)
    others = aio_client.generate("cat")
    with pytest.raises(ResourceExhausted, match="the server is full"):
        await anext(others)
    with pytest.raises(ResourceExhausted, match="the server is full"):
        await aio_client.generate_text("cat")


def test_a_stream_without_an_end_is_an_error(client: Client, server: FakeServer) -> None:
    """Not a text that seems whole."""
    server.breaks_off = True
    tokens = client.generate("cat")
    assert len(list(tokens)) == 4
    with pytest.raises(RegardError, match="the stream ended without its last message"):
        tokens.finish()


def test_a_model_says_how_it_writes(client: Client, server: FakeServer) -> None:
    """And others nothing."""
    server.has_writer = True
    assert client.model("g2p").generation == Generation(3, 3, 64, ("plain",), "plain", 1, 0.5, 50, can_explain=True)
    assert client.model("fashion").generation is None
