"""The asyncio client does as the blocking one does."""

import asyncio
from typing import Any

import numpy as np
import pytest

import regard
from regard import AsyncClient, AttentionRequest, Client
from tests.client.fake import FakeServer, free_address, photo_bytes


async def test_requests_and_answers_are_those_of_the_blocking_client(
    aio_client: AsyncClient, client: Client, server: FakeServer
) -> None:
    """Both send equal requests for equal arguments and read equal answers."""
    inputs = {"x": np.arange(6, dtype=">i4").reshape(2, 3).T}
    attention = AttentionRequest(layers=(-1,), reduce_heads="mean")
    prediction = await aio_client.predict(inputs, model="tensors", outputs=["x"], attention=attention)
    classification = await aio_client.classify(image=photo_bytes(), top_k=1, attention=attention)
    embedding = await aio_client.embed(text="a", truncate=True, attention=attention)
    assert await aio_client.models() == client.models()
    assert await aio_client.model("photos") == client.model("photos")
    from_aio, server.requests = server.requests[:3], []

    client.predict(inputs, model="tensors", outputs=["x"], attention=attention)
    assert classification.labels == client.classify(image=photo_bytes(), top_k=1, attention=attention).labels
    np.testing.assert_array_equal(embedding.vector, client.embed(text="a", truncate=True, attention=attention).vector)
    np.testing.assert_array_equal(prediction.outputs["x"], inputs["x"])
    assert from_aio == server.requests


async def test_a_server_that_does_not_answer_in_time_is_given_up(aio_client: AsyncClient, server: FakeServer) -> None:
    """By the timeout of one call."""
    server.held = True
    with pytest.raises(regard.DeadlineExceeded):
        await aio_client.classify(text="hm", timeout=0.05)


async def test_nobody_listening_is_unavailable() -> None:
    """At the first call."""
    async with AsyncClient(free_address()) as client:
        with pytest.raises(regard.Unavailable):
            await client.models()


@pytest.mark.parametrize("given", [{}, {"image": b"x", "text": "x"}], ids=["neither", "both"])
async def test_image_and_text_exclude_each_other(aio_client: AsyncClient, given: dict[str, Any]) -> None:
    """Both or neither is the caller's mistake."""
    with pytest.raises(ValueError, match="exactly one of them"):
        await aio_client.embed(**given)


async def test_a_cancelled_call_stays_cancelled(aio_client: AsyncClient, server: FakeServer) -> None:
    """Cancellation is asyncio's own error, not one of ours."""
    server.held = True
    call = asyncio.create_task(aio_client.models())
    await asyncio.to_thread(server.arrived.wait, 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_models_are_loaded_and_unloaded(aio_client: AsyncClient, server: FakeServer) -> None:
    """As by the blocking client."""
    served = (await aio_client.models())[0]
    assert await aio_client.load_model(served.name) == served
    await aio_client.unload_model(served.name)
    assert [one.state for one in await aio_client.versions()] == ["READY", "UNAVAILABLE"]
    assert type(server.requests[2]).__name__ == "UnloadModelRequest"
