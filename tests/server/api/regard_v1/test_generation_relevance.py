"""Why tokens were written, by a whole server: complete, the same alone and together, bounded, and refused clearly."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from artifact.contract import CONTRACT_FILE, TOKEN_RELEVANCE_GRAPH, read_contract
from regard.generation_messages import read_generated
from regard.v1 import regard_pb2 as api
from server.config import EMBEDDED_MODELS
from server.context import RpcContext
from server.generation.generator import Generator
from server.generation.request import _TOKEN_BYTES
from tests.server.asking import refused, samples, until
from tests.server.conftest import Serve

ALL = api.GenerationRelevanceRequest()


def asked(text: str = "knight", relevance: api.GenerationRelevanceRequest = ALL, **given: Any) -> api.GenerateRequest:
    """Ask the model g2p why."""
    return api.GenerateRequest(model="g2p", text=text, relevance=relevance, **given)


def some(*tokens: int) -> api.GenerationRelevanceRequest:
    """Some tokens."""
    return api.GenerationRelevanceRequest(tokens=tokens)


async def test_every_token_is_explained(start: Serve) -> None:
    """All that a token's logit is made of; nothing by what came later; and the model says that it can."""
    async with start(models=EMBEDDED_MODELS) as running:
        answer = await running.stub.GenerateText(asked())
        model = (await running.stub.GetModel(api.GetModelRequest(model="g2p"))).model
        await until(running, ("regard_held_bytes",), 0)
    assert model.generation.can_explain
    found = read_generated(answer.start, answer.end, ())
    why, written = found.relevance, found.results[0].tokens
    assert why is not None
    count = len(written)
    assert why.tokens == tuple(range(count))
    assert why.source.shape == (count, len(found.source)) == (count, len("knight") + 1)
    assert why.target.shape == (count, count)
    assert why.target_tokens[why.num_start_tokens :] == why.labels[:-1]
    assert why.labels[0] == "N"
    total = why.source.sum(1) + why.target.sum(1) + why.rest
    np.testing.assert_allclose(total, why.score, rtol=1e-4)
    assert why.relative_error.max() < 1e-5
    assert not np.triu(why.target, why.num_start_tokens).any()
    assert why.source.any(axis=1).all()
    words, sums = why.by_word()
    assert [(word.start, word.end) for word in words] == [(place, place + 1) for place in range(6)]  # by letters
    np.testing.assert_array_equal(sums, why.source[:, :6])
    assert 0 < found.timings.explain_ns < found.timings.total_ns


async def test_scores_are_the_logits_of_the_steps(start: Serve) -> None:
    """Two tokens' scores differ by as much as their log-probabilities, where both might stand at one place."""
    async with start(models=EMBEDDED_MODELS) as running:
        scores, logs = [], []
        for target in ("N AY1 T", "K AY1 T"):
            answer = await running.stub.GenerateText(asked(target=target, relevance=some(0)))
            scores.append(answer.end.relevance.score[0])
            logs.append(answer.end.results[0].tokens[0].log_probability)
    assert abs(logs[0] - logs[1]) > 1
    assert scores[0] - scores[1] == pytest.approx(logs[0] - logs[1], abs=1e-3)


async def test_some_tokens_are_explained_as_among_all(start: Serve) -> None:
    """Counted from either end, in the order that was asked for; streamed with the last message; of beams the best."""
    async with start(models=EMBEDDED_MODELS) as running:
        whole = (await running.stub.GenerateText(asked())).end.relevance
        messages = [one async for one in running.stub.Generate(asked(relevance=some(-1, 1)))]
        beams = await running.stub.GenerateText(asked(num_beams=3, num_results=2))
    assert len(messages[0].start.source.tokens) == 7
    assert not any(message.token.attention for message in messages[:-1])
    why, last = messages[-1].end.relevance, len(whole.tokens) - 1
    assert list(why.tokens) == [last, 1]
    assert list(why.labels) == [whole.labels[last], whole.labels[1]]
    assert list(why.score) == pytest.approx([whole.score[last], whole.score[1]], rel=1e-5)
    of_all, of_some = (np.frombuffer(one.source.data, "<f4").reshape(one.source.shape) for one in (whole, why))
    np.testing.assert_allclose(of_some, of_all[[last, 1]], atol=1e-5)
    assert len(beams.end.relevance.labels) == len(beams.end.results[0].tokens)
    assert max(beams.end.relevance.relative_error) < 1e-5


async def test_texts_of_other_requests_change_nothing(start: Serve) -> None:
    """Several lengths at a time have what each has alone."""
    words = ("a", "knight", "transformer", "gauge", "attention")
    async with start(models=EMBEDDED_MODELS) as running:
        alone = [await running.stub.GenerateText(asked(word)) for word in words]
        together = await asyncio.gather(*(running.stub.GenerateText(asked(word)) for word in words))
    for one, other in zip(alone, together, strict=True):
        first, second = (read_generated(each.start, each.end, ()).relevance for each in (one, other))
        assert first is not None and second is not None
        for field in ("source", "target", "rest", "score"):
            np.testing.assert_allclose(getattr(first, field), getattr(second, field), atol=2e-5)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asked(relevance=some(99)), "relevance.tokens: 99; expected from"),
        (asked(relevance=some(1, 1)), r"relevance.tokens: \[1, 1\]; expected each at most once"),
        (asked(relevance=some(*range(2000))), "relevance.tokens: 2000 numbers; expected at most 1024"),
        (asked("a", relevance=some(9)), "relevance.tokens: 9; expected from"),
    ],
)
async def test_tokens_that_are_not_there_are_refused(request_: api.GenerateRequest, message: str, start: Serve) -> None:
    """Before anything is written, where that is known; else once it is; nothing stays held."""
    async with start(models=EMBEDDED_MODELS) as running:
        assert await refused(running.stub.GenerateText(request_), message) == grpc.StatusCode.INVALID_ARGUMENT
        await until(running, ("regard_held_bytes",), 0)


async def test_too_much_is_refused(start: Serve) -> None:
    """By the positions of all rows together; fewer tokens are told."""
    async with start(models=EMBEDDED_MODELS, max_pair_tokens=32) as running:
        code = await refused(running.stub.GenerateText(asked()), r"--max-pair-tokens\): fewer tokens")
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert len((await running.stub.GenerateText(asked(relevance=some(0)))).end.relevance.score) == 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asked(target="N AY1 T"), r"60 positions in all rows of 5 tokens; expected at most 32"),
        (asked(target="N AY1 T", relevance=some(5)), "relevance.tokens: 5; expected from -5 to 4"),
        (asked(relevance=some(0, -1, 1, -2)), r"44 positions in all rows of 4 tokens; expected at most 32"),
        (asked(relevance=some(1, -27)), r"68 positions in all rows of 2 tokens; expected at most 32"),
    ],
)
async def test_what_is_too_much_whatever_is_written_is_refused_before_it_is(
    request_: api.GenerateRequest, message: str, start: Serve
) -> None:
    """Of a text that is scored all is known, of another what the shortest would take that has these tokens."""
    async with start(models=EMBEDDED_MODELS, max_pair_tokens=32) as running:
        assert await refused(running.stub.GenerateText(request_), message) == grpc.StatusCode.INVALID_ARGUMENT
        found = await until(running, ("regard_held_bytes",), 0)
        assert not found.get(("regard_generation_steps_total", "g2p"))
        assert (await running.stub.GenerateText(asked(relevance=some(1, -1)))).end.relevance.score


async def test_relevance_needs_the_permission_of_attention(start: Serve, tmp_path: Path) -> None:
    """A text does not."""
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.writer]\ntokens = ["a-secret-of-sixteen"]\nallow = ["infer"]\n')
    metadata = (("authorization", "Bearer a-secret-of-sixteen"),)
    async with start(models=EMBEDDED_MODELS, clients=clients) as running:
        await running.stub.GenerateText(api.GenerateRequest(model="g2p", text="a"), metadata=metadata)
        call = running.stub.GenerateText(asked(), metadata=metadata)
        code = await refused(call, "relevance: writer may not; expected a client with 'attention'")
        assert code == grpc.StatusCode.PERMISSION_DENIED


async def test_nothing_stays_of_a_caller_who_leaves(start: Serve) -> None:
    """At any place of the stream, the end included; and a text that is explained is one request."""
    async with start(models=EMBEDDED_MODELS) as running:
        whole = [message async for message in running.stub.Generate(asked())]
        for heard in range(1, len(whole) + 1):
            call = running.stub.Generate(asked())
            assert [await call.read() for _ in range(heard)]
            call.cancel()
        await until(running, ("regard_held_bytes",), 0)
        await until(running, ("regard_generation_rows",), 0)
        before = await samples(running)
        await running.stub.GenerateText(asked("gauge"))
        found = await samples(running)
    key = ("regard_first_token_seconds_count", "g2p")
    assert found[key] == before[key] + 1


async def test_a_text_that_waits_to_be_explained_is_held_and_counted(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results until they are sent, and its request among those that are computed until it is explained."""
    parts, answered, explain = list[dict[str, int]](), list[bool](), Generator._explain

    async def note(generator: Generator, request: Any, writing: Any, chosen: Any, context: RpcContext) -> Any:
        answered.append(context.account._is_answered)
        parts.append(dict(context.account._parts))
        return await explain(generator, request, writing, chosen, context)

    monkeypatch.setattr(Generator, "_explain", note)
    async with start(models=EMBEDDED_MODELS) as running:
        whole = await running.stub.GenerateText(asked())
        *_, last = [one async for one in running.stub.Generate(asked(num_beams=3, num_results=3))]
        await until(running, ("regard_held_bytes",), 0)
    assert answered == [False, False]
    written = [sum(len(result.tokens) for result in end.results) for end in (whole.end, last.end)]
    assert [one["writing"] for one in parts] == [_TOKEN_BYTES * count for count in written]


async def test_explaining_takes_no_part_in_the_time_between_tokens(start: Serve) -> None:
    """What is counted of writing is as of a text that is not explained; what is sent of relevance is counted."""
    async with start(models=EMBEDDED_MODELS) as running:
        end = (await running.stub.GenerateText(asked())).end
        found = await samples(running)
    timings, why = end.timings, end.relevance
    later_ns = timings.total_ns - timings.explain_ns - timings.first_token_ns
    assert found["regard_token_seconds_sum", "g2p"] == pytest.approx(later_ns / 1e9 / (timings.steps - 1))
    size_bytes = len(why.source.data) + len(why.target.data) + 4 * (len(why.rest) + len(why.score))
    assert [value for key, value in found.items() if key[0] == "regard_attention_sent_bytes_total"] == [size_bytes]


async def test_a_model_without_the_graph_says_so(start: Serve, tmp_path: Path) -> None:
    """An older artifact writes still."""
    source, folder = EMBEDDED_MODELS / "g2p" / "1", tmp_path / "g2p" / "1"
    folder.mkdir(parents=True)
    contract = read_contract(source / CONTRACT_FILE)
    files = {name: own for name, own in contract.files.items() if name != TOKEN_RELEVANCE_GRAPH}
    for name in files:
        (folder / name).symlink_to(source / name)
    (folder / CONTRACT_FILE).write_text(contract.model_copy(update={"files": files}).model_dump_json())
    async with start(models=tmp_path) as running:
        expected = "relevance: g2p was exported without relevance of tokens; expected a model with"
        code = await refused(running.stub.GenerateText(asked()), expected)
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert (await running.stub.GenerateText(api.GenerateRequest(text="knight"))).end.results[0].text
        model = (await running.stub.GetModel(api.GetModelRequest(model="g2p"))).model
        assert not model.generation.can_explain
