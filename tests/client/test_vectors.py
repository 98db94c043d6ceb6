"""Vectors cut and in fewer bits, by both clients and the command line."""

import json

import numpy as np
import pytest

import regard
from regard import AsyncClient, Client
from regard.v1 import regard_pb2 as rpc
from tests.client.conftest import Run
from tests.client.fake import FakeServer


def test_a_vector_comes_as_it_was_asked_for(client: Client, server: FakeServer) -> None:
    """And as floats again, whatever it travelled as."""
    plain, cut = client.embed(text="a"), client.embed(text="a", dimensions=2)
    assert plain.vector.dtype == np.float32 and plain.scale == 1
    assert cut.vector.tolist() == [0, 1]
    small = client.embed(text="a", vector_format="int8")
    assert small.vector.dtype == np.int8 and (small.vector.tolist(), small.scale) == ([0, 1, 0, 0], 2)
    assert small.to_floats().tolist() == [0, 2, 0, 0] and small.to_floats().dtype == np.float32
    bits = client.embed(text="a", dimensions=8, vector_format="binary")
    assert bits.vector.tolist() == [0b01000100]
    assert bits.to_floats().tolist() == [-1, 1, -1, -1, -1, 1, -1, -1]
    assert client.embed(text="a", vector_format="float16").vector.dtype == np.float16
    formats = [request.vector_format for request in server.requests]
    assert formats == [0, 0, rpc.VECTOR_FORMAT_INT8, rpc.VECTOR_FORMAT_BINARY, rpc.VECTOR_FORMAT_FLOAT16]
    assert [request.dimensions for request in server.requests] == [0, 2, 0, 8, 0]


async def test_many_vectors_and_the_asyncio_client_do_the_same(aio_client: AsyncClient, server: FakeServer) -> None:
    """Each has its own scale."""
    one = await aio_client.embed(text="a", dimensions=2, vector_format="int8")
    many = await aio_client.embed_many(texts=["a", "b"], dimensions=2, vector_format="int8")
    assert (one.scale, one.vector.tolist()) == (2, [0, 1])
    assert [(each.scale, each.vector.tolist()) for each in many] == [(2, [0, 1]), (2, [0, 0])]
    with Client(server.address) as client:
        client.embed_many(texts=["a", "b"], dimensions=2, vector_format="int8")
    assert server.requests[1] == server.requests[2]


def test_what_cannot_be_sent_is_refused(client: Client) -> None:
    """Before anything is."""
    with pytest.raises(regard.InvalidArgument, match="vector_format is 'int4'; expected 'float32', 'float16', 'int8'"):
        client.embed(text="a", vector_format="int4")  # type: ignore[arg-type]
    with pytest.raises(regard.InvalidArgument, match="dimensions: -1; expected"):
        client.embed(text="a", dimensions=-1)


def test_a_model_says_how_its_vectors_may_be_cut(client: Client, run: Run) -> None:
    """In its description and in the table of models."""
    assert (client.model("minilm").matryoshka_dims, client.model("photos").matryoshka_dims) == ((2,), ())
    assert "embed (2, 4)" in run("models").out


def test_the_command_line_asks_for_them(run: Run) -> None:
    """Bits are written in hexadecimal; cosines are of what came."""
    done = run("embed", "a", "b", "--model", "minilm", "--dimensions", "8", "--format", "binary")
    assert done.code == 0
    assert "a: 8 bits, 44" in done.out
    done = run("embed", "a", "--model", "minilm", "--format", "int8")
    assert "a: 4 wide, norm 2.0000, [0.0000, 2.0000, 0.0000, 0.0000]" in done.out
    done = run("embed", "a", "--model", "minilm", "--format", "int8", "--json")
    found = json.loads(done.out)
    assert (found["vector"], found["scale"]) == ([0, 1, 0, 0], 2)
    assert run("embed", "a", "--format", "int4").code == 2
