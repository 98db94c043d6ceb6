"""What a message has is known from its receipt, and not asked of protobuf, which would write it again to know."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from regard.v1 import regard_pb2 as api
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import write_tensor
from server.inference.workers import Workers
from tests.server.api.open_inference.messages import Request, make_request, tokens_of
from tests.server.conftest import Running, Serve


@pytest.fixture
async def noted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sizes that are told to whoever decides where something is decoded."""
    sizes, decode = list[float](), Workers.decode

    def note(workers: Workers, job: Callable[[], Any], size_bytes: float) -> Awaitable[Any]:
        sizes.append(size_bytes)
        return decode(workers, job, size_bytes)

    monkeypatch.setattr(Workers, "decode", note)
    return sizes


async def test_a_requests_size_decides_where_it_is_read(start: Serve, noted: list[float]) -> None:
    """By either protocol, in a call of its own, or one of a stream."""
    long, short = make_request("tiny-text", **tokens_of(16)), make_request("tiny-text", **tokens_of(4))
    tensors = {name: write_tensor(array) for name, array in tokens_of(8).items()}
    predict = api.PredictRequest(model="tiny-text", inputs=tensors)

    async def both() -> AsyncIterator[Request]:
        yield long
        yield short

    async with start() as running:
        await _ask(running, predict, long, both())
    asked = {long.ByteSize(), short.ByteSize(), predict.ByteSize()}
    assert {size for size in noted if size in asked} == asked
    assert noted.count(long.ByteSize()) == 2


async def _ask(running: Running, predict: api.PredictRequest, one: Request, stream: AsyncIterator[Request]) -> None:
    stub = GRPCInferenceServiceStub(running.channel)
    await running.stub.Predict(predict)
    await stub.ModelInfer(one)
    async for response in stub.ModelStreamInfer(stream):
        assert not response.error_message
