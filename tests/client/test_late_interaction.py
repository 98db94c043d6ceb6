"""A vector for each token, and what each token of a query found in documents, by both clients and the command line."""

from pathlib import Path

import numpy as np
import pytest

import regard
from regard import AsyncClient, Client
from regard.v1 import regard_pb2 as rpc
from tests.client.conftest import Run
from tests.client.fake import FakeServer


def test_each_token_has_a_vector(client: Client, server: FakeServer) -> None:
    """Of a query others than of a document."""
    document, query = client.embed(text="a", model="late"), client.embed(text="a", model="late", role="query")
    assert document.tokens is not None and query.tokens is not None
    assert [token.text for token in document.tokens] == ["cats", "sit", "##ting"]
    np.testing.assert_array_equal(query.vector, np.eye(2, 4))
    assert [request.role for request in server.requests] == [rpc.TEXT_ROLE_DOCUMENT, rpc.TEXT_ROLE_QUERY]
    assert client.embed(text="a", model="minilm").tokens is None
    with pytest.raises(regard.InvalidArgument, match="role is 'title'; expected 'document' or 'query'"):
        client.embed(text="a", role="title")  # type: ignore[arg-type]
    model = client.model("late")
    assert (model.token_vector_dim, model.query_tokens, model.document_tokens) == (4, 8, 9)


async def test_the_asyncio_client_does_the_same(aio_client: AsyncClient, client: Client, server: FakeServer) -> None:
    """Of many, and of documents by what the query found."""
    many = await aio_client.embed_many(texts=["a", "b"], model="late", role="query")
    assert [len(one.tokens or ()) for one in many] == [2, 2]
    ranked = await aio_client.rank("q", ["b", "c"], model="late", token_matches=True)
    client.embed_many(texts=["a", "b"], model="late", role="query")
    again = client.rank("q", ["b", "c"], model="late", token_matches=True)
    assert server.requests[:2] == server.requests[2:]
    for ranking in (ranked, again):
        assert [token.text for token in ranking.query_tokens or ()] == ["cats", "sit"]
        matches = ranking.documents[0].token_matches
        assert matches is not None
        assert (matches.found.tolist(), matches.similarities.tolist()) == ([1, 0], [0.5, 0.25])
        assert [token.text for token in matches.document_tokens] == ["sit", "##ting"]
    without = client.rank("q", ["b"], model="minilm")
    assert (without.query_tokens, without.documents[0].token_matches) == (None, None)


def test_the_command_line_prints_them(run: Run) -> None:
    """Vectors by number and tokens; scores as they are, without a sigmoid."""
    assert "predict, embed (4 a token), rank" in run("models").out
    done = run("embed", "a", "b", "--model", "late", "--role", "query")
    assert (done.code, done.out) == (0, "a: 2 vectors, 4 wide, of cats sit\nb: 2 vectors, 4 wide, of cats sit\n")
    done = run("rank", "q", "a", "--model", "late", "--token-matches")
    lines = [line.split() for line in done.out.splitlines()]
    assert (done.code, lines) == (0, [["0.7578", "a"], ["cats", ">", "##ting", "0.50,", "sit", ">", "sit", "0.25"]])


def test_the_command_line_draws_them(run: Run, tmp_path: Path) -> None:
    """Of the best document; without the matches there is nothing to draw."""
    done = run("rank", "q", "a", "--model", "late", "--token-matches", "-o", str(tmp_path / "matches.png"))
    assert (done.code, done.err) == (0, f"regard: wrote {tmp_path / 'matches.png'}\n")
    assert (tmp_path / "matches.png").read_bytes().startswith(b"\x89PNG")
    done = run("rank", "q", "a", "--model", "late", "-o", str(tmp_path / "more.png"))
    assert (done.code, "expected --token-matches beside it" in done.err.replace("\n", " ")) == (1, True)
