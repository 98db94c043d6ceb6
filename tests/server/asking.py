"""What tests ask a running server, and what they compare its answers with."""

import asyncio
import urllib.request
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from regard.v1 import types_pb2 as pb
from server.api.regard_v1.tensors import read_tensor
from tests.server.conftest import Running

CODES = grpc.StatusCode


async def refused(call: Awaitable[Any], match: str) -> grpc.StatusCode:
    """The code with which a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError, match=match) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


async def get(running: Running, path: str) -> tuple[int, str]:
    """Status and body of a page beside the metrics."""

    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{running.started.metrics_address}{path}", timeout=10) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def samples(running: Running) -> dict[tuple[str, ...], float]:
    """Every sample of /metrics, by name and label values, these in alphabetical order of the labels."""
    _, text = await get(running, "/metrics")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def until(running: Running, sample: tuple[str, ...], expected: float) -> dict[tuple[str, ...], float]:
    """Wait for a sample, and return all."""
    async with asyncio.timeout(30):
        while (found := await samples(running)).get(sample, 0.0) != expected:
            pass
    return found


def values_of(message: pb.Relevance) -> NDArray[Any]:
    """What each position did."""
    return read_tensor("values", message.values)
