"""Pairs of texts: classified, attended to, and documents ranked, by both clients and the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regard
from regard import AsyncClient, AttentionRequest, Client
from regard.v1 import types_pb2 as pb
from tests.client.conftest import Run
from tests.client.fake import FakeServer

PAIR = ("a dog sat", "a cat sat")


def test_a_pair_is_one_input(client: Client, server: FakeServer) -> None:
    """Of classify and of attend; its tokens say which text they are of."""
    wanted = AttentionRequest(layers=(0,), rows_of_text="first", keys_of_text="second")
    answer = client.classify(pair=PAIR, attention=wanted)
    assert answer.attention is not None
    assert [token.of_text for token in answer.attention.tokens or ()] == [None, "first", "second", "second", None]
    assert list(client.attend(pair=PAIR, attention=wanted))
    asked, streamed = server.requests
    assert (asked.pair.first, asked.pair.second) == (streamed.pair.first, streamed.pair.second) == PAIR
    assert (asked.attention.rows_of_text, asked.attention.keys_of_text) == (
        pb.TEXT_OF_PAIR_FIRST,
        pb.TEXT_OF_PAIR_SECOND,
    )
    assert [token.of_text for token in client.embed(text="a", attention=wanted).attention.tokens] == [None] * 5  # type: ignore[union-attr]


def test_several_pairs_have_an_answer_each(client: Client, server: FakeServer) -> None:
    """In one call."""
    assert len(client.classify_many(pairs=[PAIR, PAIR[::-1]])) == 2
    assert [(pair.first, pair.second) for pair in server.requests[0].pairs.items] == [PAIR, PAIR[::-1]]


def test_documents_come_best_first(client: Client, server: FakeServer) -> None:
    """With the errors of those that have no score."""
    ranking = client.rank("q", ["b", "bad", "c", "a"], model="minilm", version="2", truncate=True, priority=3)
    assert [(one.index, one.score) for one in ranking.documents] == [(2, 99 / 128), (0, 98 / 128), (3, 97 / 128)]
    assert (list(ranking.errors), type(ranking.errors[1])) == ([1], regard.InvalidArgument)
    assert (ranking.model, ranking.version, ranking.timings.batch_size) == ("minilm", "2", 5)
    wanted = AttentionRequest(layers=(0,))
    (best,) = client.rank("q", ["b", "c"], top_k=1, raw_scores=True, attention=wanted).documents
    assert (best.index, best.truncated) == (1, False)
    assert best.attention is not None and len(best.attention.layers) == 1
    first, second = server.requests
    assert (first.query, list(first.documents.items)) == ("q", ["b", "bad", "c", "a"])
    assert (first.truncate, first.priority, second.top_k, second.raw_scores) == (True, 3, 1, True)


def test_a_model_says_whether_it_reads_pairs(client: Client) -> None:
    """And whether it scores them."""
    model, other = client.model("minilm"), client.model("photos")
    assert (model.takes_pairs, model.can_rank, model.activation) == (True, True, "sigmoid")
    assert (other.takes_pairs, other.can_rank, other.activation) == (False, False, "")


async def test_the_asyncio_client_does_the_same(aio_client: AsyncClient, client: Client, server: FakeServer) -> None:
    """Equal requests, equal answers."""
    ranked = await aio_client.rank("q", ["b", "c"], top_k=1)
    await aio_client.classify(pair=PAIR)
    await aio_client.classify_many(pairs=[PAIR])
    async for _ in aio_client.attend(pair=PAIR):
        pass
    from_aio, server.requests = server.requests, []
    assert client.rank("q", ["b", "c"], top_k=1).documents[0].score == ranked.documents[0].score
    client.classify(pair=PAIR)
    client.classify_many(pairs=[PAIR])
    list(client.attend(pair=PAIR))
    assert from_aio == server.requests


def test_rank_prints_documents_best_first(run: Run, server: FakeServer) -> None:
    """More of them than a call takes are ranked over all calls; which model was taken stands on stderr."""
    done = run("rank", "q", "b", "d", "a", "e", "c", "--truncate", "--raw-scores")
    assert [line.split() for line in done.out.splitlines()] == [
        ["0.7891", "e"],
        ["0.7812", "d"],
        ["0.7734", "c"],
        ["0.7656", "b"],
        ["0.7578", "a"],
    ]
    assert (done.code, done.err) == (0, "regard: using minilm\n")
    asked = [request for request in server.requests if hasattr(request, "query")]
    assert [list(request.documents.items) for request in asked] == [["b", "d", "a"], ["e", "c"]]
    assert all(request.raw_scores and request.truncate for request in asked)


def test_rank_as_json_names_the_place_of_each_document(run: Run, tmp_path: Path) -> None:
    """Among all that were given; lines of files are documents each."""
    (tmp_path / "texts.txt").write_text("b\nd\na\ne\n")
    done = run("rank", "q", "texts.txt", "--lines", "--top-k", "2", "--json", "--model", "minilm")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["index"], one["input"]) for one in found] == [(3, "e"), (1, "d")]
    logits = np.array([101 / 128, 100 / 128])  # which are asked for, so that those of several calls can be sorted
    assert [one["score"] for one in found] == pytest.approx(1 / (1 + np.exp(-logits)))


def test_a_document_with_an_error_ends_the_command_with_1(run: Run, server: FakeServer) -> None:
    """After the others were printed; those that were cut are told."""
    server.truncated = True
    done = run("rank", "q", "bad", "a", "--model", "minilm")
    assert (done.code, done.out) == (1, "0.6809  a\n")
    assert (
        done.err
        == "regard: bad: INVALID_ARGUMENT: documents[0]: bad\nregard: a has more tokens than minilm takes and was cut\n"
    )


def test_a_line_with_an_error_or_that_was_cut_is_named(run: Run, server: FakeServer, tmp_path: Path) -> None:
    """By file and line."""
    server.truncated = True
    (tmp_path / "texts.txt").write_text("\nbad\n\na\n")
    assert run("rank", "q", "texts.txt", "--lines", "--model", "minilm").err.splitlines() == [
        "regard: texts.txt, line 2: bad: INVALID_ARGUMENT: documents[0]: bad",
        "regard: texts.txt, line 4: a has more tokens than minilm takes and was cut",
    ]


def test_a_photo_is_not_ranked(run: Run, photo: Path) -> None:
    """Neither as the query nor as a document."""
    for arguments in ([photo, "a"], ["a", photo]):
        done = run("rank", *arguments)
        assert (done.code, done.err) == (1, f"regard: {photo.name}: a photo; expected a text\n")


def test_the_commands_read_pairs(run: Run, server: FakeServer, tmp_path: Path) -> None:
    """Classify and attend; a file stands for its text."""
    (tmp_path / "second.txt").write_text(f"{PAIR[1]}\n")
    assert run("classify", PAIR[0], "--pair", "second.txt", "--model", "minilm").code == 0
    done = run("attend", PAIR[0], "--pair", PAIR[1], "--rows-of", "first", "--keys-of", "second", "--model", "minilm")
    assert done.code == 0
    pairs = [request for request in server.requests if hasattr(request, "pair")]
    assert [(request.pair.first, request.pair.second) for request in pairs] == [PAIR, PAIR]
    assert pairs[1].attention.rows_of_text == pb.TEXT_OF_PAIR_FIRST


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["classify", "photo.png", "--pair", "a"], "--pair: a photo; expected two texts"),
        (["classify", "a", "--pair", "photo.png"], "--pair: a photo; expected two texts"),
        (
            ["classify", "a", "--pair", "b", "--lines"],
            "--pair: each input is a text of its own; expected one",
        ),
        (
            ["classify", "a", "--pair", "b"],
            "the server has no model that can classify pairs of texts; see: regard models",
        ),
    ],
)
def test_what_is_no_pair_is_refused(arguments: list[str], what: str, run: Run, photo: Path) -> None:
    """In a line."""
    given: list[Any] = [photo if one == "photo.png" else one for one in arguments]
    done = run(*given)
    assert (done.code, done.err) == (1, f"regard: {what}\n")
