"""Sparse vectors, by both clients and the command line."""

import json

import numpy as np
import pytest

import regard
from regard import AsyncClient, Client
from tests.client.conftest import Run
from tests.client.fake import FakeServer


def test_a_sparse_vector_is_what_weighs_something(client: Client, server: FakeServer) -> None:
    """Spelt where it is asked for; all numbers of it stand in the vector."""
    found = client.embed(text="cats", model="words")
    assert found.sparse is not None
    assert (found.sparse.indices.tolist(), found.sparse.values.tolist()) == ([1, 2, 3], [1, 3, 0.5])
    assert found.sparse.terms == ()
    np.testing.assert_array_equal(found.vector, np.array([0, 1, 3, 0.5, 0], np.float32))
    heaviest = client.embed(text="cats", model="words", max_terms=2, with_terms=True)
    assert heaviest.sparse is not None and heaviest.sparse.terms == ("cats", "sit")
    assert [(request.max_terms, request.with_terms) for request in server.requests] == [(0, False), (2, True)]
    assert client.embed(text="cats", model="minilm").sparse is None
    assert (client.model("words").embedding_sparse, client.model("minilm").embedding_sparse) == (True, False)
    with pytest.raises(regard.InvalidArgument, match="max_terms: -1; expected"):
        client.embed(text="cats", max_terms=-1)


async def test_many_and_the_asyncio_client_do_the_same(aio_client: AsyncClient, client: Client) -> None:
    """Each input has its own."""
    many = await aio_client.embed_many(texts=["a", "b"], model="words", max_terms=1, with_terms=True)
    assert [each.sparse.terms for each in many if each.sparse] == [("cats",), ("cats",)]
    one = await aio_client.embed(text="a", model="words", max_terms=1)
    assert one.sparse is not None and one.sparse.values.tolist() == [1]
    assert len(client.embed_many(texts=["a", "b"], model="words", with_terms=True)) == 2


def test_the_command_line_prints_the_heaviest_terms(run: Run) -> None:
    """The heaviest first; JSON has the terms instead of all numbers."""
    done = run("embed", "a", "--model", "words")
    assert (done.code, done.out) == (0, "a: 3 terms: sit 3.00, cats 1.00, ##ting 0.50\n")
    found = json.loads(run("embed", "a", "--model", "words", "--max-terms", "2", "--json").out)
    assert "vector" not in found
    assert found["sparse"] == {"indices": [1, 2], "values": [1, 3], "terms": ["cats", "sit"]}
    assert "embed (sparse, 5)" in run("models").out
