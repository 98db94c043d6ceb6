"""Several inputs a call: answers and errors in their places."""

from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest

import regard
from regard import AsyncClient, AttentionRequest, Client
from tests.client.fake import FakeServer, photo_bytes


def test_each_text_has_its_vector_or_its_error(client: Client, server: FakeServer) -> None:
    """The error is raised where the answer is read, and can be looked at without."""
    answers = client.embed_many(texts=["a", "bad", "b"], model="minilm", version="2", truncate=True, priority=3)
    assert isinstance(answers, Sequence)
    assert (answers.model, answers.version, len(answers)) == ("minilm", "2", 3)
    assert answers[0].vector.tolist() == [0, 1, 0, 0]
    assert (answers[-1].vector.tolist(), answers[-1].timings) == ([0, 0, 1, 0], answers.timings)
    assert answers.timings.batch_size == 5
    with pytest.raises(regard.InvalidArgument, match=r"texts\[1\]: bad; expected a good one"):
        answers[1]
    with pytest.raises(regard.InvalidArgument):
        list(answers)
    assert [answer.vector.argmax() for answer in answers[::2]] == [1, 2]
    assert {number: error.code for number, error in answers.errors.items()} == {1: grpc.StatusCode.INVALID_ARGUMENT}
    (request,) = server.requests
    assert (list(request.texts.items), request.model, request.version) == (["a", "bad", "b"], "minilm", "2")
    assert (request.truncate, request.priority) == (True, 3)


def test_each_photo_has_its_labels_and_attention(client: Client, server: FakeServer, tmp_path: Path) -> None:
    """As bytes or as paths."""
    path = tmp_path / "photo.png"
    path.write_bytes(photo_bytes())
    wanted = AttentionRequest(layers=(0,))
    answers = client.classify_many(images=[photo_bytes(), path], model="photos", top_k=1, attention=wanted)
    assert [[label.name for label in answer.labels] for answer in answers] == [["cat"], ["cat"]]
    assert all(answer.attention and len(answer.attention.layers) == 1 for answer in answers)
    assert answers.errors == {}
    (request,) = server.requests
    assert list(request.images.items) == [photo_bytes()] * 2


def test_no_inputs_are_for_the_server_to_refuse(client: Client, server: FakeServer) -> None:
    """It knows how many it takes."""
    server.error = grpc.StatusCode.INVALID_ARGUMENT, "texts: 0 of them; expected 1 to 3"
    with pytest.raises(regard.InvalidArgument, match="texts: 0 of them"):
        client.embed_many(texts=[])
    assert server.requests[0].WhichOneof("input") == "texts"


async def test_the_asyncio_client_does_the_same(aio_client: AsyncClient, client: Client, server: FakeServer) -> None:
    """Equal requests, equal answers."""
    vectors = await aio_client.embed_many(texts=["a", "bad"], truncate=True)
    labels = await aio_client.classify_many(images=[photo_bytes()], top_k=2)
    from_aio, server.requests = server.requests, []
    np.testing.assert_array_equal(vectors[0].vector, client.embed_many(texts=["a", "bad"], truncate=True)[0].vector)
    assert labels[0].labels == client.classify_many(images=[photo_bytes()], top_k=2)[0].labels
    assert list(vectors.errors) == [1]
    assert from_aio == server.requests
